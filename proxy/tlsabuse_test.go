package proxy_test

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/internal/config"
	"github.com/jackc/pgx/v5/pgconn"
)

// abuser is a client's TLS connection that reads as package crypto/tls does and writes records of its own making, with the
// keys that crypto/tls agreed on: it can say what a client library never would.
type abuser struct {
	*tls.Conn // reads
	raw       net.Conn
	version   uint16
	secret    []byte // the client's traffic secret of TLS 1.3
	seal      cipher.AEAD
	iv        []byte
	sequence  uint64
}

// heard keeps what was read.
type heard struct {
	net.Conn
	all []byte
}

func (h *heard) Read(b []byte) (int, error) {
	n, err := h.Conn.Read(b)
	h.all = append(h.all, b[:n]...)
	return n, err
}

func (in *ingress) abuser(version uint16) *abuser {
	t := in.t
	t.Helper()
	raw := &heard{Conn: in.requested()}
	var keys bytes.Buffer
	k := clientTLS()
	k.MinVersion, k.MaxVersion, k.KeyLogWriter = version, version, &keys
	k.CipherSuites = []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}
	a := &abuser{Conn: tls.Client(raw, k), raw: raw.Conn, version: version}
	if err := a.Handshake(); err != nil {
		t.Fatal(err)
	}
	value := func(label string) (first, second []byte) {
		for line := range strings.Lines(keys.String()) {
			if f := strings.Fields(line); len(f) == 3 && f[0] == label {
				first, _ = hex.DecodeString(f[1])
				second, _ = hex.DecodeString(f[2])
			}
		}
		return first, second
	}
	if version == tls.VersionTLS13 {
		if suite := a.ConnectionState().CipherSuite; suite != tls.TLS_AES_128_GCM_SHA256 {
			t.Skipf("this machine prefers %s", tls.CipherSuiteName(suite))
		}
		_, secret := value("CLIENT_TRAFFIC_SECRET_0")
		a.rekey(secret)
		return a
	}
	// RFC 5246, 6.3: the key block of the two GCM suites has two keys of 16 bytes and two salts of 4. The client's Finished
	// was its first record under these keys.
	client, master := value("CLIENT_RANDOM")
	block := prf(master, "key expansion", append(bytes.Clone(raw.all[11:43]), client...), 40)
	a.use(block[:16], block[32:36])
	a.sequence = 1
	return a
}

// prf is that of RFC 5246, section 5, with SHA-256.
func prf(secret []byte, label string, seed []byte, n int) (out []byte) {
	sum := func(b []byte) []byte {
		h := hmac.New(sha256.New, secret)
		h.Write(b)
		return h.Sum(nil)
	}
	seed = append([]byte(label), seed...)
	for a := sum(seed); len(out) < n; a = sum(a) {
		out = append(out, sum(append(bytes.Clone(a), seed...))...)
	}
	return out[:n]
}

// rekey takes the next secret of TLS 1.3 (RFC 8446, 7.3).
func (a *abuser) rekey(secret []byte) {
	a.secret, a.sequence = secret, 0
	a.use(expand(secret, "key", 16), expand(secret, "iv", 12))
}

func expand(secret []byte, label string, n int) []byte {
	info := append(binary.BigEndian.AppendUint16(nil, uint16(n)), byte(6+len(label)))
	info = append(append(info, "tls13 "+label...), 0)
	out, err := hkdf.Expand(sha256.New, secret, string(info), n)
	if err != nil {
		panic(err)
	}
	return out
}

func (a *abuser) use(key, iv []byte) {
	b, err := aes.NewCipher(key)
	if err != nil {
		panic(err)
	}
	if a.seal, err = cipher.NewGCM(b); err != nil {
		panic(err)
	}
	a.iv = iv
}

// record gives an encrypted record of a content type.
func (a *abuser) record(typ byte, body []byte) []byte {
	defer func() { a.sequence++ }()
	count := binary.BigEndian.AppendUint64(nil, a.sequence)
	if a.version == tls.VersionTLS12 {
		nonce := append(bytes.Clone(a.iv), count...)
		head := append(append(bytes.Clone(count), typ, 3, 3), byte(len(body)>>8), byte(len(body)))
		return record(typ, append(count, a.seal.Seal(nil, nonce, body, head)...))
	}
	nonce := bytes.Clone(a.iv)
	for i := range count {
		nonce[4+i] ^= count[i]
	}
	inner := append(bytes.Clone(body), typ)
	head := record(23, make([]byte, len(inner)+16))[:5]
	return append(head, a.seal.Seal(nil, nonce, inner, head)...)
}

func (a *abuser) Write(b []byte) (int, error) { return len(b), a.send(a.record(23, b)) }

func (a *abuser) send(b []byte) error {
	_, err := a.raw.Write(b)
	return err
}

// login makes the abuser a session.
func (in *ingress) login(a *abuser) {
	in.t.Helper()
	cfg, err := pgconn.ParseConfig(in.url("app", "disable"))
	if err != nil {
		in.t.Fatal(err)
	}
	cfg.DialFunc = func(context.Context, string, string) (net.Conn, error) { return a, nil }
	c, err := pgconn.ConnectConfig(in.t.Context(), cfg)
	if err != nil {
		in.t.Fatal(err)
	}
	if _, err := c.Hijack(); err != nil {
		in.t.Fatal(err)
	}
}

// keyUpdate is the message of RFC 8446, 4.6.3, which asks the other side for one too.
var keyUpdate = []byte{24, 0, 0, 1, 1}

// TestKeyUpdates: a client may change its keys, and one that does nothing else is cut off, before the login and behind it,
// while the sessions of others work (TL-19).
func TestKeyUpdates(t *testing.T) {
	in := start(t, func(c *config.Config) { c.Listeners[0].TLS.Mode = "require" })
	other := in.connect("app", "verify-full")
	in.t = t
	once := func(a *abuser) {
		a.send(a.record(22, keyUpdate))
		a.rekey(expand(a.secret, "traffic upd", 32))
	}
	honest := in.abuser(tls.VersionTLS13)
	once(honest)
	in.login(honest)
	for range 3 {
		once(honest)
		honest.Write(query("SELECT 1"))
		if got := reaction(honest, false, time.Second); got != "T D C Z" {
			t.Fatalf("behind a new key: %s", got)
		}
	}
	for name, sent := range map[string]func(a *abuser) []byte{
		"many in a record": func(a *abuser) []byte { return a.record(22, bytes.Repeat(keyUpdate, 1000)) },
		"without end": func(a *abuser) (out []byte) {
			for range 5000 {
				out = append(out, a.record(22, keyUpdate)...)
				a.rekey(expand(a.secret, "traffic upd", 32))
			}
			return out
		},
	} {
		for _, inside := range []bool{false, true} {
			a := in.abuser(tls.VersionTLS13)
			if inside {
				in.login(a)
			}
			a.send(sent(a)) // it may close before all of it is there
			a.SetReadDeadline(time.Now().Add(20 * time.Second))
			if _, err := io.ReadAll(a); err != nil && strings.Contains(err.Error(), "timeout") {
				t.Errorf("%s, logged in %v: the connection stays", name, inside)
			}
			if _, err := other.Exec(t.Context(), "SELECT 1"); err != nil {
				t.Fatalf("the other session: %v", err)
			}
		}
	}
	honest.Conn.NetConn().Close()
	in.settled(1)
}

// TestRenegotiation: a new handshake inside a TLS 1.2 connection is refused, before the login and behind it (TL-18).
func TestRenegotiation(t *testing.T) {
	in := start(t, nil)
	hello := append([]byte{1, 0, 0, 41, 3, 3}, make([]byte, 32)...)
	hello = append(hello, 0, 0, 2, 0xc0, 0x2b, 1, 0, 0, 0)
	for _, inside := range []bool{false, true} {
		a := in.abuser(tls.VersionTLS12)
		if inside {
			in.login(a)
			a.Write(query("SELECT 1")) // its own records are read as those of crypto/tls
			if got := reaction(a, false, time.Second); got != "T D C Z" {
				t.Fatal(got)
			}
		}
		if err := a.send(a.record(22, hello)); err != nil {
			t.Fatal(err)
		}
		a.SetReadDeadline(time.Now().Add(20 * time.Second))
		got, err := io.ReadAll(a)
		if len(got) > 0 || err == nil || !strings.Contains(err.Error(), "remote error") {
			t.Errorf("logged in %v: %q %v", inside, got, err)
		}
	}
	in.settled(0)
}

// TestCutRecords: a stream that ends inside a message, or inside a TLS record, without TLS's own end, has run nothing of it
// (TL-26).
func TestCutRecords(t *testing.T) {
	in := start(t, nil)
	in.t = t
	keeper := in.connect("app", "disable")
	if _, err := keeper.Exec(t.Context(), "CREATE TABLE IF NOT EXISTS cut_short (what text)"); err != nil {
		t.Fatal(err)
	}
	for name, sent := range map[string]func(a *abuser) []byte{
		"a message in two records, of which one comes": func(a *abuser) []byte {
			q := query("INSERT INTO cut_short VALUES ('x')")
			return a.record(23, q[:len(q)-1])
		},
		"a record without its last byte": func(a *abuser) []byte {
			r := a.record(23, query("INSERT INTO cut_short VALUES ('x')"))
			return r[:len(r)-1]
		},
		"a whole message and a part of the next": func(a *abuser) []byte {
			return a.record(23, append(query("BEGIN; INSERT INTO cut_short VALUES ('x')"), query("COMMIT")[:9]...))
		},
	} {
		t.Run(name, func(t *testing.T) {
			in.t = t
			a := in.abuser(tls.VersionTLS13)
			in.login(a)
			a.send(sent(a))
			a.raw.Close()
			in.settled(1)
			var n int
			if err := keeper.QueryRow(t.Context(), "SELECT count(*) FROM cut_short").Scan(&n); err != nil || n != 0 {
				t.Errorf("%d rows, %v", n, err)
			}
		})
	}
	cut := 0
	for _, e := range in.log.events() {
		if (e.Kind == csf.ProtocolViolation || e.Kind == csf.SessionTerminated) && e.Reason == csf.ReasonFrameTruncated {
			cut++
		}
	}
	if cut < 2 {
		t.Errorf("%d sessions are recorded as cut inside a message: %v", cut, in.log.kinds())
	}
}
