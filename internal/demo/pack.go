package demo

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/csfproxy/csfproxy/reports"
	"github.com/csfproxy/csfproxy/reports/pack"
)

// pack writes the evidence pack of the demonstration and verifies it as an auditor would.
func (s *show) pack(ctx context.Context) error {
	name := filepath.Join(s.estate.dir, "evidence-pack.zip")
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	written, err := s.node.WritePack(ctx, f, reports.Period{From: s.began.Add(-time.Minute), To: time.Now().Add(time.Second)}, "demo", "", nil, nil)
	if err != nil {
		return fmt.Errorf("evidence pack: %w", err)
	}
	got, err := pack.Verify(ctx, f, written.Bytes, pack.Options{Keys: []string{s.node.LogVerifierKey()}})
	if err != nil {
		return fmt.Errorf("evidence pack: %w", err)
	}
	if !got.OK() {
		return fmt.Errorf("evidence pack: %w", got.Failure)
	}
	fmt.Fprintf(s.out, "\nevidence pack of %d records, %d checks passed; not shown by it: %d things. Check it yourself:\n  csfproxy verify %s --key %q\n",
		written.Leaves, len(got.Checks), len(got.Missing), name, s.node.LogVerifierKey())
	s.summary.Files["evidence-pack.zip"] = name
	return f.Sync()
}
