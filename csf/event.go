package csf

import (
	"encoding/json"
	"net/netip"
	"time"
)

// Event is one fact, stated once by the package that knows it. The same value goes to the spool, the
// event store, detection and the API. Producers fill everything but Node and Seq, which the recorder sets.
type Event struct {
	// Seq is the event's number on its node: 1, 2, 3, … without gaps over the life of the node's data directory.
	Seq uint64 `json:"seq"`
	// Node is node.name of the configuration that recorded the event.
	Node string `json:"node"`
	// Time is when the fact happened, UTC. The recorder sets it when it is zero.
	Time time.Time `json:"time"`
	// Kind says what happened; Reason, where there is one, why.
	Kind   Kind   `json:"kind"`
	Reason Reason `json:"reason,omitempty"`
	// Session is the id of the session (UUID version 7) that the event belongs to.
	Session string `json:"session,omitempty"`
	// Identity is the name of the registered identity that the session is bound to. What a client claims of
	// itself before it is bound stands in Facts under "claimed_user" and the like.
	Identity string `json:"identity,omitempty"`
	// Source is the name of the registered PROXY-protocol source, if the connection came through one.
	Source string `json:"source,omitempty"`
	// Client is the address that access decisions use: the TCP peer's, or the one that a registered source asserted.
	Client netip.AddrPort `json:"client,omitzero"`
	// Peer is the TCP peer's address.
	Peer netip.AddrPort `json:"peer,omitzero"`
	// Cluster and Upstream name the cluster and the member (host:port) that the event concerns.
	Cluster  string `json:"cluster,omitempty"`
	Upstream string `json:"upstream,omitempty"`
	// SelfTest marks traffic of self-tests; it is left out of every population.
	SelfTest bool `json:"selftest,omitempty"`
	// Facts are the kind's own fields, declared in the kind table. Values are strings, booleans, integers,
	// floats, or slices and maps of them. Never a secret, a literal of a statement or a raw control byte.
	Facts Facts `json:"facts,omitempty"`
	// Block holds the compressed statement records of a statement block (kind query.observed), nil otherwise.
	Block []byte `json:"-"`
}

// Facts are the fields of an event beside the common ones.
type Facts map[string]any

// JSON renders the facts with sorted keys, so that equal facts have equal bytes; "{}" when there are none.
func (f Facts) JSON() []byte {
	if len(f) == 0 {
		return []byte("{}")
	}
	b, err := json.Marshal(map[string]any(f))
	if err != nil { // a value that JSON cannot hold, such as NaN: keep the event, name the fault
		b, _ = json.Marshal(map[string]string{"facts_error": err.Error()})
	}
	return b
}

// Tags gives the CSF 2.0 subcategories that the event is evidence for under the built-in mapping.
func (e Event) Tags() []string { return BuiltinMapping().Tags(e.Kind, e.Reason) }
