//go:build unix

package selftest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// dialFrom connects to an address of this machine and tells the local address before the connection is made, so
// that the ingress knows it for a self-test's from its first packet. The local address is the one that is
// connected to, which is the machine's own. A listener that resets the connection at once may be seen before
// the dial is over: that is a ResetError.
func dialFrom(ctx context.Context, address string, mark func(local netip.AddrPort)) (net.Conn, error) {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, fmt.Errorf("self-test: %w", err)
	}
	ip := to.Addr().Unmap()
	if ip.IsUnspecified() {
		ip = netip.AddrFrom4([4]byte{127, 0, 0, 1})
		if to.Addr().Is6() {
			ip = netip.IPv6Loopback()
		}
	}
	var local netip.AddrPort
	d := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		var bindErr error
		if err := c.Control(func(fd uintptr) {
			var port int
			if port, bindErr = bindAny(int(fd), ip); bindErr == nil {
				local = netip.AddrPortFrom(ip, uint16(port))
				mark(local)
			}
		}); err != nil {
			return err
		}
		return bindErr
	}}
	c, err := d.DialContext(ctx, "tcp", netip.AddrPortFrom(ip, to.Port()).String())
	if errors.Is(err, syscall.ECONNRESET) {
		return nil, &ResetError{Local: local}
	}
	return c, err
}

// bindAny binds a socket to a free port and gives it.
func bindAny(fd int, ip netip.Addr) (int, error) {
	var any unix.Sockaddr
	if ip.Is4() {
		any = &unix.SockaddrInet4{Addr: ip.As4()}
	} else {
		any = &unix.SockaddrInet6{Addr: ip.As16()}
	}
	if err := unix.Bind(fd, any); err != nil {
		return 0, fmt.Errorf("self-test: bind %s: %w", ip, err)
	}
	bound, err := unix.Getsockname(fd)
	if err != nil {
		return 0, fmt.Errorf("self-test: %w", err)
	}
	switch b := bound.(type) {
	case *unix.SockaddrInet4:
		return b.Port, nil
	case *unix.SockaddrInet6:
		return b.Port, nil
	}
	return 0, fmt.Errorf("self-test: a socket of family %T", bound)
}
