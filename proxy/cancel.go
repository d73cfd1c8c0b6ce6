package proxy

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/binary"
	"sync"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/proxy/upstream"
	"github.com/csfproxy/csfproxy/proxy/wire"
)

// cancelKeyBytes is the length of the secret keys that this node issues: 4 bytes before protocol 3.2, where the
// protocol's chapter 54.7 (BackendKeyData) fixes it, and 32 since.
const (
	cancelKeyBytesOld = 4
	cancelKeyBytes    = 32
	// cancelsAtOnce bounds CancelRequests in flight to upstreams; more wait for up to cancelTimeout, logins go on.
	cancelsAtOnce = 64
	cancelTimeout = 10 * time.Second
	// cancelKeysEnded is how many keys of ended sessions are remembered, so that a request that comes too late is told
	// from a guess: drivers send one for each connection that they lose, all at once after a switch.
	cancelKeysEnded = 4096
)

// cancelKeys maps the keys that this node issued to the sessions that hold them. The process id in
// BackendKeyData is a random number of ours, never the upstream's, so that the pair names nothing behind
// the ingress.
type cancelKeys struct {
	mu   sync.Mutex
	byID map[uint32]cancelTarget
	slot chan struct{}
	// ended are the keys of sessions that ended lately, with the order in which they did: last[oldest] goes first.
	ended  map[uint32][]byte
	last   []uint32
	oldest int
	// anyKey takes the process id alone. Only a sandbox sets it.
	anyKey bool
}

type cancelTarget struct {
	key     []byte
	session *Session
}

func newCancelKeys() *cancelKeys {
	return &cancelKeys{byID: make(map[uint32]cancelTarget), slot: make(chan struct{}, cancelsAtOnce), ended: make(map[uint32][]byte)}
}

// issue makes a key for the session. It lives until revoke.
func (k *cancelKeys) issue(s *Session, long bool) (pid uint32, key []byte) {
	key = make([]byte, cancelKeyBytesOld)
	if long {
		key = make([]byte, cancelKeyBytes)
	}
	rand.Read(key)
	k.mu.Lock()
	defer k.mu.Unlock()
	for {
		var b [4]byte
		rand.Read(b[:])
		pid = binary.BigEndian.Uint32(b[:]) & 0x7fffffff // drivers print it as a signed number
		_, taken := k.byID[pid]
		if _, ended := k.ended[pid]; !taken && !ended && pid != 0 {
			break
		}
	}
	k.byID[pid] = cancelTarget{key: key, session: s}
	return pid, key
}

func (k *cancelKeys) revoke(pid uint32) {
	k.mu.Lock()
	defer k.mu.Unlock()
	t, ok := k.byID[pid]
	if !ok {
		return
	}
	delete(k.byID, pid)
	if k.ended[pid] = t.key; len(k.last) < cancelKeysEnded {
		k.last = append(k.last, pid)
		return
	}
	delete(k.ended, k.last[k.oldest])
	k.last[k.oldest], k.oldest = pid, (k.oldest+1)%cancelKeysEnded
}

// belated says that the key was that of a session which ended lately.
func (k *cancelKeys) belated(pid uint32, key []byte) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	was, ok := k.ended[pid]
	return ok && subtle.ConstantTimeCompare(was, key) == 1
}

// find gives the session that the key names. The comparison takes the same time for any wrong key of the right length.
func (k *cancelKeys) find(pid uint32, key []byte) (*Session, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	t, ok := k.byID[pid]
	if !ok || !k.anyKey && subtle.ConstantTimeCompare(t.key, key) != 1 {
		return nil, false
	}
	if t.session.cancelling == nil { // few sessions are ever cancelled
		t.session.cancelling = make(chan struct{}, 1)
	}
	return t.session, true
}

// cancel serves a CancelRequest: it reaches only the session that its key names, through the upstream leg's
// own TLS, and the client is told nothing either way (protocol chapter 55.2.8).
func (s *Session) cancel(ctx context.Context, head wire.StartupHeader) error {
	body := make([]byte, head.Length-8)
	if err := s.readOpening(body); err != nil {
		return err
	}
	req, bad := wire.ParseCancelRequest(body, false)
	if bad != nil {
		return s.wireRefusal(bad)
	}
	if lc := s.snap.listeners[s.lst.cfg.Name]; lc.Cancel == "tls" && lc.TLS.Mode != "off" && s.tlsState == nil {
		return refuse(csf.ReasonCancelPlaintext, "")
	}
	target, ok := s.srv.cancels.find(req.PID, req.Key)
	if !ok && s.srv.cancels.belated(req.PID, req.Key) {
		return refuse(csf.ReasonCancelEnded, "")
	}
	if !ok {
		return refuse(csf.ReasonCancelUnknown, "")
	}
	ctx, stop := context.WithTimeout(ctx, cancelTimeout)
	defer stop()
	select {
	case s.srv.cancels.slot <- struct{}{}:
		defer func() { <-s.srv.cancels.slot }()
	case <-ctx.Done():
		return refuse(csf.ReasonCancelRate, "")
	}
	// The key is still the session's when the request goes out, and the session cannot end before it
	// arrived: a backend process id that PostgreSQL gave to somebody else is never cancelled.
	select {
	case target.cancelling <- struct{}{}:
		defer func() { <-target.cancelling }()
	case <-target.end:
	case <-ctx.Done():
		return &refusal{reason: csf.ReasonCancelUpstream, detail: "others for the session are under way", err: ctx.Err()}
	}
	if target.stopped() != nil {
		return refuse(csf.ReasonCancelEnded, "")
	}
	if err := target.cancelUpstream(ctx); err != nil {
		return &refusal{reason: csf.ReasonCancelUpstream, err: err}
	}
	e := s.event(csf.CancelForwarded, "")
	e.Session, e.Identity, e.Cluster, e.Upstream = target.facts.ID, target.identityName(), target.clusterName(), target.memberName()
	s.srv.records.Record(e)
	return nil
}

// cancelUpstream sends the upstream's own key for the session to its member.
func (s *Session) cancelUpstream(ctx context.Context) error {
	var c *upstream.Cluster = s.cluster
	return c.Cancel(ctx, s.up.Member, s.upstreamPID, s.upstreamKey)
}
