package store

import (
	"context"
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/csfproxy/csfproxy/store/privatepg"
)

// server is the PostgreSQL of this package's tests; each test has a database of its own in it.
var server *privatepg.Server

func TestMain(m *testing.M) {
	if text := os.Getenv(killChild); text != "" {
		fmt.Fprintln(os.Stderr, runVictim(text))
		os.Exit(1)
	}
	s, stop, err := privatepg.StartForTests(context.Background(), privatepg.Options{Settings: map[string]string{"shared_buffers": "32MB"}})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	server = s
	code := m.Run()
	if err := stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}
