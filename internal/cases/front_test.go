package cases

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/proxy/wire"
)

// vector is a case of bytes that a client sends. Phase is raw (a new connection), auth (after the challenge) or ready.
type vector struct {
	ID, Title, Phase, Expect string
	Sends                    []string
	Header                   json.RawMessage // of PROXY cases: hex, or a list of it
	Peer                     string          // of PROXY cases: trusted or untrusted
	After                    string          // of upstream cases: the step behind which the bytes come
}

// vectors reads a file of testdata.
func vectors(t testing.TB, file string) []vector {
	t.Helper()
	f, err := os.Open("testdata/" + file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var out []vector
	for d := json.NewDecoder(bufio.NewReader(f)); d.More(); {
		var v vector
		if err := d.Decode(&v); err != nil {
			t.Fatal(err)
		}
		out = append(out, v)
	}
	return out
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// send writes the parts with a pause between them; fin ends the stream.
func send(t *testing.T, c net.Conn, parts ...string) {
	t.Helper()
	for i, s := range parts {
		if i > 0 {
			time.Sleep(20 * time.Millisecond)
		}
		if s == "fin" {
			c.(*net.TCPConn).CloseWrite()
			continue
		}
		if _, err := c.Write(unhex(t, s)); err != nil {
			return // the ingress has closed: what it said is still to be read
		}
	}
}

// reaction reads until the connection closes, or is silent, and names what came: errors with their SQLSTATE, the rest by
// type bytes. A close behind a message is "close" too.
func reaction(c net.Conn, raw bool) string {
	var out []string
	for {
		c.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
		var head [5]byte
		if _, err := io.ReadFull(c, head[:1]); err != nil {
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				out = append(out, "close")
			} else if len(out) == 0 {
				return "nothing"
			}
			return strings.Join(out, " ")
		}
		if raw && head[0] == 'N' && (len(out) == 0 || out[len(out)-1] == "N") {
			out = append(out, "N")
			continue
		}
		if _, err := io.ReadFull(c, head[1:]); err != nil {
			return strings.Join(append(out, "cut"), " ")
		}
		body := make([]byte, min(1<<20, max(0, int(binary.BigEndian.Uint32(head[1:]))-4)))
		if _, err := io.ReadFull(c, body); err != nil {
			return strings.Join(append(out, "cut"), " ")
		}
		switch head[0] {
		case 'E':
			f, bad := wire.ParseErrorResponse(body)
			kind := "error:"
			if bad != nil {
				kind = "unreadable:"
			} else if f.Fatal() {
				kind = "fatal:"
			}
			out = append(out, kind+string(f.SQLSTATE))
		case 'R':
			out = append(out, fmt.Sprintf("R(%d)", body[3]))
		default:
			out = append(out, string(head[0]))
		}
	}
}

// front gives for each vector what must come back, and the event when there must be one.
var front = map[string]struct {
	want   string
	kind   csf.Kind
	reason csf.Reason
}{
	"FR-03": {"close", csf.ProtocolViolation, csf.ReasonFrameLength},
	"FR-06": {"close", csf.ProtocolViolation, csf.ReasonFrameLength},
	"FR-09": {"error:08P01 Z", csf.ProtocolViolation, csf.ReasonFrameBody},
	"FR-12": {"fatal:08P01 close", csf.ProtocolViolation, csf.ReasonFrameType},
	"FR-15": {"fatal:08P01 close", csf.ProtocolViolation, csf.ReasonFrameType},
	"FR-18": {"T D C Z T D C Z", "", ""},
	"FR-21": {"close", csf.ProtocolViolation, csf.ReasonForeignProtocol},
	"FR-24": {"close", csf.ProtocolViolation, csf.ReasonFrameTruncated},
	"ST-03": {"close", csf.StartupRefused, ""},
	"ST-06": {"close", csf.StartupRefused, csf.ReasonStartupTooLarge},
	"ST-09": {"close", csf.StartupRefused, csf.ReasonStartupTooLarge},
	"ST-12": {"fatal:08P01 close", csf.StartupRefused, csf.ReasonStartupMalformed},
	"ST-15": {"fatal:08P01 close", csf.StartupRefused, csf.ReasonStartupDuplicate},
	"ST-18": {"fatal:42501 close", csf.StartupRefused, csf.ReasonStartupParameter},
	"ST-21": {"fatal:22023 close", csf.StartupRefused, csf.ReasonStartupParameter},
	"ST-24": {"R(10)", "", ""},
	"ST-27": {"fatal:22023 close", csf.StartupRefused, csf.ReasonStartupParameter},
	"ST-30": {"v R(10)", "", ""},
	"ST-33": {"v R(10)", "", ""},
	"ST-36": {"R(10)", "", ""},
	"ST-39": {"R(10) fatal:08P01 close", csf.AuthFailed, csf.ReasonAuthMessage},
	"TL-03": {"N N fatal:0A000 close", csf.ProtocolViolation, ""},
	"TL-06": {"close", csf.StartupRefused, csf.ReasonStartupTooLarge},
	"AU-01": {"fatal:08P01 close", csf.AuthFailed, csf.ReasonAuthMessage},
	"AU-04": {"fatal:08P01 close", csf.AuthFailed, csf.ReasonAuthMessage},
	"AU-07": {"fatal:08P01 close", csf.AuthFailed, csf.ReasonAuthMessage},
	"AU-10": {"fatal:08P01 close", csf.AuthFailed, csf.ReasonAuthMessage},
	"AU-13": {"fatal:08P01 close", csf.AuthFailed, csf.ReasonAuthMessage},
	"AU-16": {"R(11) fatal:08P01 close", csf.AuthFailed, csf.ReasonAuthMessage},
	"AU-19": {"fatal:28P01 close", csf.AuthFailed, csf.ReasonAuthMessage},
	"AU-22": {"fatal:08P01 close", csf.AuthFailed, csf.ReasonAuthMessage},
	"SM-03": {"T D C Z", "", ""},
	"SM-06": {strings.TrimSpace(strings.Repeat("Z ", 1000)), "", ""},
	"SM-09": {"error:26000 Z", "", ""},
	"SM-12": {"V Z", "", ""}, // float8 of a harmless function: passes; functions that reach files or programs are refused
	"SM-15": {"error:08P01 Z", csf.ProtocolViolation, csf.ReasonFrameBody},
	"EX-02": {"1 error:08P01 Z", csf.ProtocolViolation, csf.ReasonFrameBody},
	"EX-05": {"1 error:22023 Z", "", ""},
	"EX-08": {"1 error:42P05 Z", "", ""},
	"EX-11": {"1 Z", "", ""},
	"EX-14": {"3 Z", "", ""},
	"CP-03": {"C Z 1 2 G C Z", "", ""},
	"CP-06": {"error:42501 Z", csf.QueryBlocked, csf.ReasonRule},
	"CA-03": {"close", csf.CancelRefused, csf.ReasonCancelUnknown},
}

// TestFrontVectors plays the vectors of testdata/front.jsonl against a running ingress in front of PostgreSQL.
func TestFrontVectors(t *testing.T) {
	in := start(t, nil)
	played := map[string]bool{}
	for _, v := range vectors(t, "front.jsonl") {
		played[v.ID] = true
		w, ok := front[v.ID]
		if !ok {
			t.Fatalf("%s has no expectation", v.ID)
		}
		t.Run(v.ID, func(t *testing.T) {
			c := in.phase(t, v.Phase)
			since := time.Now()
			send(t, c, v.Sends...)
			if got := reaction(c, v.Phase == "raw"); got != w.want {
				t.Errorf("%s: got %s, want %s; events %v", v.Title, got, w.want, in.log.kinds(since))
			}
			if w.kind != "" {
				in.waitFor(t, since, w.kind, w.reason)
			}
		})
	}
	for id := range front {
		if !played[id] {
			t.Errorf("%s has no vector", id)
		}
	}
	if c := in.ready(t); c != nil { // whatever was sent: the ingress still serves
		send(t, c, hex.EncodeToString(query("SELECT 1")))
		if got := reaction(c, false); got != "T D C Z" {
			t.Errorf("after all vectors: %s", got)
		}
	}
}

// phase brings a connection where the vector begins.
func (in *ingress) phase(t *testing.T, name string) net.Conn {
	t.Helper()
	if name == "ready" {
		return in.ready(t)
	}
	c := in.raw(t)
	if name == "auth" {
		c.Write(startup("app"))
		if typ, _, err := wire.ReadFrame(c, wire.Backend, nil, 1<<16); err != nil || typ != 'R' {
			t.Fatalf("no challenge: %c %v", typ, err)
		}
	}
	return c
}

func startup(user string) []byte {
	b, err := wire.AppendStartupMessage(nil, wire.Version30, []wire.Parameter{{Name: "user", Value: user}, {Name: "database", Value: "postgres"}})
	if err != nil {
		panic(err)
	}
	return b
}

func query(sql string) []byte {
	b, err := wire.AppendQuery(nil, sql)
	if err != nil {
		panic(err)
	}
	return b
}

// TestNothingOfATruncatedMessageRuns: neither a statement cut short (FR-24) nor one behind Terminate (SM-16) has an effect.
func TestNothingOfATruncatedMessageRuns(t *testing.T) {
	in := start(t, nil)
	c := in.ready(t)
	whole := query("INSERT INTO seen VALUES ('truncated')")
	c.Write(whole[:len(whole)-1])
	c.(*net.TCPConn).CloseWrite()
	if got := reaction(c, false); got != "close" {
		t.Error(got)
	}
	// Behind Terminate nothing runs either.
	c = in.ready(t)
	c.Write(append(wire.AppendTerminate(nil), query("INSERT INTO seen VALUES ('smuggled')")...))
	if got := reaction(c, false); got != "close" {
		t.Error(got)
	}
	c = in.ready(t)
	c.Write(query("SELECT 'rows: ' || count(*) FROM seen"))
	c.SetReadDeadline(time.Now().Add(5 * time.Second))
	b := make([]byte, 4096)
	n, _ := io.ReadAtLeast(c, b, 100)
	if !bytes.Contains(b[:n], []byte("rows: 0")) {
		t.Errorf("%q", b[:n])
	}
}

// TestFatalsClose: a FATAL is followed by the end of the connection, for each vector of package proxy that asks for one.
func TestFatalsClose(t *testing.T) {
	in := start(t, nil)
	n := 0
	for _, v := range vectors(t, "../../../proxy/testdata/pgwire_vectors.jsonl") {
		kind, code, _ := strings.Cut(v.Expect, ":")
		if (kind != "fatal" && kind != "proxy-reject") || v.ID == "ST-28" || v.ID == "ST-38" { // protocol 2's form; 28P01 behind a whole exchange
			continue
		}
		n++
		t.Run(v.ID, func(t *testing.T) {
			c := in.phase(t, v.Phase)
			send(t, c, v.Sends...)
			if got := reaction(c, v.Phase == "raw"); !strings.HasSuffix(got, "fatal:"+code+" close") {
				t.Errorf("%s: %s", v.Title, got)
			}
		})
	}
	if n < 15 {
		t.Errorf("only %d vectors", n)
	}
}
