package wire

import (
	"encoding/binary"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/csfproxy/csfproxy/csf"
)

type vector struct {
	ID, Title, Phase, After, Expect string
	Sends                           []string
}

func vectors(t testing.TB, file string) []vector {
	t.Helper()
	f, err := os.Open("testdata/" + file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var out []vector
	for d := json.NewDecoder(f); d.More(); {
		var v vector
		if err := d.Decode(&v); err != nil {
			t.Fatal(err)
		}
		out = append(out, v)
	}
	return out
}

// bytes of the sends; fin is the end of the client's stream.
func (v vector) bytes(t testing.TB) (sends [][]byte, fin bool) {
	for _, s := range v.Sends {
		if s == "fin" {
			fin = true
			continue
		}
		sends = append(sends, unhex(t, s))
	}
	return sends, fin
}

// TestReadyVectors sends the vectors for a session in readiness and checks what the scanner makes of them.
func TestReadyVectors(t *testing.T) {
	// PostgreSQL itself gives the error: the body is well-formed.
	decidedByPostgreSQL := []string{"EX-06"}
	n := 0
	for _, v := range vectors(t, "pgwire_vectors.pg15.jsonl") {
		if v.Phase != "ready" {
			continue
		}
		n++
		t.Run(v.ID, func(t *testing.T) {
			for _, chunk := range []int{0, 1} {
				r := newRelay(t, Limits{}, Options{})
				sends, fin := v.bytes(t)
				var all []byte
				for i, s := range sends {
					if v.ID == "CP-01" && i > 0 {
						r.server([][]byte{cat(rTag("CREATE TABLE"), rReady('I')), rCopyIn}[i-1])
					}
					all = append(all, s...)
					feed(r.client, s, chunk)
				}
				kind, code, _ := strings.Cut(v.Expect, ":")
				substituted := kind == "error" && code == "08P01" && !slices.Contains(decidedByPostgreSQL, v.ID)
				switch {
				case v.ID == "SM-16":
					if r.ended != StopTerminate || len(r.toServer) != 0 {
						t.Errorf("ended by %v, forwarded %d bytes", r.ended, len(r.toServer))
					}
				case v.ID == "CP-01":
					// Stricter than PostgreSQL, which sends ERROR and then FATAL.
					if r.ended != StopViolation || r.why.SQLSTATE() != "08P01" || len(r.toServer) != len(all)-len(sends[2]) {
						t.Errorf("ended by %v: %+v", r.ended, r.why)
					}
				case fin:
					if r.ended != StopNone || len(r.front) == 0 && !r.c.FrontendMidFrame() {
						t.Errorf("a message cut short is not seen as such: %v", r.ended)
					}
				case kind == "close-silent":
					if r.ended != StopViolation || r.why.Reaction != Silent || r.why.SQLSTATE() != "" || len(r.toServer) != 0 {
						t.Errorf("ended by %v: %+v", r.ended, r.why)
					}
				case kind == "fatal":
					if r.ended != StopViolation || r.why.Reaction != Fatal || r.why.SQLSTATE() != code || len(r.toServer) != 0 {
						t.Errorf("ended by %v: %+v", r.ended, r.why)
					}
				case substituted:
					if r.ended != StopNone || len(r.mal) != 1 || r.mal[0].SQLSTATE() != code || r.mal[0].Reaction != Recoverable {
						t.Errorf("ended by %v, malformed %+v", r.ended, r.mal)
					}
				default: // whatever happens is PostgreSQL's doing
					if r.ended != StopNone || string(r.toServer) != string(all) || len(r.mal) != 0 {
						t.Errorf("ended by %v: %+v, forwarded %d of %d bytes", r.ended, r.why, len(r.toServer), len(all))
					}
				}
			}
		})
	}
	if n < 40 {
		t.Errorf("only %d vectors", n)
	}
}

// startupVerdict does what a listener does with the first bytes of a connection.
func startupVerdict(b []byte) (kind StartupKind, s Startup, v *Violation, complete bool) {
	if len(b) < startupHeader {
		// Enough of a length word decides without the rest.
		if len(b) >= 4 {
			if n := binary.BigEndian.Uint32(b); n < startupHeader || n > MaxStartup {
				var h [8]byte
				copy(h[:], b)
				_, v := ParseStartupHeader(h, MaxStartup)
				return 0, s, v, true
			}
		}
		return 0, s, nil, false
	}
	h, v := ParseStartupHeader([8]byte(b), MaxStartup)
	if v != nil {
		return h.Kind, s, v, true
	}
	if len(b) < h.Length {
		return h.Kind, s, nil, false
	}
	switch body := b[startupHeader:h.Length]; h.Kind {
	case StartupMessage:
		s, v = ParseStartup(body)
	case StartupCancel:
		_, v = ParseCancelRequest(body, false)
	}
	return h.Kind, s, v, true
}

func TestStartupVectors(t *testing.T) {
	for _, vec := range vectors(t, "pgwire_vectors.pg15.jsonl") {
		if vec.Phase != "raw" || vec.ID[:2] == "TL" && vec.ID != "TL-08" {
			continue // encryption requests are answered before any of this
		}
		t.Run(vec.ID, func(t *testing.T) {
			sends, _ := vec.bytes(t)
			kind, s, v, complete := startupVerdict(sends[0])
			want, code, _ := strings.Cut(vec.Expect, ":")
			switch {
			case vec.ID == "CA-01" || vec.ID == "CA-05":
				// Well-formed; the key is nobody's, and nothing after the request is parsed.
				if v != nil || kind != StartupCancel {
					t.Errorf("kind %d, violation %+v", kind, v)
				}
			case want == "close-silent":
				if !complete || v == nil || v.Reaction != Silent || v.SQLSTATE() != "" {
					t.Errorf("kind %d, violation %+v", kind, v)
				}
			case (want == "fatal" || want == "proxy-reject") && code != "28P01":
				if v == nil || v.Reaction != Fatal || v.SQLSTATE() != code {
					t.Errorf("violation %+v, want %s", v, code)
				}
			default: // decided later, by policy or authentication
				if !complete || v != nil || kind != StartupMessage || s.User == "" {
					t.Errorf("kind %d, complete %v, violation %+v", kind, complete, v)
				}
			}
		})
	}
}

// TestUpstreamVectors sends what a hostile or broken backend sends to a session in readiness.
func TestUpstreamVectors(t *testing.T) {
	wants := map[string]csf.Reason{"UP-20": csf.ReasonFrameLength, "UP-26": csf.ReasonFrameState,
		"UP-27": csf.ReasonFrameBody, "UP-28": csf.ReasonFrameState, "UP-29": csf.ReasonFrameState, "UP-30": "",
		"UP-31": "", "UP-33": "", "UP-34": "", "UP-21": ""}
	n := 0
	for _, vec := range vectors(t, "upstream_vectors.jsonl") {
		var client []byte
		switch vec.After {
		case "Ready", "Idle":
		case "Query":
			client = mQuery("select 1")
		case "Commit":
			client = mQuery("commit")
		default:
			continue
		}
		n++
		t.Run(vec.ID, func(t *testing.T) {
			want, ok := wants[vec.ID]
			if !ok {
				t.Fatal("no verdict for this vector")
			}
			sends, fin := vec.bytes(t)
			if !fin && len(sends) > 1 {
				// Alternatives: each send alone must be refused.
				for _, s := range sends {
					upstream(t, client, [][]byte{s}, want)
				}
				return
			}
			r := upstream(t, client, sends, want)
			switch vec.ID {
			case "UP-31":
				if !r.c.CommitOutstanding() || !r.c.Abandon(9, "08006") || outcomes(r.outcomes) != "Q lost failed 08007 rows=0 n=0" {
					t.Errorf("outcomes %q", outcomes(r.outcomes))
				}
			case "UP-30":
				if !r.c.BackendMidFrame() {
					t.Error("the row cut short is not seen as such")
				}
			}
		})
	}
	if n < 5 {
		t.Errorf("only %d vectors", n)
	}
}

func upstream(t *testing.T, client []byte, sends [][]byte, want csf.Reason) *relay {
	t.Helper()
	r := newRelay(t, Limits{}, Options{})
	r.classify = func(f Frame) Statement {
		return Statement{NoCopy: true, Commit: string(f.Text()) == "commit"}
	}
	r.client(client)
	for _, s := range sends {
		r.server(s)
	}
	if want == "" && r.ended != StopNone || want != "" && (r.ended != StopViolation || r.why.Reason != want || r.why.Side != Backend) {
		t.Errorf("ended by %v: %+v, want %q", r.ended, r.why, want)
	}
	return r
}

// TestLoginVectors gives the small parsers what a hostile upstream sends during login.
func TestLoginVectors(t *testing.T) {
	accept := []string{"UP-05", "UP-06", "UP-07", "UP-08", "UP-16", "UP-17", "UP-32", "UP-25"} // well-formed: refused by the caller's policy
	for _, vec := range vectors(t, "upstream_vectors.jsonl") {
		if !slices.Contains([]string{"Startup", "AuthOk", "SASLFinal"}, vec.After) || strings.Contains(vec.Sends[0], "sasl") {
			continue
		}
		t.Run(vec.ID, func(t *testing.T) {
			sends, _ := vec.bytes(t)
			for i, s := range sends {
				typ, body := s[0], s[5:1+binary.BigEndian.Uint32(s[1:])]
				var v *Violation
				switch typ {
				case 'R':
					_, v = ParseAuthentication(body)
				case 'E', 'N':
					_, v = ParseErrorResponse(body)
				case 'v':
					_, _, v = ParseNegotiateProtocolVersion(body, Version30, nil)
				case 'K':
					_, _, v = ParseBackendKeyData(body, Version30)
				}
				if typ == 'N' {
					continue // a notice carries no SQLSTATE here; its flood is the caller's to bound
				}
				if ok := slices.Contains(accept, vec.ID); ok != (v == nil) {
					t.Errorf("send %d: %v", i, v)
				}
			}
		})
	}
}
