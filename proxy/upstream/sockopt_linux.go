package upstream

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// controlSocket bounds how long sent bytes may stay unacknowledged: keepalive alone does not run while there
// are any. (Go sets TCP_NODELAY on every TCP connection.)
func controlSocket(_, _ string, raw syscall.RawConn) error {
	var opt error
	err := raw.Control(func(fd uintptr) {
		opt = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(userTimeout.Milliseconds()))
	})
	if err != nil {
		return err
	}
	return opt
}
