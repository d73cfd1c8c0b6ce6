package proxy

import (
	"fmt"
	"runtime"
	"sync"
)

// loops are a server's event loops.
type loops struct {
	list []*loop
	done sync.WaitGroup
}

// loopCount leaves half of the processors to logins, records and the servers' own work.
func loopCount() int { return max(1, runtime.GOMAXPROCS(0)/2) }

// start makes the loops, or none.
func (g *loops) start(srv *Server) error {
	for range loopCount() {
		l, err := newLoop(srv.records.NewStatementWriter(), srv.now)
		if err != nil {
			g.stop()
			return fmt.Errorf("relay: %w", err)
		}
		if len(g.list) == 0 && l.outbox.batch == nil {
			srv.log.Info("the system permits neither io_uring nor io_submit: the relay writes to one socket at a time, which costs more processor time")
		}
		g.list = append(g.list, l)
		g.done.Go(l.run)
	}
	return nil
}

// least gives the loop with the fewest sessions, nil where there is none.
func (g *loops) least() *loop {
	var best *loop
	fewest := 0
	for _, l := range g.list {
		if n := l.sessions(); best == nil || n < fewest {
			best, fewest = l, n
		}
	}
	return best
}

// stop ends the loops once every session has left them.
func (g *loops) stop() {
	for _, l := range g.list {
		l.close()
	}
	g.done.Wait()
	g.list = nil
}
