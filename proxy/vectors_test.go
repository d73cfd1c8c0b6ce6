package proxy_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/internal/config"
	"github.com/csfproxy/csfproxy/proxy/wire"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// vector is one case of testdata/pgwire_vectors.jsonl: bytes that a hostile or broken client sends in a
// phase of its life, and what PostgreSQL 15 did with them.
type vector struct {
	ID, Title, Phase, Expect string
	Sends                    []string
	PG                       struct {
		Reply  []string
		Closed string
	} `json:"pg_observed"`
}

// differs lists the vectors on which the ingress is meant to differ from what the file expects: its reaction, and why.
var differs = map[string][2]string{
	"ST-05": {"R(10)", "the longest startup packet that is accepted gets its challenge"},
	"ST-18": {"fatal:42501", "USER is a setting that the allow list does not name"},
	"ST-19": {"fatal:42501", "role inside options is on no allow list"},
	"ST-22": {"fatal:42501", "the option is on no allow list"},
	"ST-23": {"fatal:42501", "search_path is on no allow list"},
	"ST-24": {"R(10)", "client_encoding may be set; the inspector knows it"},
	"ST-25": {"fatal:42501", "standard_conforming_strings is on no allow list"},
	"ST-26": {"R(10)", "replication needs an identity that permits it; who has not proved the password is not told"},
	"ST-38": {"R(10)", "an unregistered user meets a mock exchange and then 28P01"},
	"SM-12": {"V Z", "a FunctionCall passes unless a rule or the inspector refuses it"},
	"CP-01": {"C Z G fatal:08P01 or C Z G error:08P01 fatal:08P01", "a Query inside COPY IN ends the session at once; one that came before the CopyInResponse is PostgreSQL's to refuse, which takes two messages"},
	"CP-06": {"C Z", "COPY TO PROGRAM passes unless the inspector refuses it; the built-in rules do"},
	"ST-28": {"cut", "the error of protocol 2 has no length: see TestOldProtocolIsRefusedInItsOwnForm"},
	"TL-02": {"N fatal:0A000", ""}, "TL-03": {"N N fatal:0A000", ""}, "TL-05": {"close", ""},
}

// TestVectors sends each vector to the ingress in front of real PostgreSQL and compares the reaction with the file's.
func TestVectors(t *testing.T) {
	in := start(t, func(c *config.Config) {
		// The vectors of startup packets name vuser; it exists in the register, not in the database.
		c.Identities = append(c.Identities, identity("vectors", "vuser"))
		c.Identities[1].Match.Databases = []string{"*"}
		c.Listeners[0].TLS.Mode = "off"
		c.Listeners[0].Limits.StartupTimeout = config.Duration(2 * time.Second)
	})
	f, err := os.Open("testdata/pgwire_vectors.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	n := 0
	for lines.Scan() {
		var v vector
		if err := json.Unmarshal(lines.Bytes(), &v); err != nil {
			t.Fatal(err)
		}
		n++
		t.Run(v.ID, func(t *testing.T) {
			in.t = t
			got := in.play(v)
			if d, ok := differs[v.ID]; ok {
				if !slices.Contains(strings.Split(d[0], " or "), got) {
					t.Errorf("%s (%s): want %s (%s), got %s", v.ID, v.Title, d[0], d[1], got)
				}
			} else if !reacts(v, got) {
				t.Errorf("%s (%s): want %s, got %s; PostgreSQL: %v %s", v.ID, v.Title, v.Expect, got, v.PG.Reply, v.PG.Closed)
			}
		})
	}
	if n < 80 {
		t.Fatalf("only %d vectors", n)
	}
	// Whatever was sent: the ingress still serves, and so does the database.
	var one int
	if err := in.connect("app", "disable").QueryRow(context.Background(), "SELECT 1").Scan(&one); err != nil || one != 1 {
		t.Errorf("after all vectors: %v", err)
	}
}

// reacts compares what was seen with the file's word for it.
func reacts(v vector, got string) bool {
	tokens := strings.Fields(got)
	has := func(t string) bool { return slices.Contains(tokens, t) }
	failed := strings.Contains(got, "fatal") || strings.Contains(got, "error")
	name, code, _ := strings.Cut(v.Expect, ":")
	switch name {
	case "close-silent", "timeout-close", "proxy-bound":
		return got == "close" || name == "proxy-bound" && strings.HasPrefix(got, "fatal")
	case "close-or-fatal":
		return got == "close" || strings.HasPrefix(got, "fatal:"+code)
	case "fatal", "proxy-reject":
		return tokens[len(tokens)-1] == "fatal:"+code
	case "error":
		state, then, _ := strings.Cut(code, "-")
		return has("error:"+state) && !strings.Contains(got, "fatal") && (then == "" || tokens[len(tokens)-1] == "Z")
	case "error-once":
		return strings.Count(got, "error:") == 1 && has("error:"+code) && strings.Count(got, "Z") == 1
	case "pass", "ignored-then-pass", "pass-1-Z":
		return !failed && tokens[len(tokens)-1] == "Z"
	case "continue", "log-escape":
		return strings.HasPrefix(got, "R(1")
	case "nego", "pass-or-nego", "nego-or-close":
		return strings.HasPrefix(got, "v R(10)") || name != "nego" && (got == "R(10)" || got == "close")
	case "byte":
		return got != "" && strings.Contains(code, got)
	}
	return false
}

// play brings a connection into the vector's phase, sends its bytes and names the reaction.
func (in *ingress) play(v vector) string {
	in.t.Helper()
	var conn net.Conn
	if v.Phase == "ready" {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		c, err := pgconn.Connect(ctx, in.url("app", "disable"))
		if err != nil {
			in.t.Fatal(err)
		}
		h, err := c.Hijack()
		if err != nil {
			in.t.Fatal(err)
		}
		conn = h.Conn
	} else {
		var err error
		if conn, err = net.Dial("tcp", in.addr); err != nil {
			in.t.Fatal(err)
		}
		if v.Phase == "auth" {
			startup, _ := wire.AppendStartupMessage(nil, wire.Version30, []wire.Parameter{{Name: "user", Value: "app"}, {Name: "database", Value: "app"}})
			conn.Write(startup)
			if typ, _, err := wire.ReadFrame(conn, wire.Backend, nil, 1<<16); err != nil || typ != 'R' {
				in.t.Fatalf("no challenge: %c %v", typ, err)
			}
		}
	}
	defer conn.Close()
	for i, s := range v.Sends {
		if i > 0 {
			time.Sleep(20 * time.Millisecond)
		}
		if s == "fin" {
			conn.(*net.TCPConn).CloseWrite()
			continue
		}
		b, err := hex.DecodeString(s)
		if err != nil {
			in.t.Fatal(err)
		}
		if _, err := conn.Write(b); err != nil {
			break
		}
	}
	patience := 300 * time.Millisecond
	if v.Expect == "timeout-close" {
		patience = 5 * time.Second
	}
	return reaction(conn, v.Phase == "raw", patience)
}

// reaction reads until the connection closes or is silent, and names what came: error and fatal with their SQLSTATE,
// other messages by their type bytes.
func reaction(conn net.Conn, first bool, patience time.Duration) string {
	var out []string
	for {
		conn.SetReadDeadline(time.Now().Add(patience))
		var head [1]byte
		if _, err := io.ReadFull(conn, head[:]); err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				if len(out) == 0 {
					return "nothing"
				}
				return strings.Join(out, " ")
			}
			if len(out) == 0 {
				return "close"
			}
			return strings.Join(out, " ")
		}
		if first && (head[0] == 'N' || head[0] == 'S') && (len(out) == 0 || out[len(out)-1] == "N") {
			out = append(out, string(head[0]))
			continue
		}
		var rest [4]byte
		if _, err := io.ReadFull(conn, rest[:]); err != nil {
			return strings.Join(append(out, "cut"), " ")
		}
		body := make([]byte, min(1<<20, max(0, int(binary.BigEndian.Uint32(rest[:]))-4)))
		if _, err := io.ReadFull(conn, body); err != nil {
			return strings.Join(append(out, "cut"), " ")
		}
		switch head[0] {
		case 'E':
			f, bad := wire.ParseErrorResponse(body)
			if bad != nil {
				out = append(out, "E?")
				continue
			}
			kind := "error:"
			if f.Fatal() {
				kind = "fatal:"
			}
			out = append(out, kind+string(f.SQLSTATE))
		case 'R':
			out = append(out, fmt.Sprintf("R(%d)", body[3]))
		default:
			if len(out) < 40 {
				out = append(out, string(head[0]))
			}
		}
	}
}

func TestEncryptionRequests(t *testing.T) {
	in := start(t, func(c *config.Config) { c.Listeners[0].TLS.Mode = "require" })
	dial := func() net.Conn {
		c, err := net.Dial("tcp", in.addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		c.SetDeadline(time.Now().Add(5 * time.Second))
		return c
	}
	conf := func(protos ...string) *tls.Config {
		return &tls.Config{RootCAs: certs.Pool(), ServerName: "localhost", NextProtos: protos}
	}
	startup, _ := wire.AppendStartupMessage(nil, wire.Version30, []wire.Parameter{{Name: "user", Value: "app"}, {Name: "database", Value: "app"}})
	t.Run("direct with postgresql", func(t *testing.T) {
		c := tls.Client(dial(), conf("http/1.1", "postgresql"))
		c.Write(startup)
		if typ, _, err := wire.ReadFrame(c, wire.Backend, nil, 1<<16); err != nil || typ != 'R' {
			t.Fatalf("%c %v", typ, err)
		}
	})
	for _, protos := range [][]string{nil, {"http/1.1"}, {"h2", "imap"}} {
		t.Run(fmt.Sprintf("direct with %v", protos), func(t *testing.T) {
			if err := tls.Client(dial(), conf(protos...)).Handshake(); err == nil {
				t.Fatal("handshake succeeded")
			}
			in.t = t
			in.waitFor(csf.TLSRefused, csf.ReasonTLSALPN)
		})
	}
	t.Run("startup stuffed behind SSLRequest", func(t *testing.T) {
		c := dial()
		c.Write(append(wire.AppendSSLRequest(nil), startup...))
		got, _ := io.ReadAll(c)
		if len(got) > 0 && got[0] != 'S' {
			t.Fatalf("got %q", got)
		}
		in.t = t
		in.waitFor(csf.ProtocolViolation, csf.ReasonTLSStuffed)
	})
	t.Run("plaintext after S", func(t *testing.T) {
		c := dial()
		c.Write(wire.AppendSSLRequest(nil))
		io.ReadFull(c, make([]byte, 1))
		c.Write(startup)
		got, _ := io.ReadAll(c)
		if strings.Contains(string(got), "SCRAM") {
			t.Fatalf("a challenge was sent: %q", got)
		}
	})
	t.Run("TLS 1.1", func(t *testing.T) {
		c := dial()
		c.Write(wire.AppendSSLRequest(nil))
		io.ReadFull(c, make([]byte, 1))
		k := conf()
		k.MinVersion, k.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
		if err := tls.Client(c, k).Handshake(); err == nil {
			t.Fatal("TLS 1.1 was accepted")
		}
	})
	t.Run("SSLRequest inside TLS", func(t *testing.T) {
		c := tls.Client(dial(), conf("postgresql"))
		c.Write(wire.AppendSSLRequest(nil))
		if got := reaction(c, false, time.Second); got != "fatal:0A000" {
			t.Fatal(got)
		}
	})
	t.Run("GSSENCRequest then SSLRequest", func(t *testing.T) {
		c := dial()
		c.Write([]byte{0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x30})
		b := make([]byte, 1)
		if io.ReadFull(c, b); b[0] != 'N' {
			t.Fatalf("%q", b)
		}
		c.Write(wire.AppendSSLRequest(nil))
		if io.ReadFull(c, b); b[0] != 'S' {
			t.Fatalf("%q", b)
		}
	})
}

func TestProtocolVersions(t *testing.T) {
	in := start(t, nil)
	for _, tt := range []struct {
		version string
		key     int
	}{{"3.0", 4}, {"3.2", 32}} {
		cfg, err := pgconn.ParseConfig(in.url("app", "disable") + "&max_protocol_version=" + tt.version)
		if err != nil {
			t.Fatal(err)
		}
		c, err := pgconn.ConnectConfig(context.Background(), cfg)
		if err != nil {
			t.Fatal(tt.version, err)
		}
		if got := len(c.SecretKey()); got != tt.key {
			t.Errorf("protocol %s: a cancel key of %d bytes, want %d", tt.version, got, tt.key)
		}
		c.Close(context.Background())
	}
}

func TestCancelReachesOnlyItsSession(t *testing.T) {
	in := start(t, nil)
	ctx := context.Background()
	a, b := in.connect("app", "disable"), in.connect("app", "verify-full")
	// The keys are this node's own, not the server's.
	var pid uint32
	if err := a.QueryRow(ctx, "SELECT pg_backend_pid()").Scan(&pid); err != nil || pid == a.PgConn().PID() {
		t.Fatalf("the client sees the server's process id: %v", err)
	}
	done := make(chan error, 2)
	for _, c := range []*pgx.Conn{a, b} {
		go func() {
			_, err := c.Exec(ctx, "SELECT pg_sleep(2)")
			done <- err
		}()
	}
	time.Sleep(200 * time.Millisecond)
	wrong := wire.AppendTerminate(nil)[:0]
	wrong, _ = wire.AppendCancelRequest(wrong, a.PgConn().PID(), []byte{1, 2, 3, 4})
	c, err := net.Dial("tcp", in.addr)
	if err != nil {
		t.Fatal(err)
	}
	c.Write(wrong)
	if got := reaction(c, true, time.Second); got != "close" {
		t.Errorf("a wrong key was answered: %s", got)
	}
	in.waitFor(csf.CancelRefused, csf.ReasonCancelUnknown)
	if err := a.PgConn().CancelRequest(ctx); err != nil {
		t.Fatal(err)
	}
	var states []string
	for range 2 {
		if err := <-done; err != nil {
			states = append(states, sqlState(err))
		} else {
			states = append(states, "ok")
		}
	}
	slices.Sort(states)
	if !slices.Equal(states, []string{"57014", "ok"}) {
		t.Errorf("after one cancel: %v", states)
	}
	in.waitFor(csf.CancelForwarded, "")
}
