package wire

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
)

// relay drives a Conversation as a session does, in memory. It holds back what a scan asks to see whole.
type relay struct {
	t        testing.TB
	c        *Conversation
	refuse   func(f Frame) *Denial
	classify func(f Frame) Statement
	front    []byte // bytes of the client not yet accounted for
	back     []byte
	toServer []byte
	toClient []byte
	ended    Stop // StopTerminate or StopViolation
	deaf     bool // a violation of the backend
	why      Violation
	now      int64
	outcomes []Outcome
	passed   []byte      // toServer without substitutes
	dropped  map[int]int // where dropped frames begin in the client's stream: how many of their bytes came
	taken    int         // bytes of the client accounted for
	dropping int         // where the frame that is being dropped began
	mal      []Violation
}

func newRelay(t testing.TB, limits Limits, options Options) *relay {
	r := &relay{t: t, dropped: map[int]int{}}
	options.Observer = r
	r.c = New(limits, options)
	return r
}

func (r *relay) StatementDone(o *Outcome) { r.outcomes = append(r.outcomes, *o) }
func (r *relay) Malformed(v Violation)    { r.mal = append(r.mal, v) }

func (r *relay) end(s Step) {
	if r.ended == StopNone || !r.deaf {
		r.ended = s.Stop
	}
	if s.Violation != nil {
		r.deaf = r.deaf || s.Violation.Side == Backend
		r.why = *s.Violation
	}
}

// client takes bytes of the client.
func (r *relay) client(b []byte) {
	r.front = append(r.front, b...)
	r.now++
	for r.ended == StopNone {
		s := r.c.ScanFrontend(r.front, r.now)
		r.check(s, r.front)
		r.toServer = append(r.toServer, r.front[:s.Forward]...)
		r.passed = append(r.passed, r.front[:s.Forward]...)
		r.taken += s.Forward
		if s.Drop > 0 {
			r.dropped[r.dropping] += s.Drop
			r.taken += s.Drop
		}
		r.front = r.front[s.Forward+s.Drop:]
		switch s.Stop {
		case StopNone:
			if len(r.front) == 0 {
				return
			}
		case StopMore:
			if s.Need <= len(r.front) {
				r.t.Fatalf("asks for %d bytes and has %d", s.Need, len(r.front))
			}
			return
		case StopWait:
			return
		case StopInspect:
			if !bytes.Equal(s.Frame.Body, r.front[5:s.Frame.Size]) {
				r.t.Fatal("frame is not the one at the front")
			}
			if r.refuse != nil {
				if d := r.refuse(s.Frame); d != nil {
					r.dropping = r.taken
					r.toServer = r.c.Refuse(r.toServer, s.Frame, *d)
					continue
				}
			}
			var st Statement
			if r.classify != nil {
				st = r.classify(s.Frame)
			}
			r.c.Allow(st)
		case StopSubstitute:
			r.dropping = r.taken
			r.toServer = r.c.Substitute(r.toServer)
		default:
			r.end(s)
		}
	}
}

// server takes bytes of the backend.
func (r *relay) server(b []byte) {
	r.back = append(r.back, b...)
	r.now++
	for !r.deaf {
		s := r.c.ScanBackend(r.back, r.now)
		r.check(s, r.back)
		r.toClient = append(r.toClient, r.back[:s.Forward]...)
		r.back = r.back[s.Forward+s.Drop:]
		switch s.Stop {
		case StopNone:
			if len(r.back) == 0 {
				break
			}
			continue
		case StopMore:
		case StopReplace:
			r.toClient = r.c.AppendReplacement(r.toClient)
			continue
		default:
			r.end(s)
		}
		break
	}
	if len(r.front) > 0 && r.ended == StopNone {
		r.client(nil) // room again
	}
}

func (r *relay) check(s Step, b []byte) {
	if s.Forward < 0 || s.Drop < 0 || s.Forward+s.Drop > len(b) {
		r.t.Fatalf("step %+v of %d bytes", s, len(b))
	}
}

// types lists the messages of a stream: type and, for E and Z, SQLSTATE and status.
func types(b []byte) string {
	var out []string
	for len(b) >= 5 {
		n := 1 + int(uint32(b[1])<<24|uint32(b[2])<<16|uint32(b[3])<<8|uint32(b[4]))
		if n < 5 || n > len(b) { // a length of 2 GiB and more is negative in 32 bits
			out = append(out, string(b[0])+"…")
			return strings.Join(out, " ")
		}
		s := string(b[0])
		switch b[0] {
		case 'E':
			if f, v := ParseErrorResponse(b[5:n]); v == nil {
				s = fmt.Sprintf("E(%s %s)", f.Severity, f.SQLSTATE)
			}
		case 'Z':
			s = "Z" + string(b[5:n])
		}
		out = append(out, s)
		b = b[n:]
	}
	if len(b) > 0 {
		out = append(out, "…")
	}
	return strings.Join(out, " ")
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}

// msg builds a message of any kind from its body's parts: strings are terminated, byte slices are not.
func msg(typ byte, parts ...any) []byte {
	b, mark := begin(nil, typ)
	for _, p := range parts {
		switch p := p.(type) {
		case string:
			b = appendString(b, p)
		case []byte:
			b = append(b, p...)
		case byte:
			b = append(b, p)
		case int:
			b = append(b, byte(p>>8), byte(p))
		default:
			panic(p)
		}
	}
	return finish(b, mark)
}

func cat(bs ...[]byte) []byte { return bytes.Join(bs, nil) }

func mQuery(s string) []byte       { return msg('Q', s) }
func mParse(name, s string) []byte { return msg('P', name, s, 0) }
func mBind(portal, name string, values ...string) []byte {
	parts := []any{portal, name, 0, len(values)}
	for _, v := range values {
		parts = append(parts, 0, len(v), []byte(v))
	}
	return msg('B', append(parts, 0)...)
}
func mDescribe(kind byte, name string) []byte { return msg('D', kind, name) }
func mClose(kind byte, name string) []byte    { return msg('C', kind, name) }
func mExecute(portal string) []byte           { return msg('E', portal, 0, 0) }

var (
	mSync     = AppendSync(nil)
	mFlush    = msg('H')
	mCopyDone = msg('c')
	rParsed   = msg('1')
	rBound    = msg('2')
	rClosed   = msg('3')
	rNoData   = msg('n')
	rPaused   = msg('s')
	rEmpty    = msg('I')
	rRowDesc  = msg('T', 1, "a", 0, 0, 0, 0, 23, 4, -1, -1, 0)
	rRow      = msg('D', 1, 0, 1, []byte("7"))
	rParams   = msg('t', 0)
	rCopyIn   = msg('G', byte(0), 0)
	rCopyOut  = msg('H', byte(0), 0)
	rCopyBoth = msg('W', byte(0), 0)
	rResult   = msg('V', []byte{0xff, 0xff, 0xff, 0xff})
	rCopyDone = msg('c')
	rDataA    = msg('d', []byte("1\n"))
)

func rTag(s string) []byte      { return msg('C', s) }
func rReady(status byte) []byte { return AppendReadyForQuery(nil, status) }
func rError(code string) []byte {
	return AppendErrorResponse(nil, "ERROR", code, "message", "", "")
}
