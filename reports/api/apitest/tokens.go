package apitest

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/csfproxy/csfproxy/reports/api"
)

// Guard makes a register with a token for each role, and the guard over it that records into the estate and logs to
// log.
func Guard(t testing.TB, e *Estate, now func() time.Time, log *slog.Logger) (*api.Guard, map[api.Role]string) {
	t.Helper()
	files, err := api.GenerateTokens(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	tokens, err := api.LoadTokens(files.Register)
	if err != nil {
		t.Fatal(err)
	}
	plain := map[api.Role]string{}
	for role, file := range files.Plain {
		text, err := os.ReadFile(filepath.Clean(file))
		if err != nil {
			t.Fatal(err)
		}
		plain[role] = strings.TrimSpace(string(text))
	}
	return api.NewGuard(tokens, e, now, log), plain
}
