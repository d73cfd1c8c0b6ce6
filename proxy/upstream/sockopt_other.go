//go:build !linux

package upstream

import "syscall"

// controlSocket leaves the socket as it is: TCP_USER_TIMEOUT is Linux's.
func controlSocket(_, _ string, _ syscall.RawConn) error { return nil }
