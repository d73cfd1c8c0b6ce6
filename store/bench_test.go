package store

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/csfproxy/csfproxy/csf"
)

func BenchmarkRecord(b *testing.B) {
	r, err := NewStatementRecorder(RecorderOptions{Append: func(csf.Event) (uint64, error) { return 1, nil }})
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	rec := record(1, 1)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		rec.Start, rec.Statement = int64(i), uint64(i%50)
		r.Record(&rec)
	}
}

func BenchmarkEncode(b *testing.B) {
	e := fullEvent()
	b.ReportAllocs()
	for b.Loop() {
		encode(e, "edge-1", "0011", [saltSize]byte{})
	}
}

func BenchmarkAppend(b *testing.B) {
	s, _, err := OpenSpool(SpoolOptions{Dir: b.TempDir(), Node: "edge-1", MaxBytes: 64 << 30})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	e := fullEvent()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Append(e); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkIngest is what one event costs from the spool's files to the committed row.
func BenchmarkIngest(b *testing.B) {
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
	s, _, err := OpenSpool(SpoolOptions{Dir: b.TempDir(), Node: "edge-1", MaxBytes: 64 << 30})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	e := fullEvent()
	e.Block = nil
	for range b.N {
		if _, err := s.Append(e); err != nil {
			b.Fatal(err)
		}
	}
	if err := s.WaitSynced(b.Context(), uint64(b.N)); err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	i := NewIngester(db, s, IngesterOptions{})
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error, 1)
	go func() { done <- i.Run(ctx) }()
	if err := i.Drain(b.Context()); err != nil {
		b.Fatal(err)
	}
	b.StopTimer()
	cancel()
	if err := <-done; err != nil {
		b.Fatal(err)
	}
}

func BenchmarkWriter(b *testing.B) {
	r, err := NewStatementRecorder(RecorderOptions{Append: func(csf.Event) (uint64, error) { return 1, nil }})
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	w := r.Writer()
	defer w.Close()
	rec := record(1, 1)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		rec.Session[1] = byte(i % 64)
		rec.Start, rec.Statement, rec.Duration, rec.Bytes = int64(i)*7, uint64(i%50)*0x9e3779b97f4a7c15, uint32(i*7919%4096), uint64(i%3000)
		w.Record(&rec)
	}
}
