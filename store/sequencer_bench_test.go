package store

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/store/translog"
)

// BenchmarkSequence is what one leaf costs from the stored event to the committed checkpoint, server included: from the
// hashes that ingest wrote beside the events, and from the events themselves.
func BenchmarkSequence(b *testing.B) {
	for _, from := range []string{"hashes", "events"} {
		b.Run(from, func(b *testing.B) {
			name := fmt.Sprintf("b%d", rand.Uint64())
			conn, err := pgx.Connect(b.Context(), server.URL("postgres", ""))
			if err != nil {
				b.Fatal(err)
			}
			defer conn.Close(context.Background())
			if _, err := conn.Exec(b.Context(), "create database "+name); err != nil {
				b.Fatal(err)
			}
			db, err := Open(b.Context(), server.URL(name, ""), DBOptions{})
			if err != nil {
				b.Fatal(err)
			}
			defer db.Close()
			if err := db.Migrate(b.Context()); err != nil {
				b.Fatal(err)
			}
			var records []Record
			for seq := 1; seq <= b.N; seq++ {
				records = append(records, Record{uint64(seq), payloadOf(csf.Event{Kind: csf.ConnAccepted, Time: testTime, Facts: csf.Facts{"listener": "apps", "user": "alice"}}, uint64(seq))})
				if len(records) == 5000 || seq == b.N {
					if _, err := db.storeBatch(b.Context(), "edge-1", "0011", records); err != nil {
						b.Fatal(err)
					}
					records = records[:0]
				}
			}
			if from == "events" {
				if _, err := db.pool.Exec(b.Context(), "delete from csfproxy.leaf_runs"); err != nil {
					b.Fatal(err)
				}
			}
			skey, _, err := translog.GenerateKey("bench.example/log")
			if err != nil {
				b.Fatal(err)
			}
			key, err := translog.NewLogKey(skey)
			if err != nil {
				b.Fatal(err)
			}
			s, err := NewSequencer(db, SequencerOptions{Key: key})
			if err != nil {
				b.Fatal(err)
			}
			b.ResetTimer()
			began := time.Now()
			for more := true; more; {
				if more, err = s.Round(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N)/time.Since(began).Seconds(), "leaves/s")
		})
	}
}
