package store

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/store/translog"
)

// The payload of an event is what the spool writes, the event store keeps and a hash is made of. Integers are
// little-endian, JSON is without blanks and in a fixed order:
//
//	version  1 byte   payloadVersion
//	form     1 byte   formFull or formWithheld
//	u32, header       JSON without personal data: numbers, names of things, numeric and selected facts, and under
//	                  "has" the names of the fields that stand in the body
//	formFull:         salt 16 bytes ‖ u32, body (JSON: identity, addresses, the other facts) ‖ u32, block
//	formWithheld:     SHA-256 of what stands there in formFull, 32 bytes
//
// The leaf of a Merkle tree over events is version ‖ u32, header ‖ that SHA-256: the same for both forms. A body
// can be erased, and the proof for the event still holds; the salt keeps anyone from guessing it.
const (
	payloadVersion = 1
	formFull       = 0
	formWithheld   = 1
	saltSize       = 16
	payloadPrefix  = 2 + 4 // up to the header
)

// maxPayload bounds one event, 1 MiB; larger facts are replaced by a note of their size.
const maxPayload = 1 << 20

// maxRecordPayload is the longest payload that a spool file can hold: maxPayload, the number and the lengths.
const maxRecordPayload = maxPayload + 64

// maxField bounds the common fields of an event, in bytes; names and addresses are far shorter.
const maxField = 4096

// headerFacts names the facts that stand in the header as they are: names of things, methods and results. Numbers and
// booleans do so under any name. Everything else can name a person and stands in the body.
var headerFacts = map[string]bool{
	"listener": true, "version": true, "cipher": true, "mode": true, "tls": true, "tls_version": true, "upstream_tls": true,
	"alpn": true, "direct": true, "command": true, "method": true, "floor": true, "below_floor": true, "risk": true, "protocol": true,
	"side": true, "type": true, "kind": true, "kinds": true, "class": true, "fingerprint": true, "rule": true, "rule_version": true,
	"severity": true, "finding": true, "scope": true, "containment": true, "test": true, "control": true, "result": true, "sandbox": true,
	"drill": true, "runbook": true, "run": true, "step": true, "trigger": true, "dry_run": true, "format": true, "mapping_version": true,
	"sha256": true, "revision": true, "go": true, "modules_sha256": true, "modified": true, "sink": true, "state": true, "gap_node": true,
	"root": true, "key_id": true, "from": true, "to": true, "expires": true, "change": true, "tls_mode": true,
	"what": true, "action": true, "role": true, "completed": true, "in_force": true, "exception": true, "waiver": true, "match": true, "approved": true, "witness": true, "hold": true,
	"report": true,
}

// HeaderFact says whether a fact of this name stands in the header whatever its value is, so that a filter may compare
// it where bodies are withheld. Of other facts the header says only that they are there.
func HeaderFact(name string) bool { return headerFacts[name] }

// header is what stands in the header.
type header struct {
	Seq      uint64          `json:"seq"`
	Log      string          `json:"log"`
	Node     string          `json:"node"`
	Time     time.Time       `json:"time"`
	Kind     csf.Kind        `json:"kind"`
	Reason   csf.Reason      `json:"reason"`
	Session  string          `json:"session"`
	Source   string          `json:"source"`
	Cluster  string          `json:"cluster"`
	Upstream string          `json:"upstream"`
	SelfTest bool            `json:"selftest"`
	Facts    json.RawMessage `json:"facts"`
	Has      []string        `json:"has"`
}

// encoded is an event ready to get its number: the payload is version ‖ form ‖ u32 ‖ `{"seq":N` ‖ head ‖ rest.
type encoded struct {
	head, rest []byte
}

// encode renders everything but the number, which is given out under the spool's lock.
func encode(e csf.Event, node, log string, salt [saltSize]byte) encoded {
	enc := encodeFacts(e, node, log, salt)
	if len(enc.head)+len(enc.rest) > maxPayload {
		e.Facts = csf.Facts{"facts_error": fmt.Sprintf("left out: the event takes %d bytes, the limit is %d", len(enc.head)+len(enc.rest), maxPayload)}
		if len(e.Block) > maxPayload/2 {
			e.Block = nil
		}
		enc = encodeFacts(e, node, log, salt)
	}
	return enc
}

func encodeFacts(e csf.Event, node, log string, salt [saltSize]byte) encoded {
	var few [24]string
	names := few[:0]
	for name := range e.Facts {
		names = append(names, name)
	}
	slices.Sort(names)

	h := make([]byte, 0, 512)
	h = appendField(h, "log", log)
	h = appendField(h, "node", node)
	h = append(e.Time.UTC().AppendFormat(append(h, `,"time":"`...), time.RFC3339Nano), '"')
	h = appendField(h, "kind", string(e.Kind))
	h = appendField(h, "reason", string(e.Reason))
	h = appendField(h, "session", e.Session)
	h = appendField(h, "source", e.Source)
	h = appendField(h, "cluster", e.Cluster)
	h = appendField(h, "upstream", e.Upstream)
	if e.SelfTest {
		h = append(h, `,"selftest":true`...)
	}
	h = appendFacts(h, e.Facts, names, true)

	// The body is written where it stays: salt ‖ u32, body ‖ u32, block.
	rest := append(make([]byte, 0, 512+len(e.Block)), salt[:]...)
	rest = append(rest, 0, 0, 0, 0)
	start := len(rest)
	rest = append(rest, `{"v":1`...)
	if e.Identity != "" {
		rest = appendField(rest, "identity", e.Identity)
	}
	if e.Client.IsValid() {
		rest = append(e.Client.AppendTo(append(rest, `,"client":"`...)), '"')
	}
	if e.Peer.IsValid() {
		rest = append(e.Peer.AppendTo(append(rest, `,"peer":"`...)), '"')
	}
	rest = append(appendFacts(rest, e.Facts, names, false), '}')
	binary.LittleEndian.PutUint32(rest[start-4:], uint32(len(rest)-start))
	rest = appendBytes(rest, e.Block)

	any := false
	has := func(name string) {
		if any {
			h = append(h, ',')
		} else {
			h = append(h, `,"has":[`...)
		}
		h, any = appendString(h, name), true
	}
	for _, name := range names {
		if v := e.Facts[name]; !isOpen(name, v) && v != "" { // an empty text and an absent fact are the same
			has(name)
		}
	}
	if e.Identity != "" {
		has("identity")
	}
	if e.Client.IsValid() {
		has("client")
	}
	if e.Peer.IsValid() {
		has("peer")
	}
	if any {
		h = append(h, ']')
	}
	return encoded{head: append(h, '}'), rest: rest}
}

// isOpen says whether a fact stands in the header.
func isOpen(name string, value any) bool { return headerFacts[name] || isNumber(value) }

// appendFacts appends ,"facts":{…} with the open facts or the closed ones, in the order of their names; nothing when
// there are none. The bytes are those of factsJSON, without its cost for the types that facts mostly have.
func appendFacts(dst []byte, facts csf.Facts, names []string, open bool) []byte {
	start := len(dst)
	separator := `,"facts":{`
	for _, name := range names {
		value := facts[name]
		if isOpen(name, value) != open {
			continue
		}
		dst = append(dst, separator...)
		separator = ","
		dst = append(appendMarshalled(dst, name), ':')
		switch v := value.(type) {
		case string:
			dst = appendMarshalled(dst, v)
		case bool:
			dst = strconv.AppendBool(dst, v)
		case int:
			dst = strconv.AppendInt(dst, int64(v), 10)
		case int64:
			dst = strconv.AppendInt(dst, v, 10)
		case uint64:
			dst = strconv.AppendUint(dst, v, 10)
		default:
			raw, err := json.Marshal(value)
			if err != nil { // what JSON cannot hold: the facts as a whole say so
				part := csf.Facts{}
				for _, n := range names {
					if isOpen(n, facts[n]) == open {
						part[n] = facts[n]
					}
				}
				return append(append(dst[:start], `,"facts":`...), factsJSON(part)...)
			}
			dst = append(dst, withoutNUL(raw)...)
		}
	}
	if len(dst) == start {
		return dst
	}
	return append(dst, '}')
}

// appendMarshalled appends a string as json.Marshal writes it.
func appendMarshalled(dst []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c >= 0x7f || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			raw, err := json.Marshal(s)
			if err != nil { // a string never fails
				return append(dst, `""`...)
			}
			return append(dst, withoutNUL(raw)...)
		}
	}
	return append(append(append(dst, '"'), s...), '"')
}

// appendTo appends the payload with its number.
func (p encoded) appendTo(dst []byte, seq uint64) []byte {
	dst = append(dst, payloadVersion, formFull, 0, 0, 0, 0)
	start := len(dst)
	dst = append(dst, seqField...)
	dst = strconv.AppendUint(dst, seq, 10)
	dst = append(dst, p.head...)
	binary.LittleEndian.PutUint32(dst[start-4:], uint32(len(dst)-start))
	return append(dst, p.rest...)
}

const seqField = `{"seq":`

func appendBytes(dst, b []byte) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(b)))
	return append(dst, b...)
}

// appendField appends ,"name":"value" unless the value is empty.
func appendField(dst []byte, name, value string) []byte {
	if value == "" {
		return dst
	}
	dst = append(append(append(dst, `,"`...), name...), `":`...)
	return appendString(dst, value[:min(len(value), maxField)])
}

// appendString writes a JSON string by rules that do not change with a library's version: only what must be escaped
// is, and what PostgreSQL cannot hold (NUL, bytes that are not UTF-8) becomes U+FFFD.
func appendString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	for _, r := range s { // invalid bytes come as U+FFFD
		switch {
		case r == '"' || r == '\\':
			dst = append(dst, '\\', byte(r))
		case r == 0:
			dst = utf8.AppendRune(dst, utf8.RuneError)
		case r < 0x20:
			dst = fmt.Appendf(dst, `\u%04x`, r)
		default:
			dst = utf8.AppendRune(dst, r)
		}
	}
	return append(dst, '"')
}

// factsJSON renders facts so that jsonb takes them: it refuses \u0000.
func factsJSON(f csf.Facts) []byte { return withoutNUL(f.JSON()) }

func withoutNUL(raw []byte) []byte {
	if !bytes.Contains(raw, []byte(`\u0000`)) {
		return raw
	}
	out := make([]byte, 0, len(raw))
	for i := 0; i < len(raw); i++ {
		switch {
		case raw[i] != '\\':
			out = append(out, raw[i])
		case bytes.HasPrefix(raw[i:], []byte(`\u0000`)):
			out = append(out, `\ufffd`...)
			i += 5
		default: // an escape of two bytes, or the first two of \uXXXX
			out = append(out, raw[i], raw[i+1])
			i++
		}
	}
	return out
}

func isNumber(v any) bool {
	switch v.(type) {
	case bool, int, int8, int16, int32, int64, uint, uint8, uint16, uint32, uint64, float32, float64, json.Number:
		return true
	}
	return false
}

// parts are the pieces of a payload, views into it.
type parts struct {
	withheld bool
	header   []byte
	rest     []byte // after the header: what the digest is made of, or the digest
	body     []byte
	block    []byte
}

var errPayload = errors.New("malformed payload")

func split(p []byte) (parts, error) {
	if len(p) < payloadPrefix || p[0] != payloadVersion || p[1] > formWithheld {
		return parts{}, errPayload
	}
	var out parts
	var ok bool
	if out.header, out.rest, ok = cutBytes(p[2:]); !ok {
		return parts{}, errPayload
	}
	if p[1] == formWithheld {
		out.withheld = true
		if len(out.rest) != sha256.Size {
			return parts{}, errPayload
		}
		return out, nil
	}
	if len(out.rest) < saltSize {
		return parts{}, errPayload
	}
	var rest []byte
	if out.body, rest, ok = cutBytes(out.rest[saltSize:]); !ok {
		return parts{}, errPayload
	}
	if out.block, rest, ok = cutBytes(rest); !ok || len(rest) != 0 {
		return parts{}, errPayload
	}
	return out, nil
}

func cutBytes(p []byte) (b, rest []byte, ok bool) {
	if len(p) < 4 {
		return nil, nil, false
	}
	n := binary.LittleEndian.Uint32(p)
	if uint64(n) > uint64(len(p)-4) {
		return nil, nil, false
	}
	return p[4 : 4+n], p[4+n:], true
}

// digest is the salted hash that stands for the body.
func (p parts) digest() []byte {
	if p.withheld {
		return p.rest
	}
	sum := sha256.Sum256(p.rest)
	return sum[:]
}

// LeafData gives the bytes that a Merkle tree over events takes for a payload: the header and the salted hash of the body
// (translog.AppendLeafData). They are the same before and after Withhold.
func LeafData(payload []byte) ([]byte, error) {
	p, err := split(payload)
	if err != nil {
		return nil, err
	}
	return translog.AppendLeafData(nil, p.header, [sha256.Size]byte(p.digest())), nil
}

// Withhold gives the payload without its body and block: the header remains, and the leaf stays the same.
func Withhold(payload []byte) ([]byte, error) {
	p, err := split(payload)
	if err != nil {
		return nil, err
	}
	return append(appendBytes([]byte{payloadVersion, formWithheld}, p.header), p.digest()...), nil
}

// row is an event with its facts still in JSON.
type row struct {
	csf.Event
	log   string
	facts []byte // one JSON object: the header's and the body's facts
}

func decodeRow(payload []byte) (row, error) {
	c, err := columnsOf(payload)
	if err != nil {
		return row{}, err
	}
	r := row{log: string(c.log), facts: joinObjects(c.openFacts, c.closedFacts), Event: csf.Event{Seq: c.seq, Node: string(c.node), Time: c.time(),
		Kind: csf.Kind(c.kind), Reason: csf.Reason(c.reason), Session: string(c.session), Identity: string(c.identity), Source: string(c.source),
		Client: c.client, Peer: c.peer, Cluster: string(c.cluster), Upstream: string(c.upstream), SelfTest: c.selftest}}
	if len(c.block) > 0 {
		r.Block = c.block
	}
	return r, nil
}

// Decode gives the event of a payload. Integers among the facts are int64, other numbers float64. Of a payload whose
// body is withheld it gives what the header says. Block shares the payload's bytes.
func Decode(payload []byte) (csf.Event, error) {
	r, err := decodeRow(payload)
	if err != nil {
		return csf.Event{}, err
	}
	if len(r.facts) > 2 {
		var plain bool
		if r.Facts, plain = plainFacts(r.facts); !plain {
			d := json.NewDecoder(bytes.NewReader(r.facts))
			d.UseNumber()
			var f map[string]any
			if err := d.Decode(&f); err != nil {
				return csf.Event{}, fmt.Errorf("%w: facts: %w", errPayload, err)
			}
			r.Facts = csf.Facts(plainNumbers(f).(map[string]any))
		}
	}
	return r.Event, nil
}

// plainFacts decodes facts whose names and texts are plain ASCII and whose other values are integers, booleans or null,
// which nearly all are, at a fraction of the cost; ok is false for all others.
func plainFacts(object []byte) (facts csf.Facts, ok bool) {
	facts = csf.Facts{}
	m := membersOf(object)
	for {
		key, value, more := m.next()
		if !more {
			return facts, m.ok
		}
		if !plainASCII(key) || len(value) == 0 {
			return nil, false
		}
		switch text := string(value); {
		case value[0] == '"':
			if value = value[1 : len(value)-1]; !plainASCII(value) {
				return nil, false
			}
			facts[string(key)] = string(value)
		case text == "true", text == "false":
			facts[string(key)] = text == "true"
		case text == "null":
			facts[string(key)] = nil
		default:
			n, err := strconv.ParseInt(text, 10, 64)
			if err != nil || strconv.FormatInt(n, 10) != text {
				return nil, false
			}
			facts[string(key)] = n
		}
	}
}

// plainASCII says whether a JSON string's inside stands for itself.
func plainASCII(b []byte) bool {
	for _, c := range b {
		if c < ' ' || c >= utf8.RuneSelf || c == '\\' || c == '"' {
			return false
		}
	}
	return true
}

// plainNumbers replaces json.Number, which csf.Facts does not know.
func plainNumbers(v any) any {
	switch v := v.(type) {
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return n
		}
		f, err := v.Float64()
		if err != nil {
			return v.String()
		}
		return f
	case map[string]any:
		for k, e := range v {
			v[k] = plainNumbers(e)
		}
	case []any:
		for i, e := range v {
			v[i] = plainNumbers(e)
		}
	}
	return v
}

// joinObjects joins two JSON objects that share no key.
func joinObjects(a, b []byte) []byte {
	switch {
	case len(a) <= 2 && len(b) <= 2:
		return []byte("{}")
	case len(a) <= 2:
		return b
	case len(b) <= 2:
		return a
	}
	return slices.Concat(a[:len(a)-1], []byte(","), b[1:])
}

// payloadSeq reads the number at the start of the header without decoding the rest; 0 when there is none.
func payloadSeq(p []byte) uint64 {
	if len(p) < payloadPrefix+len(seqField) || p[0] != payloadVersion || string(p[payloadPrefix:payloadPrefix+len(seqField)]) != seqField {
		return 0
	}
	digits := string(p[payloadPrefix+len(seqField) : min(len(p), payloadPrefix+len(seqField)+20)])
	if i := strings.IndexFunc(digits, func(r rune) bool { return r < '0' || r > '9' }); i >= 0 {
		digits = digits[:i]
	}
	n, err := strconv.ParseUint(digits, 10, 64)
	if err != nil {
		return 0
	}
	return n
}
