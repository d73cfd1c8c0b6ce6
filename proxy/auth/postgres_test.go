package auth

import (
	"context"
	"crypto/rand"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/store/privatepg"
)

// TestPostgreSQL runs Login, Relay, ServeSCRAM and VerifierQuery against one real server.
func TestPostgreSQL(t *testing.T) {
	server := privatepg.RunForTest(t, privatepg.Options{Port: privatepg.AnyPort, HBA: []string{
		"host all cleartext 127.0.0.1/32 password",
		"host all legacy    127.0.0.1/32 md5",
		"host all open      127.0.0.1/32 trust",
		"host all all       127.0.0.1/32 scram-sha-256",
	}})
	ctx := context.Background()
	db, err := pgx.Connect(ctx, server.URL("postgres", ""))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close(ctx) })
	for _, sql := range []string{
		"CREATE ROLE app LOGIN PASSWORD 'secret'",
		"CREATE ROLE cleartext LOGIN PASSWORD 'secret'",
		"CREATE ROLE open LOGIN",
		"CREATE ROLE empty LOGIN",
		"CREATE ROLE expired LOGIN PASSWORD 'secret' VALID UNTIL '2001-01-01'",
		"CREATE ROLE forever LOGIN PASSWORD 'secret' VALID UNTIL 'infinity'",
		"CREATE ROLE future LOGIN PASSWORD 'secret' VALID UNTIL '2100-01-01'",
		"CREATE ROLE locked NOLOGIN PASSWORD 'secret'",
		`CREATE ROLE "x' OR true --" LOGIN PASSWORD 'secret'`,
		"SET password_encryption = md5",
		"CREATE ROLE legacy LOGIN PASSWORD 'secret'",
		"RESET password_encryption",
	} {
		if _, err := db.Exec(ctx, sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	s := &realServer{server.Addr(), db}
	t.Run("Login", s.login)
	t.Run("passwords", s.passwords)
	t.Run("keys", s.keys)
	t.Run("Relay", s.relay)
	t.Run("query", s.query)
}

type realServer struct {
	address string
	db      *pgx.Conn
}

func (s *realServer) login(t *testing.T) {
	for _, tt := range []struct {
		user, password string
		methods        Methods
		method         Method
		reason         csf.Reason
	}{
		{"app", "secret", Floor, SCRAMSHA256, ""},
		{"app", "wrong", Floor, 0, csf.ReasonAuthUpstream},
		{"nobody", "secret", Floor, 0, csf.ReasonAuthUpstream},
		{"expired", "secret", Floor, 0, csf.ReasonAuthUpstream},
		{"legacy", "secret", Floor, 0, csf.ReasonAuthFloor},
		{"legacy", "secret", AllMethods, MD5, ""},
		{"cleartext", "secret", Floor, 0, csf.ReasonAuthFloor},
		{"cleartext", "secret", AllMethods, Password, ""},
		{"open", "secret", Floor, 0, csf.ReasonAuthFloor},
		{"open", "secret", AllMethods, Trust, ""},
	} {
		c, err := dialServer(t, s.address, tt.user)
		if err != nil {
			t.Fatal(err)
		}
		res, err := Login(c, LoginOptions{User: tt.user, Credential: Credential{Password: tt.password}, Methods: tt.methods, Encrypted: true, Rand: rand.Reader})
		if reasonOf(err) != tt.reason || err == nil && res.Method != tt.method {
			t.Errorf("%s/%s with %s: %v %v", tt.user, tt.password, tt.methods, res.Method, err)
		}
		if err == nil {
			err = begun(c)
		}
		if tt.reason == "" && err != nil {
			t.Errorf("%s: %v", tt.user, err)
		}
	}
}

// passwords compares the preparation of passwords: the server made the verifier, we derive the keys.
func (s *realServer) passwords(t *testing.T) {
	ctx := context.Background()
	if _, err := s.db.Exec(ctx, "CREATE ROLE prepared LOGIN"); err != nil {
		t.Fatal(err)
	}
	for _, password := range []string{
		"plain", "with space", "Pässwört", "\u2168", "a\u00a0b", "I\u00adX", "a\u200bb", "a\ue000b", "a\u0221b",
		"\u0627a", "\u0627\u0628", "\u00ad", "ﬁ", "パスワード", "a\u0340b", "tab\tand\x07bell",
	} {
		if _, err := s.db.Exec(ctx, "ALTER ROLE prepared PASSWORD "+quote(password)); err != nil {
			t.Fatalf("%q: %v", password, err)
		}
		c, err := dialServer(t, s.address, "prepared")
		if err != nil {
			t.Fatal(err)
		}
		_, err = Login(c, LoginOptions{User: "prepared", Credential: Credential{Password: password}, Methods: Floor, Rand: rand.Reader})
		if err != nil {
			t.Errorf("%q: %v", password, err)
		}
		var stored string
		if err := s.db.QueryRow(ctx, "SELECT rolpassword FROM pg_authid WHERE rolname = 'prepared'").Scan(&stored); err != nil {
			t.Fatal(err)
		}
		v, err := ParseVerifier(stored)
		if err != nil {
			t.Fatal(err)
		}
		if ours, err := NewVerifier(password, v.Salt, v.Iterations); err != nil || ours.Format() != stored {
			t.Errorf("%q: our verifier is not the server's (%v)", password, err)
		}
	}
}

func quote(s string) string {
	out := "'"
	for _, r := range s {
		if r == '\'' {
			out += "'"
		}
		out += string(r)
	}
	return out + "'"
}

// keys is the way of scram-keys: a client of pgx proves its password to us, and the keys in its proof log in.
func (s *realServer) keys(t *testing.T) {
	q := NewVerifierQuery(s.db, 0, time.Now)
	config := fakeServer(t, func(c *streamConn, user string) error {
		v, err := q.Verifier(context.Background(), user)
		if err != nil {
			v = MockVerifier([]byte("node"), user, DefaultIterations)
		}
		res, err := ServeSCRAM(c, v, ServerOptions{Rand: rand.Reader})
		if err != nil {
			return err
		}
		up, err := dialServer(t, s.address, user)
		if err != nil {
			return err
		}
		_, err = Login(up, LoginOptions{User: user, Credential: Credential{ClientKey: res.ClientKey, ServerKey: res.ServerKey}, Methods: Floor, Rand: rand.Reader})
		if err != nil {
			return err
		}
		return begun(up)
	})
	for _, tt := range []struct{ user, password, sqlstate string }{
		{"app", "secret", ""}, {"app", "wrong", "28P01"}, {"nobody", "secret", "28P01"}, {"expired", "secret", "28P01"},
		{"empty", "secret", "28P01"}, {"legacy", "secret", "28P01"}, {"locked", "secret", "28000"}, {"locked", "wrong", "28P01"},
	} {
		err := tryLogin(t, config, tt.user, tt.password)
		if code := sqlstateOf(err); code != tt.sqlstate || code == "" && err != nil {
			t.Errorf("%s/%s: %v", tt.user, tt.password, err)
		}
	}
}

func sqlstateOf(err error) string {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// relay is the way of passthrough: pgx's client and the real server, with us between.
func (s *realServer) relay(t *testing.T) {
	for _, tt := range []struct {
		user, password string
		methods        Methods
		sqlstate       string
		reason         csf.Reason
	}{
		{"app", "secret", Floor, "", ""},
		{"app", "wrong", Floor, "28P01", csf.ReasonPassword},
		{"nobody", "secret", Floor, "28P01", csf.ReasonPassword},
		{"expired", "secret", Floor, "28P01", csf.ReasonPassword},
		{"legacy", "secret", Floor, "28000", csf.ReasonAuthFloor},
		{"legacy", "secret", AllMethods, "", ""},
		{"legacy", "wrong", AllMethods, "28P01", csf.ReasonPassword},
		{"cleartext", "secret", Floor, "28000", csf.ReasonAuthFloor},
		{"cleartext", "secret", AllMethods, "", ""},
		{"open", "", Floor, "28000", csf.ReasonAuthFloor},
		{"open", "", AllMethods, "", ""},
	} {
		seen := make(chan error, 1)
		config := fakeServer(t, func(c *streamConn, user string) error {
			up, err := dialServer(t, s.address, user)
			if err == nil {
				_, err = Relay(c, up, RelayOptions{Methods: tt.methods, ClientEncrypted: true, UpstreamEncrypted: true})
			}
			if err == nil {
				err = begun(up)
			}
			seen <- err
			return err
		})
		err := tryLogin(t, config, tt.user, tt.password)
		if code := sqlstateOf(err); code != tt.sqlstate || code == "" && err != nil {
			t.Errorf("%s/%s with %s: %v", tt.user, tt.password, tt.methods, err)
		}
		if r := reasonOf(<-seen); r != tt.reason {
			t.Errorf("%s/%s with %s: reason %q, want %q", tt.user, tt.password, tt.methods, r, tt.reason)
		}
	}
}

func (s *realServer) query(t *testing.T) {
	ctx := context.Background()
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	q := NewVerifierQuery(s.db, time.Minute, func() time.Time { return now })
	for _, tt := range []struct {
		user string
		err  error
	}{
		{"app", nil}, {"forever", nil}, {"future", nil}, {"locked", nil}, {"x' OR true --", nil},
		{"expired", ErrPasswordExpired}, {"empty", ErrNoVerifier}, {"legacy", ErrNoVerifier}, {"nobody", ErrNoVerifier},
		{"' OR true --", ErrNoVerifier}, {"", ErrNoVerifier}, {"app\x00", ErrNoVerifier},
	} {
		v, err := q.Verifier(ctx, tt.user)
		if !errors.Is(err, tt.err) || (err == nil) != (tt.err == nil) || err == nil && (!v.usable() || v.NoLogin != (tt.user == "locked")) {
			t.Errorf("%q: %v %v", tt.user, v, err)
		}
	}
	old, _ := q.Verifier(ctx, "app")
	if _, err := s.db.Exec(ctx, "ALTER ROLE app PASSWORD 'changed'"); err != nil {
		t.Fatal(err)
	}
	same := func() bool {
		v, err := q.Verifier(ctx, "app")
		if err != nil {
			t.Fatal(err)
		}
		return v.Format() == old.Format()
	}
	if !same() {
		t.Error("the cache does not hold")
	}
	q.Forget("app")
	if same() {
		t.Error("Forget does not forget")
	}
	old, _ = q.Verifier(ctx, "app")
	if _, err := s.db.Exec(ctx, "ALTER ROLE app PASSWORD 'secret'"); err != nil {
		t.Fatal(err)
	}
	now = now.Add(time.Minute)
	if same() {
		t.Error("the cache outlives its time")
	}
	if _, err := s.db.Exec(ctx, "DROP ROLE future"); err != nil {
		t.Fatal(err)
	}
	now = now.Add(time.Minute)
	if _, err := q.Verifier(ctx, "future"); !errors.Is(err, ErrNoVerifier) {
		t.Errorf("a dropped role: %v", err)
	}
}
