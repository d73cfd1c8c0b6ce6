package proxy

import (
	"encoding/binary"
	"net"
	"testing"
	"time"

	"github.com/csfproxy/csfproxy/internal/config"
	"github.com/csfproxy/csfproxy/proxy/wire"
	"github.com/csfproxy/csfproxy/store"
)

// quietRecords counts statements and takes nothing else.
type quietRecords struct {
	Records
	statements int
}

func (r *quietRecords) RecordStatement(store.StatementRecord) { r.statements++ }

// quietInspector allows everything.
type quietInspector struct{ Inspector }

func (quietInspector) Inspect(StatementInput) Verdict { return Verdict{Kind: 1, Fingerprint: 7} }

func (quietInspector) Executed(*SessionFacts, *wire.Outcome) {}

// swallow takes writes.
type swallow struct{ net.Conn }

func (swallow) Write(b []byte) (int, error) { return len(b), nil }

func frame(typ byte, body string) string {
	return string(binary.BigEndian.AppendUint32([]byte{typ}, uint32(len(body)+4))) + body
}

// TestRelayDoesNotAllocate takes whole transactions through both directions of a session, from the bytes read to the
// bytes written and the statement recorded.
func TestRelayDoesNotAllocate(t *testing.T) {
	row := frame('T', "\x00\x01abalance\x00\x00\x00\x40\x00\x00\x03\x00\x00\x00\x17\x00\x04\xff\xff\xff\xff\x00\x00") + frame('D', "\x00\x01\x00\x00\x00\x010") + frame('C', "SELECT 1\x00")
	tests := []struct {
		name, client, upstream string
	}{
		{"prepared", frame('B', "\x00P0\x00\x00\x00\x00\x01\x00\x00\x00\x0242\x00\x00") + frame('D', "P\x00") + frame('E', "\x00\x00\x00\x00\x00") + frame('S', ""),
			frame('2', "") + row + frame('Z', "I")},
		{"simple", frame('Q', "SELECT abalance FROM pgbench_accounts WHERE aid = 42\x00"), row + frame('Z', "I")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			records := &quietRecords{}
			s := &Session{srv: &Server{opt: Options{Inspector: quietInspector{}}, records: records, now: time.Now}, snap: &snapshot{cfg: &config.Config{}}}
			s.snap.cfg.Audit.Statements = "all"
			s.conv = wire.New(wire.Limits{}, wire.Options{Observer: s})
			in := &pump{write: swallow{}, count: &s.bytesIn}
			out := &pump{write: swallow{}, count: &s.bytesOut, timed: &s.writing, age: s.age}
			now := time.Now()
			take := func(p *pump, scan scan, text []byte) {
				n := copy(p.space(), text)
				got, err := scan(p, p.b[:n], now)
				if err != nil || got.used != n {
					t.Fatalf("%d of %d bytes, %v", got.used, n, err)
				}
				p.took(n, got.used)
			}
			fromClient, fromUpstream := s.fromClient, s.fromUpstream
			take(in, fromClient, []byte(frame('P', "P0\x00SELECT $1\x00\x00\x00")+frame('S', "")))
			take(out, fromUpstream, []byte(frame('1', "")+frame('Z', "I")))
			client, upstream := []byte(tt.client), []byte(tt.upstream)
			once := func() {
				take(in, fromClient, client)
				take(out, fromUpstream, upstream)
			}
			if n := testing.AllocsPerRun(200, once); n != 0 {
				t.Errorf("%v allocations per transaction", n)
			}
			if records.statements != 201 {
				t.Errorf("%d statements recorded, want 201", records.statements)
			}
		})
	}
}
