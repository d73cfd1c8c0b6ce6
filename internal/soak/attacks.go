package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/csfproxy/csfproxy/proxy/wire"
	"github.com/jackc/pgx/v5/pgconn"
)

// attack is what strangers, or clients that were let in, do to the node while others work.
type attack struct {
	name string
	what string // in the words of the table; %d is the size
	size int
	// each bounds how much the node's resident memory may grow: so much times the size, and 48 MiB for what the collector
	// has not given back.
	each int // KiB
	// do attacks until ctx ends. It calls height once everything that it opens is open, and reports what else is to
	// be said.
	do func(s *siege, ctx context.Context, size int, height func()) (string, error)
}

// attacks in the order of the table.
var attacks = []attack{
	{"lengths of 1 GiB before the login", "%d connections: as first word, as startup packet of the longest length, as answer to the challenge", 1000, 96, (*siege).lengthsBefore},
	{"lengths of 1 GiB in sessions", "%d sessions, each a Bind of 1 GiB of which 2 KiB come", 1000, 128, (*siege).lengthsInside},
	{"half-open logins", "%d connections: silent, half a startup packet, no answer to the challenge", 6000, 64, (*siege).halfOpen},
	{"more connections than permitted", "32 at once, again and again, at a listener that is full", 32, 0, (*siege).overload},
	{"logins with wrong passwords", "%d at once, again and again", 8, 0, (*siege).guesses},
	{"TLS handshakes that come to nothing", "%d at once, again and again", 8, 0, (*siege).handshakes},
	{"CancelRequests with keys of nobody", "%d at once, again and again", 16, 0, (*siege).cancels},
	{"slow readers", "%d sessions that ask for a result of 10 GiB and do not read it", 200, 128, (*siege).slowReaders},
	{"COPY flood", "%d sessions that send rows of one byte, one for each message", 4, 256, (*siege).copyFlood},
	{"statements that never end", "%d sessions, each a Query of 1 MiB without its last byte", 200, 1100 + 1024, (*siege).longStatements},
	{"a result of 4 GiB", "%d session that reads it as fast as it comes", 1, 256, (*siege).stream},
}

// from dials from an address of the loopback network that many attackers share: one has too few ports.
func from(ctx context.Context, addr string, i int) (net.Conn, error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, byte(1+i%200), 1)}, Timeout: 30 * time.Second}
	return d.DialContext(ctx, "tcp", addr)
}

// many opens n connections, calls height and keeps them until ctx ends.
func many(ctx context.Context, n, workers int, height func(), open func(i int) (net.Conn, error)) error {
	conns := make([]net.Conn, n)
	defer func() {
		for _, c := range conns {
			if c != nil {
				c.Close()
			}
		}
	}()
	errs := make([]error, workers)
	var wait sync.WaitGroup
	for w := range workers {
		wait.Go(func() {
			for i := w; i < n && errs[w] == nil && ctx.Err() == nil; i += workers {
				conns[i], errs[w] = open(i)
			}
		})
	}
	wait.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	height()
	<-ctx.Done()
	return nil
}

// repeated lets n attackers do something again and again until ctx ends. What they meet is theirs to judge.
func (s *siege) repeated(ctx context.Context, n int, height func(), do func(i int) error) error {
	errs := make([]error, n)
	var wait sync.WaitGroup
	for w := range n {
		wait.Go(func() {
			for i := w; ctx.Err() == nil && errs[w] == nil; i += n {
				errs[w] = do(i)
				s.counted.Add(1)
			}
		})
	}
	height()
	wait.Wait()
	for _, err := range errs {
		if err != nil && ctx.Err() == nil {
			return err
		}
	}
	return nil
}

func startup() []byte {
	b, err := wire.AppendStartupMessage(nil, wire.Version30, []wire.Parameter{{Name: "user", Value: "soak"}, {Name: "database", Value: "soak"}})
	if err != nil {
		panic(err)
	}
	return b
}

// challenged brings a connection to where the client's answer is awaited.
func (s *siege) challenged(ctx context.Context, addr string, i int) (net.Conn, error) {
	c, err := from(ctx, addr, i)
	if err != nil {
		return nil, err
	}
	c.Write(startup())
	c.SetReadDeadline(time.Now().Add(30 * time.Second))
	if typ, _, err := wire.ReadFrame(c, wire.Backend, nil, 1<<16); err != nil || typ != 'R' {
		c.Close()
		return nil, fmt.Errorf("no challenge: %c %v", typ, err)
	}
	return c, nil
}

func (s *siege) lengthsBefore(ctx context.Context, n int, height func()) (string, error) {
	return "", many(ctx, n, 16, height, func(i int) (c net.Conn, err error) {
		if i%3 == 2 {
			if c, err = s.challenged(ctx, s.open, i); err == nil {
				_, err = c.Write([]byte("p\x3f\xff\xff\xfe\x00"))
			}
			return c, err
		}
		if c, err = from(ctx, s.open, i); err != nil {
			return nil, err
		}
		first := []byte{0x3f, 0xff, 0xff, 0xfe, 0, 3, 0, 0}
		if i%3 == 1 {
			first = []byte{0, 0, 0x27, 0x14, 0, 3, 0, 0, 'u'}
		}
		_, err = c.Write(first)
		return c, err
	})
}

// session logs in on the open listener and gives the socket.
func (s *siege) session(ctx context.Context, i int) (net.Conn, error) {
	cfg, err := pgconn.ParseConfig(fmt.Sprintf("postgres://soak:%s@%s/soak?sslmode=disable", password, s.open))
	if err != nil {
		return nil, err
	}
	cfg.DialFunc = func(ctx context.Context, _, addr string) (net.Conn, error) { return from(ctx, addr, i) }
	c, err := pgconn.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, err
	}
	s.bound.Add(1)
	h, err := c.Hijack()
	if err != nil {
		return nil, err
	}
	return h.Conn, nil
}

func (s *siege) lengthsInside(ctx context.Context, n int, height func()) (string, error) {
	message := append([]byte("B\x3f\xff\xff\xfe\x00\x00"), make([]byte, 2048)...)
	return "", many(ctx, n, 8, height, func(i int) (net.Conn, error) {
		c, err := s.session(ctx, i)
		if err == nil {
			_, err = c.Write(message)
		}
		return c, err
	})
}

func (s *siege) halfOpen(ctx context.Context, n int, height func()) (string, error) {
	return "", many(ctx, n, 16, height, func(i int) (net.Conn, error) {
		if i%3 == 2 {
			return s.challenged(ctx, s.open, i)
		}
		c, err := from(ctx, s.open, i)
		if err == nil && i%3 == 1 {
			_, err = c.Write(startup()[:20])
		}
		return c, err
	})
}

// overload fills the small listener and goes on. Those over its limit are told 53300, and closed when there are too many.
func (s *siege) overload(ctx context.Context, n int, height func()) (string, error) {
	var told, closed, other atomic.Int64
	began := time.Now()
	err := many(ctx, fullPlaces, 4, func() {
		if err := s.repeated(ctx, n, height, func(i int) error {
			c, err := from(ctx, s.full, i)
			if err != nil {
				return err
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(30 * time.Second))
			c.Write(startup())
			switch typ, body, err := wire.ReadFrame(c, wire.Backend, nil, 1<<16); {
			case err != nil:
				closed.Add(1)
			case typ == 'E' && strings.Contains(string(body), "C53300\x00"):
				told.Add(1)
			default:
				other.Add(1)
			}
			return nil
		}); err != nil {
			other.Add(1)
		}
	}, func(i int) (net.Conn, error) { return s.challenged(ctx, s.full, i) })
	if err == nil && other.Load() > 0 {
		err = fmt.Errorf("%d were neither told 53300 nor closed", other.Load())
	}
	seconds := time.Since(began).Seconds()
	return fmt.Sprintf("%.0f a second told 53300, %.0f closed at once", float64(told.Load())/seconds, float64(closed.Load())/seconds), err
}

func (s *siege) guesses(ctx context.Context, n int, height func()) (string, error) {
	return "", s.repeated(ctx, n, height, func(i int) error {
		c, err := s.challenged(ctx, s.open, i)
		if err != nil {
			return err
		}
		defer c.Close()
		first := "n,,n=,r=0123456789abcdefghijkl"
		b, err := wire.AppendSASLInitialResponse(nil, "SCRAM-SHA-256", []byte(first))
		if err != nil {
			return err
		}
		c.Write(b)
		typ, body, err := wire.ReadFrame(c, wire.Backend, nil, 1<<16)
		if err != nil || typ != 'R' || len(body) < 8 {
			return fmt.Errorf("no answer to the first message: %c %v", typ, err)
		}
		_, nonce, _ := strings.Cut(string(body[4:]), "r=")
		nonce, _, _ = strings.Cut(nonce, ",")
		final := "c=biws,r=" + nonce + ",p=" + strings.Repeat("A", 43) + "="
		c.Write(append(binary.BigEndian.AppendUint32([]byte{'p'}, uint32(4+len(final))), final...))
		if typ, body, err := wire.ReadFrame(c, wire.Backend, nil, 1<<16); err != nil || typ != 'E' || !strings.Contains(string(body), "C28P01\x00") {
			return fmt.Errorf("a wrong proof was answered with %c %q %v", typ, body, err)
		}
		return nil
	})
}

func (s *siege) handshakes(ctx context.Context, n int, height func()) (string, error) {
	return "", s.repeated(ctx, n, height, func(i int) error {
		c, err := from(ctx, s.addr, i)
		if err != nil {
			return err
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(30 * time.Second))
		c.Write([]byte{0, 0, 0, 8, 4, 210, 22, 47})
		var yes [1]byte
		if _, err := io.ReadFull(c, yes[:]); err != nil || yes[0] != 'S' {
			return fmt.Errorf("no TLS: %q %v", yes, err)
		}
		// The handshake counts, not whom the attacker trusts.
		return tls.Client(c, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"postgresql"}}).HandshakeContext(ctx)
	})
}

func (s *siege) cancels(ctx context.Context, n int, height func()) (string, error) {
	return "", s.repeated(ctx, n, height, func(i int) error {
		c, err := from(ctx, s.open, i)
		if err != nil {
			return err
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(30 * time.Second))
		b, err := wire.AppendCancelRequest(nil, uint32(i), []byte{1, 2, 3, byte(i)})
		if err != nil {
			return err
		}
		c.Write(b)
		io.Copy(io.Discard, c)
		return nil
	})
}

func (s *siege) slowReaders(ctx context.Context, n int, height func()) (string, error) {
	q, err := wire.AppendQuery(nil, "COPY (SELECT repeat('x', 1023) FROM (SELECT generate_series(1, 10485760)) s) TO STDOUT")
	if err != nil {
		return "", err
	}
	full := func() {
		sleep(ctx, 5*time.Second) // until the systems' buffers are full and everybody waits
		height()
	}
	return "", many(ctx, n, 8, full, func(i int) (net.Conn, error) {
		c, err := s.session(ctx, i)
		if err == nil {
			_, err = c.Write(q)
		}
		return c, err
	})
}

func (s *siege) copyFlood(ctx context.Context, n int, height func()) (string, error) {
	q, err := wire.AppendQuery(nil, "COPY flood FROM STDIN")
	if err != nil {
		return "", err
	}
	var batch []byte
	for range 2000 {
		batch = append(batch, 'd', 0, 0, 0, 6, 'x', '\n')
	}
	began := time.Now()
	var sent atomic.Int64
	var writers sync.WaitGroup
	defer writers.Wait()
	err = many(ctx, n, n, height, func(i int) (net.Conn, error) {
		c, err := s.session(ctx, i)
		if err != nil {
			return nil, err
		}
		c.Write(q)
		if typ, _, err := wire.ReadFrame(c, wire.Backend, nil, 1<<16); err != nil || typ != 'G' {
			return c, fmt.Errorf("no COPY: %c %v", typ, err)
		}
		writers.Go(func() {
			for ctx.Err() == nil {
				if _, err := c.Write(batch); err != nil {
					return
				}
				sent.Add(2000)
			}
		})
		return c, nil
	})
	return fmt.Sprintf("%.1f million messages a second", float64(sent.Load())/1e6/time.Since(began).Seconds()), err
}

func (s *siege) longStatements(ctx context.Context, n int, height func()) (string, error) {
	q, err := wire.AppendQuery(nil, "SELECT '"+strings.Repeat("x", 1<<20)+"'")
	if err != nil {
		return "", err
	}
	return "", many(ctx, n, 8, height, func(i int) (net.Conn, error) {
		c, err := s.session(ctx, i)
		if err == nil {
			_, err = c.Write(q[:len(q)-1])
		}
		return c, err
	})
}

// stream reads to the end, whenever the measurement ends.
func (s *siege) stream(ctx context.Context, _ int, height func()) (string, error) {
	const rows = 4 << 20
	c, err := s.session(ctx, 0)
	if err != nil {
		return "", err
	}
	defer c.Close()
	q, err := wire.AppendQuery(nil, fmt.Sprintf("COPY (SELECT repeat('x', 1023) FROM (SELECT generate_series(1, %d)) s) TO STDOUT", rows))
	if err != nil {
		return "", err
	}
	c.Write(q)
	height()
	began := time.Now()
	in := bufio.NewReaderSize(c, 256<<10)
	var got int64
	for {
		head, err := in.Peek(5)
		if err != nil {
			return "", err
		}
		typ, length := head[0], int(binary.BigEndian.Uint32(head[1:]))
		if _, err := in.Discard(1 + length); err != nil {
			return "", err
		}
		switch typ {
		case 'd':
			got += int64(length - 4)
		case 'Z':
			if got != rows*1024 {
				return "", fmt.Errorf("%d bytes, not %d", got, int64(rows)*1024)
			}
			return fmt.Sprintf("%.0f MiB/s", float64(got)/(1<<20)/time.Since(began).Seconds()), nil
		}
	}
}
