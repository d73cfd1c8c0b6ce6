package proxy

import (
	"crypto/tls"
	"net"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// side is one socket of a seat.
type side struct {
	seat *seat
	fd   int32
	mask uint32 // what epoll waits for
	// posted is the place in the loop's posts of what goes to this socket at the end of the turn, counted from 1; 0: nothing.
	posted int32
	need   int       // held is looked at again when it has as many bytes
	held   []byte    // plain bytes read from this side and not dealt with
	out    []byte    // bytes for this side's socket that it did not take
	tls    *tls.Conn // nil: plaintext
	mem    *memory   // what tls reads from and writes to
}

// memory is the transport of a TLS connection on a loop: it reads what the loop has read and writes to the side's socket.
type memory struct {
	in   []byte
	lent bool // in is the loop's buffer
	side *side
}

// errWouldBlock ends a read of tls.Conn that needs more than has come; being temporary, it can be tried again.
type errWouldBlock struct{}

func (errWouldBlock) Error() string   { return "more of a TLS record is needed" }
func (errWouldBlock) Timeout() bool   { return true }
func (errWouldBlock) Temporary() bool { return true }

func (m *memory) Read(b []byte) (int, error) {
	if len(m.in) == 0 {
		return 0, errWouldBlock{}
	}
	n := copy(b, m.in)
	m.in = m.in[n:]
	return n, nil
}

// give adds what was read; b is the loop's.
func (m *memory) give(b []byte) {
	if len(m.in) == 0 {
		m.in, m.lent = b, true
		return
	}
	m.in = append(m.in, b...)
}

// retain makes what is left the memory's own.
func (m *memory) retain() {
	switch {
	case len(m.in) == 0:
		m.in, m.lent = nil, false
	case m.lent:
		m.in, m.lent = append([]byte(nil), m.in...), false
	}
}

func (m *memory) Write(b []byte) (int, error) {
	if err := m.side.put(b); err != nil {
		return 0, err
	}
	return len(b), nil
}

func (*memory) Close() error                     { return nil }
func (*memory) LocalAddr() net.Addr              { return nil }
func (*memory) RemoteAddr() net.Addr             { return nil }
func (*memory) SetDeadline(time.Time) error      { return nil }
func (*memory) SetReadDeadline(time.Time) error  { return nil }
func (*memory) SetWriteDeadline(time.Time) error { return nil }

// send encrypts where the side is encrypted (outlet).
func (d *side) send(b []byte, _ time.Time) error {
	if d.tls != nil {
		_, err := d.tls.Write(b)
		return err
	}
	return d.put(b)
}

// put leaves a little for the end of the turn, and writes what is more; what the socket does not take is kept.
func (d *side) put(b []byte) error {
	if len(d.out) == 0 {
		if d.seat.loop.post(d, b) {
			return nil
		}
		if err := d.hurry(); err != nil {
			return err
		}
	}
	return d.write(b)
}

// hurry writes what was left for the end of the turn.
func (d *side) hurry() error {
	if d.posted == 0 {
		return nil
	}
	return d.write(d.seat.loop.withdraw(d))
}

// write writes to the socket and keeps what it does not take.
func (d *side) write(b []byte) error {
	if len(d.out) == 0 {
		n, errno := sysWrite(d.fd, b)
		switch errno {
		case 0:
			if b = b[n:]; len(b) == 0 {
				return nil
			}
		case syscall.EAGAIN, syscall.EINTR:
		default:
			return os.NewSyscallError("write", errno)
		}
	}
	d.out = append(d.out, b...)
	return nil
}

// flush writes what was kept.
func (d *side) flush() error {
	for len(d.out) > 0 {
		n, errno := sysWrite(d.fd, d.out)
		switch errno {
		case 0:
			d.out = d.out[n:]
		case syscall.EINTR:
		case syscall.EAGAIN:
			return nil
		default:
			return os.NewSyscallError("write", errno)
		}
	}
	d.out = nil
	return nil
}

// keep holds what was not dealt with until need bytes are there. rest may be part of held.
func (d *side) keep(rest []byte, need int) {
	if d.need = need; len(rest) == 0 {
		d.held = nil
		return
	}
	d.held = append(d.held[:0], rest...)
}

// whole gives what is held and b as one.
func (d *side) whole(b []byte) []byte {
	if len(d.held) == 0 {
		return b
	}
	d.held = append(d.held, b...)
	return d.held
}

// lacks says that b, from whole, is too short to be looked at, and holds it.
func (d *side) lacks(b []byte) bool {
	if len(b) >= d.need {
		return false
	}
	if len(d.held) == 0 {
		d.keep(b, d.need)
	}
	return true
}

// sysRead and sysWrite skip the Go scheduler's book-keeping: the sockets are non-blocking, so that the calls are short. They
// are recv(2) and send(2), which do less than read(2) and write(2) before they come to the socket.
func sysRead(fd int32, b []byte) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), 0, 0, 0)
	return int(n), errno
}

func sysWrite(fd int32, b []byte) (int, syscall.Errno) {
	b = b[:min(len(b), mostWritten)]
	n, _, errno := syscall.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), unix.MSG_NOSIGNAL, 0, 0)
	return int(n), errno
}
