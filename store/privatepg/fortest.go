package privatepg

import (
	"context"
	"errors"
	"os"
)

// TB is the part of testing.TB that RunForTest uses, so that the programs do not link package testing.
type TB interface {
	Helper()
	Fatalf(format string, args ...any)
	Errorf(format string, args ...any)
	Cleanup(func())
	Context() context.Context
}

// RunForTest starts a server for one test and ends it with the test. Without opts.Dir it gets a temporary one, which
// is removed.
func RunForTest(t TB, opts Options) *Server {
	t.Helper()
	s, stop, err := StartForTests(t.Context(), opts)
	if err != nil {
		t.Fatalf("start PostgreSQL: %v", err)
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("stop PostgreSQL: %v", err)
		}
	})
	return s
}

// StartForTests starts a server for all tests of a package, from TestMain; stop ends it at once and removes its
// directory if opts.Dir was empty. Unsafe is always set.
func StartForTests(ctx context.Context, opts Options) (s *Server, stop func() error, err error) {
	remove := func() error { return nil }
	if opts.Dir == "" {
		if opts.Dir, err = os.MkdirTemp("", "pg"); err != nil {
			return nil, nil, err
		}
		dir := opts.Dir
		remove = func() error { return os.RemoveAll(dir) }
	}
	opts.Unsafe = true
	s, err = Start(ctx, opts)
	if err != nil {
		return nil, nil, errors.Join(err, remove())
	}
	return s, func() error {
		return errors.Join(s.Stop(context.WithoutCancel(ctx), Immediate), remove())
	}, nil
}
