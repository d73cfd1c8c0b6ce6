package store

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/csfproxy/csfproxy/csf"
)

// LeafHeader is what the data of one leaf says without a body.
type LeafHeader struct {
	// Log is the id of the spool directory that gave the event its number.
	Log string
	// Event holds the header's fields; of the body's text fields it says Withheld where the header names them.
	Event csf.Event
	// Has names the fields that stand in the body: "identity", "client", "peer" and facts.
	Has []string
	// Digest is the SHA-256 of salt, body and block.
	Digest [sha256.Size]byte
}

// ParseLeaf reads the data of a leaf, as Leaf gives it. It needs no database.
func ParseLeaf(leaf []byte) (LeafHeader, error) {
	payload, err := withheldPayload(leaf)
	if err != nil {
		return LeafHeader{}, err
	}
	p, err := split(payload)
	if err != nil {
		return LeafHeader{}, err
	}
	var h struct {
		Log string   `json:"log"`
		Has []string `json:"has"`
	}
	if err := json.Unmarshal(p.header, &h); err != nil {
		return LeafHeader{}, fmt.Errorf("%w: header: %w", errPayload, err)
	}
	e, err := DecodeHeader(payload)
	if err != nil {
		return LeafHeader{}, err
	}
	return LeafHeader{Log: h.Log, Event: e, Has: h.Has, Digest: [sha256.Size]byte(p.rest)}, nil
}

// Body gives what a payload's digest is made of (salt, body and block), nil for a payload whose body is withheld.
func Body(payload []byte) ([]byte, error) {
	p, err := split(payload)
	if err != nil || p.withheld {
		return nil, err
	}
	return p.rest, nil
}

// Disclose joins a leaf with its body, as Body gives it, into the payload. A body that is not the leaf's is an error.
func Disclose(leaf, body []byte) ([]byte, error) {
	payload, err := withheldPayload(leaf)
	if err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(body); string(sum[:]) != string(payload[len(payload)-sha256.Size:]) {
		return nil, fmt.Errorf("%w: the body's hash is not the one in the leaf", errPayload)
	}
	payload[1] = formFull
	payload = append(payload[:len(payload)-sha256.Size], body...)
	_, err = split(payload)
	return payload, err
}

// withheldPayload gives the payload without a body that the leaf belongs to, in memory of its own.
func withheldPayload(leaf []byte) ([]byte, error) {
	if len(leaf) < 1+4+sha256.Size {
		return nil, errPayload
	}
	return slices.Concat(leaf[:1], []byte{formWithheld}, leaf[1:]), nil
}
