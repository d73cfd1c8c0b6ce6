package proxy

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"
)

// tcpPair gives two ends of a TCP connection.
func tcpPair(t *testing.T) (a, b net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if a, err = net.Dial("tcp", ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if b, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

func TestSocketCarriesMoreThanTheKernelHolds(t *testing.T) {
	a, b := tcpPair(t)
	from, ok := direct(a)
	to, ok2 := direct(b)
	if !ok || !ok2 {
		t.Fatal("a TCP connection has no socket")
	}
	want := bytes.Repeat([]byte("0123456789abcdef"), 1<<20) // 16 MiB: the writer has to wait
	sent := make(chan error, 1)
	go func() {
		_, err := from.Write(want)
		a.Close()
		sent <- err
	}()
	got, err := io.ReadAll(to)
	if err != nil {
		t.Fatal(err)
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("got %d bytes, want %d, or others", len(got), len(want))
	}
	if n, err := to.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("after the end: %d, %v", n, err)
	}
}

func TestSocketErrors(t *testing.T) {
	tests := []struct {
		name string
		do   func(a, b net.Conn, s *socket) error
		want error
	}{
		{"read deadline", func(a, _ net.Conn, s *socket) error {
			time.AfterFunc(10*time.Millisecond, func() { a.SetReadDeadline(past) })
			_, err := s.Read(make([]byte, 1))
			return err
		}, os.ErrDeadlineExceeded},
		{"write deadline", func(a, _ net.Conn, s *socket) error {
			time.AfterFunc(10*time.Millisecond, func() { a.SetWriteDeadline(past) })
			_, err := s.Write(make([]byte, 64<<20))
			return err
		}, os.ErrDeadlineExceeded},
		{"closed here", func(a, _ net.Conn, s *socket) error {
			time.AfterFunc(10*time.Millisecond, func() { a.Close() })
			_, err := s.Read(make([]byte, 1))
			return err
		}, net.ErrClosed},
		{"reset by the peer", func(_, b net.Conn, s *socket) error {
			b.(*net.TCPConn).SetLinger(0)
			b.Close()
			_, err := s.Read(make([]byte, 1))
			return err
		}, syscall.ECONNRESET},
		{"end", func(_, b net.Conn, s *socket) error {
			b.Close()
			_, err := s.Read(make([]byte, 1))
			return err
		}, io.EOF},
		{"written after a reset", func(_, b net.Conn, s *socket) error {
			b.(*net.TCPConn).SetLinger(0)
			b.Close()
			s.Read(make([]byte, 1))
			_, err := s.Write([]byte("x"))
			return err
		}, syscall.EPIPE},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a, b := tcpPair(t)
			s, _ := direct(a)
			if err := tt.do(a, b, s); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

func TestBufferIsReturnedBeforeAWait(t *testing.T) {
	a, b := tcpPair(t)
	s, _ := direct(a)
	var r buffer
	held := make(chan bool, 16)
	s.space = r.space
	s.rest = func() { r.rest(); held <- r.piece != nil }
	read := func(want int) {
		t.Helper()
		n, err := s.Read(nil)
		if err != nil || n != want {
			t.Fatalf("%d, %v", n, err)
		}
	}
	go func() { // writes only when the reader waits
		for range 2 {
			if <-held {
				return
			}
			b.Write([]byte("abc"))
		}
	}()
	read(3)
	r.took(3, 3)
	read(3)
	if r.took(3, 1); r.held != 2 || string(r.b[:2]) != "bc" {
		t.Fatalf("held %d", r.held)
	}
	if r.rest(); r.piece == nil {
		t.Fatal("a piece with bytes in it was given back")
	}
	r.release()
	if r.piece != nil || r.held != 0 {
		t.Fatal("release keeps something")
	}
}

func TestBufferGrowsByWhatHasCome(t *testing.T) {
	r := buffer{small: make([]byte, smallBytes)}
	r.b = r.small
	r.need = 1 << 20
	text := bytes.Repeat([]byte("x"), 100<<10)
	for sent := 0; sent < len(text); {
		room := r.space()
		if have := len(r.b); have > 2*r.held+2*pieceBytes {
			t.Fatalf("%d bytes of room for %d held", have, r.held)
		}
		n := copy(room, text[sent:])
		sent += n
		r.took(n, 0)
	}
	if r.held != len(text) {
		t.Fatalf("held %d", r.held)
	}
	if r.took(0, r.held); len(r.b) != pieceBytes {
		t.Errorf("%d bytes kept after a large message", len(r.b))
	}
	r.took(1, 1)
	if r.piece != nil || len(r.b) != smallBytes {
		t.Error("the piece is kept after a small read")
	}
}
