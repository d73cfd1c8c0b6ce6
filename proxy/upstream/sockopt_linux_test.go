package upstream

import (
	"io"
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// TestVanishedMembersAreFound: the system itself ends a connection whose member vanished without a word, idle or with data on
// its way: each socket has keepalive and TCP_USER_TIMEOUT (HA-10).
func TestVanishedMembersAreFound(t *testing.T) {
	addr := serve(t, func(c net.Conn) { io.Copy(io.Discard, c) })
	c, err := mustNew(t, plain(addr), Options{}).DialMember(t.Context(), addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	raw, err := c.Socket().(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range []struct {
		name             string
		level, opt, want int
	}{
		{"SO_KEEPALIVE", unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		{"TCP_KEEPIDLE", unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, int(keepIdle.Seconds())},
		{"TCP_KEEPINTVL", unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, int(keepInterval.Seconds())},
		{"TCP_KEEPCNT", unix.IPPROTO_TCP, unix.TCP_KEEPCNT, keepCount},
		{"TCP_USER_TIMEOUT", unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(userTimeout.Milliseconds())},
	} {
		var got int
		var opt error
		if err := raw.Control(func(fd uintptr) { got, opt = unix.GetsockoptInt(int(fd), o.level, o.opt) }); err != nil || opt != nil || got != o.want {
			t.Errorf("%s is %d, want %d; %v %v", o.name, got, o.want, err, opt)
		}
	}
}
