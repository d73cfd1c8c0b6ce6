package store

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"

	"github.com/csfproxy/csfproxy/csf"
)

// Withheld stands for the value of a field that only the body of an event has.
const Withheld = "[withheld]"

// DecodeHeader gives what the header of a payload says, as an event that every filter of a control judges as it judges
// the whole event: fields of the body are present with the value Withheld. It reads full and withheld payloads alike,
// and nothing of their bodies.
func DecodeHeader(payload []byte) (csf.Event, error) {
	p, err := split(payload)
	if err != nil {
		return csf.Event{}, err
	}
	var h header
	if err := json.Unmarshal(p.header, &h); err != nil {
		return csf.Event{}, fmt.Errorf("%w: header: %w", errPayload, err)
	}
	bare := append(appendBytes([]byte{payloadVersion, formWithheld}, p.header), make([]byte, sha256.Size)...)
	e, err := Decode(bare)
	if err != nil {
		return csf.Event{}, err
	}
	for _, name := range h.Has {
		switch name {
		case "identity":
			e.Identity = Withheld
		case "client", "peer": // no filter asks for addresses
		default:
			if e.Facts == nil {
				e.Facts = csf.Facts{}
			}
			e.Facts[name] = Withheld
		}
	}
	return e, nil
}

// decodeStored gives the event of a stored payload. Fields that stood in an erased body are present with the value Withheld,
// as the conditions of a query take them: an erasure makes nobody's identity look missing.
func decodeStored(payload []byte) (csf.Event, error) {
	if len(payload) > 1 && payload[1] == formWithheld {
		return DecodeHeader(payload)
	}
	return Decode(payload)
}
