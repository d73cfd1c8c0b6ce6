package proxy

import (
	"io"
	"net"
	"os"
	"syscall"
	"unsafe"

	"github.com/csfproxy/csfproxy/proxy/upstream"
)

// socket reads and writes a TCP connection by system calls that the Go scheduler is not told of. They never block, as
// the socket is non-blocking: waiting is left to the runtime's poller, deadlines and Close work as on the connection.
// Telling the scheduler of each of four short calls per transaction wakes its monitor thread over and over, which costs
// more than the relay's own work. One goroutine may read and one may write at a time.
type socket struct {
	net.Conn
	raw         syscall.RawConn
	read, write func(fd uintptr) bool // tryRead and tryWrite, made once

	in, out   []byte
	got, put  int
	rerr, wer error

	// space gives the room to read into, rest is told before a wait; nil: Read's argument is the room.
	space func() []byte
	rest  func()
}

// direct gives a socket for a plain TCP connection, and false for any other.
func direct(c net.Conn) (*socket, bool) {
	if u, ok := c.(*upstream.Conn); ok {
		c = u.Conn
	}
	t, ok := c.(*net.TCPConn)
	if !ok {
		return nil, false
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return nil, false
	}
	s := &socket{Conn: c, raw: raw}
	s.read, s.write = s.tryRead, s.tryWrite
	return s, true
}

func (s *socket) Read(b []byte) (int, error) {
	if len(b) == 0 && s.space == nil {
		return 0, nil
	}
	s.in, s.got, s.rerr = b, 0, nil
	err := s.raw.Read(s.read)
	s.in = nil
	switch {
	case err != nil:
		return 0, err
	case s.rerr != nil:
		return 0, &net.OpError{Op: "read", Net: "tcp", Source: s.LocalAddr(), Addr: s.RemoteAddr(), Err: os.NewSyscallError("read", s.rerr)}
	case s.got == 0:
		return 0, io.EOF
	}
	return s.got, nil
}

func (s *socket) tryRead(fd uintptr) bool {
	b := s.in
	if s.space != nil {
		b = s.space()
	}
	for {
		n, _, errno := syscall.RawSyscall(syscall.SYS_READ, fd, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
		switch errno {
		case 0:
			s.got = int(n)
			return true
		case syscall.EINTR:
		case syscall.EAGAIN:
			if s.rest != nil {
				s.rest()
			}
			return false
		default:
			s.rerr = errno
			return true
		}
	}
}

func (s *socket) Write(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	s.out, s.put, s.wer = b, 0, nil
	err := s.raw.Write(s.write)
	s.out = nil
	if err == nil && s.wer != nil {
		err = &net.OpError{Op: "write", Net: "tcp", Source: s.LocalAddr(), Addr: s.RemoteAddr(), Err: os.NewSyscallError("write", s.wer)}
	}
	return s.put, err
}

// mostWritten bounds one call, so that a long write does not keep the processor from other sessions.
const mostWritten = 256 << 10

func (s *socket) tryWrite(fd uintptr) bool {
	for s.put < len(s.out) {
		b := s.out[s.put:min(len(s.out), s.put+mostWritten)]
		n, _, errno := syscall.RawSyscall(syscall.SYS_WRITE, fd, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
		switch errno {
		case 0:
			s.put += int(n)
		case syscall.EINTR:
		case syscall.EAGAIN:
			return false
		default:
			s.wer = errno
			return true
		}
	}
	return true
}

// lowered gives the connection's socket if it has one, else the connection.
func lowered(c net.Conn) net.Conn {
	if s, ok := direct(c); ok {
		return s
	}
	return c
}
