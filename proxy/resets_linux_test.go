package proxy_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/csfproxy/csfproxy/proxy"
	"github.com/jackc/pgx/v5/pgconn"
)

// TestResetsInACrowd lets many clients ask for markers of their own, and some of them reset their connection with the answer
// or a second question on its way, so that a turn of the loop has pieces for sockets that fail, and their descriptors'
// numbers become others' at once. Nobody may ever see another's marker.
func TestResetsInACrowd(t *testing.T) {
	for _, way := range []string{"ring", "aio", "calls"} {
		t.Run(way, func(t *testing.T) {
			proxy.SendBy(t, way)
			in := start(t, nil)
			stop := time.Now().Add(3 * time.Second)
			var answers, resets, serial atomic.Int64
			var wg sync.WaitGroup
			for range 24 {
				wg.Go(func() {
					for time.Now().Before(stop) && !t.Failed() {
						ask(t, in, &answers, &resets, &serial)
					}
				})
			}
			wg.Wait()
			t.Logf("%d answers, %d resets", answers.Load(), resets.Load())
			if answers.Load() < 20 || resets.Load() < 5 {
				t.Errorf("%d answers and %d resets are too few to show anything", answers.Load(), resets.Load())
			}
			in.settled(0)
		})
	}
}

// ask opens a session, asks up to 20 times, and then resets the connection or closes it.
func ask(t *testing.T, in *ingress, answers, resets, serial *atomic.Int64) {
	cfg, err := pgconn.ParseConfig(in.url("app", "disable"))
	if err != nil {
		t.Error(err)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	c, err := pgconn.ConnectConfig(ctx, cfg)
	if err != nil {
		t.Error(err)
		return
	}
	for range rand.IntN(20) {
		marker := fmt.Sprintf("marker-%d", serial.Add(1))
		r, err := c.Exec(ctx, "SELECT '"+marker+"'").ReadAll()
		if err != nil {
			t.Error(err)
			return
		}
		if got := string(r[0].Rows[0][0]); got != marker {
			t.Errorf("asked for %s, got %s", marker, got)
		}
		answers.Add(1)
	}
	if rand.IntN(2) == 0 {
		c.Close(ctx)
		return
	}
	conn, ok := c.Conn().(*net.TCPConn)
	if !ok {
		t.Errorf("the connection is a %T", c.Conn())
		return
	}
	conn.SetLinger(0)
	for range 1 + rand.IntN(3) {
		query := fmt.Appendf(nil, "SELECT 'lost-%d'\x00", serial.Add(1))
		conn.Write(append([]byte{'Q', 0, 0, 0, byte(len(query) + 4)}, query...))
	}
	time.Sleep(time.Duration(rand.IntN(400)) * time.Microsecond)
	conn.Close()
	resets.Add(1)
}
