package wire

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
)

// span is a run of bytes of one side's stream and what became of it.
type span struct {
	passed bool
	n      int
}

// duplex drives a Conversation with both streams in chunks and keeps what became of each byte.
type duplex struct {
	t               *testing.T
	c               *Conversation
	refuse          func(Frame) bool
	front, back     []byte // not yet accounted for
	client, server  []span
	ended           bool // nothing more of the client passes
	deaf            bool // nothing more of the backend passes
	substitutes     int
	replacements    int
	now             int64
	waits, needMore int
}

func (d *duplex) fromClient(b []byte) {
	d.front = append(d.front, b...)
	d.now++
	for !d.ended && len(d.front) > 0 {
		if len(d.front) < d.needMore {
			return
		}
		d.needMore = 0
		s := d.c.ScanFrontend(d.front, d.now)
		d.took(&d.client, &d.front, s)
		switch s.Stop {
		case StopNone:
			if s.Forward+s.Drop == 0 {
				d.t.Fatalf("a scan of %d bytes makes no progress", len(d.front))
			}
		case StopMore:
			if s.Need <= len(d.front) || s.Need > d.c.limits.FrontendBuffer() {
				d.t.Fatalf("asks for %d bytes and has %d", s.Need, len(d.front))
			}
			d.needMore = s.Need
		case StopWait:
			d.waits++
			return
		case StopInspect:
			if d.refuse(s.Frame) {
				d.substitutes++
				d.c.Refuse(nil, s.Frame, Denial{SQLSTATE: "42501"})
			} else {
				d.c.Allow(Statement{})
			}
		case StopSubstitute:
			d.substitutes++
			d.c.Substitute(nil)
		case StopTerminate:
			d.ended = true
		case StopViolation:
			d.ended = true
			if s.Violation == nil || s.Violation.Side != Frontend || s.Violation.Reason == "" {
				d.t.Fatalf("%+v", s.Violation)
			}
		default:
			d.t.Fatalf("the client's scan stopped with %v", s.Stop)
		}
	}
}

func (d *duplex) fromServer(b []byte) {
	d.back = append(d.back, b...)
	d.now++
	for !d.deaf && len(d.back) > 0 {
		s := d.c.ScanBackend(d.back, d.now)
		d.took(&d.server, &d.back, s)
		switch s.Stop {
		case StopNone:
			if s.Forward+s.Drop == 0 {
				d.t.Fatalf("a scan of %d bytes makes no progress", len(d.back))
			}
			continue
		case StopMore:
			if s.Need <= len(d.back) || s.Need > d.c.limits.BackendBuffer() {
				d.t.Fatalf("asks for %d bytes and has %d", s.Need, len(d.back))
			}
		case StopReplace:
			d.replacements++
			if out := d.c.AppendReplacement(nil); len(out) == 0 || out[0] != 'E' {
				d.t.Fatalf("%q replaces an ErrorResponse", out)
			}
			continue
		case StopViolation:
			d.deaf, d.ended = true, true
			if s.Violation == nil || s.Violation.Side != Backend || s.Violation.Reason == "" {
				d.t.Fatalf("%+v", s.Violation)
			}
		default:
			d.t.Fatalf("the backend's scan stopped with %v", s.Stop)
		}
		break
	}
	d.fromClient(nil) // room again
}

func (d *duplex) took(spans *[]span, b *[]byte, s Step) {
	if s.Forward < 0 || s.Drop < 0 || s.Forward+s.Drop > len(*b) {
		d.t.Fatalf("step %+v of %d bytes", s, len(*b))
	}
	*spans = append(*spans, span{true, s.Forward}, span{false, s.Drop})
	*b = (*b)[s.Forward+s.Drop:]
}

// fate marks each byte of a stream: passed, thrown away or, behind its end, held.
func fate(spans []span) (out []bool) {
	for _, s := range spans {
		for range s.n {
			out = append(out, s.passed)
		}
	}
	return out
}

// FuzzDuplex: with the answers of any backend between a client's bytes, so that every state of both automata is
// reached, each frame of the client went on whole, or as the beginning of the last one, or was thrown away whole, in
// its order; what went on whole is what an independent decoder reads and writes again byte for byte. Each frame of the
// backend went on, or was an ErrorResponse that ours replaced.
func FuzzDuplex(f *testing.F) {
	for _, flow := range benchFlows {
		f.Add(flow.client, flow.server, uint64(1))
	}
	for _, path := range reach {
		f.Add(path.client, path.server, uint64(2))
	}
	for _, v := range vectors(f, "pgwire_vectors.pg15.jsonl") {
		if v.Phase == "ready" {
			sends, _ := v.bytes(f)
			f.Add(cat(sends...), cat(rTag("SELECT 1"), rReady('I')), uint64(3))
			f.Add(cat(mQuery("copy"), cat(sends...)), cat(rCopyIn), uint64(4))
		}
	}
	for _, v := range vectors(f, "upstream_vectors.jsonl") {
		if v.After == "Ready" || v.After == "Query" || v.After == "Idle" {
			sends, _ := v.bytes(f)
			f.Add(cat(mQuery("x"), mQuery("y"), mSync), cat(sends...), uint64(0))
		}
	}
	f.Fuzz(func(t *testing.T, client, server []byte, seed uint64) {
		limits := Limits{MessageBytes: 1 << 16, StatementBytes: 300, Names: 4}
		d := &duplex{t: t, c: New(limits, Options{Replication: seed%4 == 0})}
		d.refuse = func(f Frame) bool { return (uint64(f.Size)+seed)%5 == 0 }
		rnd := rand.New(rand.NewPCG(seed, 6))
		most := 1 + rnd.IntN(64)
		for c, s := client, server; len(c)+len(s) > 0; {
			if n := min(len(c), 1+rnd.IntN(most)); n > 0 && (len(s) == 0 || rnd.IntN(2) == 0) {
				d.fromClient(c[:n])
				c = c[n:]
			} else if n := min(len(s), 1+rnd.IntN(most)); n > 0 {
				d.fromServer(s[:n])
				s = s[n:]
			}
		}
		if d.c.Outstanding() > limits.withDefaults().Requests+1 {
			t.Fatalf("%d outstanding", d.c.Outstanding())
		}
		dropped := whole(t, client, fate(d.client), func(frame []byte, passed bool) {
			if passed {
				sameAgain(t, frame)
			}
		})
		if dropped > d.substitutes {
			t.Fatalf("%d frames of the client vanished, %d were refused", dropped, d.substitutes)
		}
		if dropped = whole(t, server, fate(d.server), func(frame []byte, passed bool) {
			if !passed && frame[0] != 'E' {
				t.Fatalf("%q of the backend vanished", frame)
			}
		}); dropped > d.replacements {
			t.Fatalf("%d of the backend's errors vanished, %d were replaced", dropped, d.replacements)
		}
	})
}

// whole walks a stream frame by frame against its fate and counts the frames that were thrown away. No frame has two
// fates; only the last may have one for a part of its bytes.
func whole(t *testing.T, stream []byte, fate []bool, see func(frame []byte, passed bool)) (dropped int) {
	for at := 0; at < len(fate); {
		if len(stream)-at < headerSize {
			t.Fatalf("%q had a fate before its header was whole", stream[at:])
		}
		size := int(binary.BigEndian.Uint32(stream[at+1:])) + 1
		if size < headerSize {
			t.Fatalf("a length of %d was accepted", size-1)
		}
		end := min(at+size, len(fate))
		for i := at; i < end; i++ {
			if fate[i] != fate[at] {
				t.Fatalf("byte %d of %q has another fate than its beginning", i-at, stream[at:min(at+size, len(stream))])
			}
		}
		if !fate[at] {
			dropped++
		}
		if end == at+size {
			see(stream[at:end], fate[at])
		}
		at += size
	}
	return dropped
}

// sameAgain holds a frame that went on against pgproto3, whose decoders and encoders are nobody's here. FunctionCall is
// left out: pgproto3 decides about format codes, which are PostgreSQL's to refuse.
func sameAgain(t *testing.T, frame []byte) {
	var m pgproto3.Message
	switch frame[0] {
	case 'Q':
		m = &pgproto3.Query{}
	case 'P':
		m = &pgproto3.Parse{}
	case 'B':
		m = &pgproto3.Bind{}
	case 'D':
		m = &pgproto3.Describe{}
	case 'E':
		m = &pgproto3.Execute{}
	case 'C':
		m = &pgproto3.Close{}
	case 'S':
		m = &pgproto3.Sync{}
	case 'H':
		m = &pgproto3.Flush{}
	default:
		return
	}
	body := frame[headerSize:]
	if err := m.Decode(body); err != nil {
		t.Fatalf("%q reached the backend, and is no %s: %v", frame, strings.TrimPrefix(reflect.TypeOf(m).String(), "*pgproto3."), err)
	}
	again, err := m.Encode(nil)
	if err != nil || !bytes.Equal(again, frame) {
		t.Fatalf("%q reached the backend, and reads as %q (%v)", frame, again, err)
	}
}
