//go:build !linux

package proxy

import "net"

// socket is the connection itself where no cheaper way to read and write it is known.
type socket struct {
	net.Conn
	space func() []byte
	rest  func()
}

func direct(net.Conn) (*socket, bool) { return nil, false }

func lowered(c net.Conn) net.Conn { return c }
