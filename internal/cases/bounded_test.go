package cases

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/bits"
	"net"
	"os"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/internal/config"
	"github.com/csfproxy/csfproxy/proxy/wire"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// scaled gives a size for every run, and the case's own with CSFPROXY_FULL=1, which takes minutes and some gigabytes of
// traffic. Figures are logged, never asserted: go test -v shows them.
func scaled(always, full int) int {
	if os.Getenv("CSFPROXY_FULL") != "" {
		return full
	}
	return always
}

// held is what this process holds for its sessions: heap and stacks after a collection. The test's own clients are in it.
func held() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}

// roomy permits as many connections as the larger tests open.
func roomy(c *config.Config) {
	l := &c.Listeners[0].Limits
	l.Connections, l.PerSource, l.StartupPending = 5000, 5000, 5000
	l.StartupTimeout = config.Duration(30 * time.Second)
}

// TestDeclaredGibibytes: connections that declare a gibibyte at each step hold no more than others (FR-30, RE-07).
func TestDeclaredGibibytes(t *testing.T) {
	in := start(t, roomy)
	n := scaled(150, 1000)
	before := held()
	for i := range n {
		c := in.raw(t)
		switch i % 3 {
		case 0:
			c.Write([]byte{0x3f, 0xff, 0xff, 0xfe, 0, 3, 0, 0})
		case 1:
			c.Write([]byte{0, 0, 0x27, 0x14, 0, 3, 0, 0, 'u'}) // the longest startup packet, and one byte of it
		case 2:
			c.Write(startup("app"))
			wire.ReadFrame(c, wire.Backend, nil, 1<<16)
			c.Write([]byte("p\x3f\xff\xff\xfe\x00"))
		}
	}
	for range 20 {
		in.ready(t).Write([]byte("B\x03\xff\xff\xfe\x00\x00")) // within the listener's limit, and it never comes
	}
	time.Sleep(300 * time.Millisecond)
	grown := held() - before
	t.Logf("%d connections: %.1f KiB each", n+20, float64(grown)/1024/float64(n+20))
	if grown > int64(n+20)*96<<10+16<<20 {
		t.Errorf("%d bytes more for %d connections", grown, n+20)
	}
}

// TestTinyCopyMessages: a flood of CopyData with a byte or nothing in each is streamed (CP-10).
func TestTinyCopyMessages(t *testing.T) {
	in := start(t, nil)
	c := in.ready(t)
	c.SetDeadline(time.Now().Add(5 * time.Minute))
	c.Write(query("BEGIN; CREATE TEMP TABLE flood (line text); COPY flood FROM STDIN"))
	for {
		typ, _, err := wire.ReadFrame(c, wire.Backend, nil, 1<<16)
		if err != nil {
			t.Fatal(err)
		}
		if typ == 'G' {
			break
		}
	}
	n := scaled(100_000, 5_000_000)
	before := held()
	var batch []byte
	for range 1000 {
		batch = append(batch, slices.Concat(frame('d', []byte("x")), frame('d', nil), frame('d', []byte("\n")))...)
	}
	for range n / 3000 {
		if _, err := c.Write(batch); err != nil {
			t.Fatal(err)
		}
	}
	if grown := held() - before; grown > 16<<20 {
		t.Errorf("%d bytes more on heap and stacks", grown)
	}
	c.Write(frame('c', nil))
	if typ, body, err := wire.ReadFrame(c, wire.Backend, nil, 1<<16); err != nil || typ != 'C' || string(body) != fmt.Sprintf("COPY %d\x00", n/3000*1000) {
		t.Errorf("%c %q %v", typ, body, err)
	}
}

// TestStream: a result of any length passes without being held.
func TestStream(t *testing.T) {
	in := start(t, nil)
	c := in.ready(t)
	c.SetDeadline(time.Now().Add(20 * time.Minute))
	mib := scaled(64, 4096)
	before := held()
	var most int64
	began := time.Now()
	c.Write(query(fmt.Sprintf("COPY (SELECT repeat('x', 1023) FROM generate_series(1, %d)) TO STDOUT", mib*1024)))
	buffer := make([]byte, 1<<16)
	var got, payload int64
	tail := []byte{}
	for step := 0; !bytes.HasSuffix(tail, wire.AppendReadyForQuery(nil, 'I')); step++ {
		n, err := c.Read(buffer)
		if err != nil {
			t.Fatal(err)
		}
		got += int64(n)
		payload += int64(bytes.Count(buffer[:n], []byte("x")))
		tail = append(tail, buffer[:n]...)
		tail = bytes.Clone(tail[max(0, len(tail)-16):])
		if step%5000 == 0 {
			most = max(most, held()-before)
		}
	}
	t.Logf("%d MiB in %s, at most %.1f MiB more held", mib, time.Since(began).Round(time.Millisecond), float64(most)/(1<<20))
	if want := int64(mib) * 1024 * 1023; payload != want {
		t.Errorf("%d bytes of %d", payload, want)
	}
	if most > 16<<20 {
		t.Errorf("%d bytes more on heap and stacks", most)
	}
}

// TestHalfOpenFlood: logins that stop at each step neither hold memory that matters nor keep a session that works from
// working, and end at the deadline (RE-01, RE-03). The latencies are figures.
func TestHalfOpenFlood(t *testing.T) {
	in := start(t, func(c *config.Config) {
		roomy(c)
		c.Listeners[0].Limits.StartupTimeout = config.Duration(5 * time.Second)
	})
	ctx := context.Background()
	s, err := pgx.Connect(ctx, in.url())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close(ctx)
	latency := func(n int) (p50, p99 time.Duration) {
		var all []time.Duration
		for range n {
			began := time.Now()
			if _, err := s.Exec(ctx, "SELECT 1"); err != nil {
				t.Fatal(err)
			}
			all = append(all, time.Since(began))
		}
		slices.Sort(all)
		return all[n/2], all[n*99/100]
	}
	a50, a99 := latency(300)
	n := scaled(300, 4000)
	before := held()
	since := time.Now()
	var conns []net.Conn
	whole := startup("app")
	for i := range n {
		c := in.raw(t)
		conns = append(conns, c)
		switch i % 3 {
		case 1:
			c.Write(whole[:len(whole)/2])
		case 2:
			c.Write(whole) // and no answer to the challenge
		}
	}
	grown := held() - before
	b50, b99 := latency(300)
	t.Logf("%d half-open logins: %.1f KiB each; a session's latency p50 %s and p99 %s before, %s and %s during", n, float64(grown)/1024/float64(n), a50, a99, b50, b99)
	if grown > int64(n)*96<<10+16<<20 {
		t.Errorf("%d bytes more for %d logins", grown, n)
	}
	for i, c := range conns {
		c.SetReadDeadline(time.Now().Add(30 * time.Second))
		if _, err := io.Copy(io.Discard, c); err != nil && os.IsTimeout(err) {
			t.Fatalf("login %d has no end", i)
		}
	}
	in.waitFor(t, since, csf.StartupRefused, csf.ReasonStartupTimeout)
	if _, err := s.Exec(ctx, "SELECT 1"); err != nil {
		t.Errorf("the session: %v", err)
	}
}

// TestCancelFlood: CancelRequests by the hundred with keys of nobody leave logins and sessions alone (CA-10).
func TestCancelFlood(t *testing.T) {
	in := start(t, roomy)
	ctx := context.Background()
	s, err := pgx.Connect(ctx, in.url())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close(ctx)
	since := time.Now()
	n := scaled(400, 20000)
	var wait sync.WaitGroup
	for w := range 8 {
		wait.Go(func() {
			for i := range n / 8 {
				c, err := net.Dial("tcp", in.addr)
				if err != nil {
					t.Error(err)
					return
				}
				r, _ := wire.AppendCancelRequest(nil, uint32(w<<24|i), []byte{1, 2, 3, byte(i)})
				c.Write(r)
				io.Copy(io.Discard, c)
				c.Close()
			}
		})
	}
	for range 10 {
		c, err := pgx.Connect(ctx, in.url())
		if err != nil {
			t.Fatalf("a login during the flood: %v", err)
		}
		if _, err := c.Exec(ctx, "SELECT 1"); err != nil {
			t.Error(err)
		}
		c.Close(ctx)
		if _, err := s.Exec(ctx, "SELECT 1"); err != nil {
			t.Fatalf("the session during the flood: %v", err)
		}
	}
	wait.Wait()
	refused := 0
	for _, e := range in.log.since(since) {
		if e.Kind == csf.CancelRefused {
			refused++
		}
		if e.Kind == csf.CancelForwarded {
			t.Error("a cancel request was sent on")
		}
	}
	if refused != n/8*8 {
		t.Errorf("%d of %d cancel requests are on record", refused, n/8*8)
	}
}

// TestCancelKeysAreSpread: process ids and keys are random numbers of this node (CA-11): none comes twice, and each bit of
// them is set about as often as not.
func TestCancelKeysAreSpread(t *testing.T) {
	in := start(t, nil)
	const n = 200
	seen := map[string]bool{}
	set := 0
	var ones [32]int
	for range n {
		c := in.login2(t)
		if seen[string(c)] {
			t.Fatalf("%x was issued twice", c)
		}
		seen[string(c)] = true
		v := binary.BigEndian.Uint32(c[4:])
		set += bits.OnesCount32(v)
		for b := range ones {
			ones[b] += int(v >> b & 1)
		}
	}
	// Six standard deviations of a fair coin: a chance of about one in 10^8 for each bit.
	for b, k := range ones {
		if k < n/2-43 || k > n/2+43 {
			t.Errorf("bit %d of the key is set in %d of %d", b, k, n)
		}
	}
	if set < 32*n/2-240 || set > 32*n/2+240 {
		t.Errorf("%d of %d bits are set", set, 32*n)
	}
}

// login2 logs in and gives the body of BackendKeyData: process id and key.
func (in *ingress) login2(t *testing.T) []byte {
	ctx := context.Background()
	c, err := pgconn.Connect(ctx, in.url())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(ctx)
	return append(binary.BigEndian.AppendUint32(nil, c.PID()), c.SecretKey()...)
}
