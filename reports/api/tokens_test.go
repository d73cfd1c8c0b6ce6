package api_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/reports/api"
	"github.com/csfproxy/csfproxy/reports/api/apitest"
)

func TestTokenFiles(t *testing.T) {
	const long = "0123456789abcdef0123456789abcdef"
	hash := sha256.Sum256([]byte("a-hashed-token"))
	hashed := "sha256:" + hex.EncodeToString(hash[:])
	for _, tt := range []struct {
		name, text string
		mode       os.FileMode
		want       string // of the error, after the file's name
	}{
		{"all forms", "# people\n\nadmin ann " + long + "\n operator  o.p@x  short-token-1 \nauditor joe " + hashed + "\n", 0o600, ""},
		{"hashes for all to read", "auditor joe " + hashed + "\n", 0o644, ""},
		{"a plain token for the group to read", "auditor joe " + long + "\n", 0o640, ":1: api.tokens: a token in plain form needs a file that only its owner can read"},
		{"a file for the group to write", "auditor joe " + hashed + "\n", 0o660, ":1: api.tokens: others may write"},
		{"two words", "auditor " + long + "\n", 0o600, ":1: api.tokens: want three words"},
		{"four words", "auditor joe " + long + " x\n", 0o600, ":1: api.tokens: want three words"},
		{"an unknown role", "\nroot joe " + long + "\n", 0o600, ":2: api.tokens: unknown role"},
		{"an odd name", "auditor <joe> " + long + "\n", 0o600, ":1: api.tokens: the name"},
		{"a short token", "auditor joe short\n", 0o600, ":1: api.tokens: a token has between"},
		{"a cut hash", "auditor joe " + hashed[:40] + "\n", 0o600, ":1: api.tokens: after sha256:"},
		{"the same token twice", "auditor joe " + long + "\nadmin ann " + long + "\n", 0o600, ":2: api.tokens: the token of line 1 again"},
		{"the same token hashed", "auditor joe a-hashed-token\nadmin ann " + hashed + "\n", 0o600, ":2: api.tokens: the token of line 1 again"},
		{"nothing", "# nobody\n", 0o600, ":1: api.tokens: no token"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "tokens")
			write(t, file, tt.text, tt.mode)
			tokens, err := api.LoadTokens(file)
			if tt.want != "" {
				if err == nil || !strings.HasPrefix(err.Error(), file+tt.want) {
					t.Fatalf("got %v, want %s", err, tt.want)
				}
				if strings.Contains(err.Error(), long) || strings.Contains(err.Error(), "a-hashed-token") {
					t.Errorf("the error has a token: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			p, strong, ok := tokens.Lookup("a-hashed-token")
			if !ok || !strong || p != (api.Person{Name: "joe", Role: api.RoleAuditor}) {
				t.Errorf("%v, %v, %v", p, strong, ok)
			}
			for _, wrong := range []string{"", "a-hashed-toke", "a-hashed-token ", hashed, strings.Repeat("x", 1000)} {
				if p, _, ok := tokens.Lookup(wrong); ok {
					t.Errorf("%q is the token of %v", wrong, p)
				}
			}
		})
	}
	if _, err := api.LoadTokens(filepath.Join(t.TempDir(), "none")); err == nil || !strings.Contains(err.Error(), "api.tokens") {
		t.Errorf("no file: %v", err)
	}
}

func write(t *testing.T, file, text string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(file, mode); err != nil {
		t.Fatal(err)
	}
}

func TestReloadKeepsWhatIsInForceOnAnError(t *testing.T) {
	file := filepath.Join(t.TempDir(), "tokens")
	write(t, file, "auditor joe the-first-token\n", 0o600)
	tokens, err := api.LoadTokens(file)
	if err != nil {
		t.Fatal(err)
	}
	write(t, file, "nonsense\n", 0o600)
	if err := tokens.Reload(); err == nil {
		t.Error("nonsense was taken")
	}
	if _, _, ok := tokens.Lookup("the-first-token"); !ok {
		t.Error("a failed reload took the tokens away")
	}
	write(t, file, "auditor joe the-second-token\n", 0o600)
	if err := tokens.Reload(); err != nil {
		t.Fatal(err)
	}
	if _, _, ok := tokens.Lookup("the-first-token"); ok {
		t.Error("a token that left the file still counts")
	}
}

func TestGenerateTokens(t *testing.T) {
	dir := t.TempDir()
	files, err := api.GenerateTokens(dir)
	if err != nil || !files.Made {
		t.Fatalf("%+v, %v", files, err)
	}
	register, err := os.ReadFile(files.Register)
	if err != nil {
		t.Fatal(err)
	}
	tokens, err := api.LoadTokens(files.Register)
	if err != nil {
		t.Fatal(err)
	}
	plain := map[string]bool{}
	for _, role := range api.Roles() {
		text, err := os.ReadFile(files.Plain[role])
		if err != nil {
			t.Fatal(err)
		}
		token := strings.TrimSpace(string(text))
		if p, strong, ok := tokens.Lookup(token); !ok || !strong || p.Role != role || len(token) < 40 || plain[token] {
			t.Errorf("%s: %v %v, %d bytes", role, p, ok, len(token))
		}
		plain[token] = true
		if strings.Contains(string(register), token) {
			t.Errorf("%s: the register has the token", role)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if info, err := e.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v, %v", e.Name(), info.Mode(), err)
		}
	}
	if len(entries) != 5 {
		t.Errorf("%d files", len(entries))
	}
	again, err := api.GenerateTokens(dir)
	if after, _ := os.ReadFile(files.Register); err != nil || again.Made || string(after) != string(register) {
		t.Errorf("a second call: %+v, %v", again, err)
	}
	if _, err := api.GenerateTokens(filepath.Join(dir, "none")); err == nil {
		t.Error("made tokens in a directory that is not there")
	}
}

func TestWrongTokensAreLimited(t *testing.T) {
	file := filepath.Join(t.TempDir(), "tokens")
	const strong, weak = "0123456789abcdef0123456789abcdef", "guess-me-please"
	write(t, file, "admin strong "+strong+"\nadmin weak "+weak+"\n", 0o600)
	tokens, err := api.LoadTokens(file)
	if err != nil {
		t.Fatal(err)
	}
	now, estate := apitest.Now(), apitest.New()
	guard := api.NewGuard(tokens, estate, func() time.Time { return now }, nil)
	s, err := api.New(api.Options{Services: estate.Services(), Guard: guard})
	if err != nil {
		t.Fatal(err)
	}
	ask := func(from, token string) int {
		r := httptest.NewRequest("GET", "/v1/version", nil)
		r.RemoteAddr = from + ":1234"
		r.Header.Set("Authorization", "Bearer "+token)
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		if w.Code == 429 && w.Header().Get("Retry-After") == "" {
			t.Error("429 without Retry-After")
		}
		return w.Code
	}
	counts := map[int]int{}
	for i := range 100 {
		counts[ask("203.0.113.9", fmt.Sprintf("wrong-%d", i))]++
	}
	if counts[401] != 20 || counts[429] != 80 {
		t.Errorf("answers: %v", counts)
	}
	events := estate.Recorded()
	if len(events) != 21 || events[20].Kind != csf.AdminDenied || events[20].Facts["detail"] != "rate" {
		t.Errorf("%d events for 100 wrong tokens, the last %v", len(events), events[len(events)-1])
	}
	for _, tt := range []struct {
		what, from, token string
		status            int
	}{
		{"a token that cannot be guessed", "203.0.113.9", strong, 200}, {"one that can", "203.0.113.9", weak, 429}, {"the same from elsewhere", "203.0.113.10", weak, 200},
		{"an IPv4-mapped form of the address", "[::ffff:203.0.113.9]", weak, 429},
	} {
		if got := ask(tt.from, tt.token); got != tt.status {
			t.Errorf("%s: %d", tt.what, got)
		}
	}
	now = now.Add(time.Hour)
	if got := ask("203.0.113.9", weak); got != 200 {
		t.Errorf("an hour later: %d", got)
	}
}

func TestRoles(t *testing.T) {
	for _, tt := range []struct {
		role api.Role
		may  string // auditor, operator, approver, admin
	}{{api.RoleAuditor, "y---"}, {api.RoleOperator, "yy--"}, {api.RoleApprover, "y-y-"}, {api.RoleAdmin, "yyyy"}, {"", "----"}, {"root", "----"}} {
		for i, need := range api.Roles() {
			if got := tt.role.May(need); got != (tt.may[i] == 'y') {
				t.Errorf("%q may %s: %v", tt.role, need, got)
			}
		}
		if !tt.role.May(api.Open) {
			t.Errorf("%q may not use an open route", tt.role)
		}
	}
}
