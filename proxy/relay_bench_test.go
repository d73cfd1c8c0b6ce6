package proxy

import (
	"testing"
	"time"

	"github.com/csfproxy/csfproxy/internal/config"
	"github.com/csfproxy/csfproxy/proxy/wire"
)

// none takes what may go and drops it.
type none struct{}

func (none) send([]byte, time.Time) error { return nil }

// BenchmarkRelay takes whole transactions through both automata of a session without a socket: what looking at every
// message costs.
func BenchmarkRelay(b *testing.B) {
	row := frame('T', "\x00\x01abalance\x00\x00\x00\x40\x00\x00\x03\x00\x00\x00\x17\x00\x04\xff\xff\xff\xff\x00\x00") + frame('D', "\x00\x01\x00\x00\x00\x010") + frame('C', "SELECT 1\x00")
	for _, bb := range []struct{ name, client, upstream string }{
		{"prepared", frame('B', "\x00P0\x00\x00\x00\x00\x01\x00\x00\x00\x0242\x00\x00") + frame('D', "P\x00") + frame('E', "\x00\x00\x00\x00\x00") + frame('S', ""),
			frame('2', "") + row + frame('Z', "I")},
		{"simple", frame('Q', "SELECT abalance FROM pgbench_accounts WHERE aid = 42;\x00"), row + frame('Z', "I")},
	} {
		b.Run(bb.name, func(b *testing.B) {
			s := &Session{srv: &Server{opt: Options{Inspector: quietInspector{}}, records: &quietRecords{}, now: time.Now}, snap: &snapshot{cfg: &config.Config{}}}
			s.conv = wire.New(wire.Limits{}, wire.Options{Observer: s})
			now := time.Now()
			for _, m := range []string{frame('P', "P0\x00SELECT $1\x00\x00\x00"), frame('S', "")} {
				if _, err := s.fromClient(none{}, []byte(m), now); err != nil {
					b.Fatal(err)
				}
			}
			if _, err := s.fromUpstream(none{}, []byte(frame('1', "")+frame('Z', "I")), now); err != nil {
				b.Fatal(err)
			}
			client, upstream := []byte(bb.client), []byte(bb.upstream)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.fromClient(none{}, client, now); err != nil {
					b.Fatal(err)
				}
				if _, err := s.fromUpstream(none{}, upstream, now); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
