//go:build !linux

package proxy

import "github.com/csfproxy/csfproxy/store"

// loops are not known on this system: a session has a goroutine for each direction.
type loops struct{}

type loop struct{}

// seat is never taken here.
type seat struct{}

func (*loops) start(*Server) error { return nil }
func (*loops) least() *loop        { return nil }
func (*loops) stop()               {}

func (*Session) joinLoop(*loop) bool { return false }

func (*seat) interrupt()                      {}
func (*seat) statement(store.StatementRecord) {}
