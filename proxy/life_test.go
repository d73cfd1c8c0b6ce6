package proxy_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/internal/config"
	"github.com/csfproxy/csfproxy/proxy"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// connect opens a session through the ingress.
func (in *ingress) connect(user, sslmode string) *pgx.Conn {
	in.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	c, err := pgx.Connect(ctx, in.url(user, sslmode))
	if err != nil {
		in.t.Fatalf("connect: %v; events %v", err, in.log.kinds())
	}
	in.t.Cleanup(func() { c.Close(context.Background()) })
	return c
}

func sqlState(err error) string {
	if pe, ok := errors.AsType[*pgconn.PgError](err); ok {
		return pe.Code
	}
	return fmt.Sprint(err)
}

func TestSessionFromAcceptToEnd(t *testing.T) {
	for _, sslmode := range []string{"disable", "verify-full"} {
		t.Run(sslmode, func(t *testing.T) {
			in := start(t, nil)
			ctx := context.Background()
			c := in.connect("app", sslmode)
			var who string
			var n int
			if err := c.QueryRow(ctx, "SELECT current_user, $1::int + 1", 41).Scan(&who, &n); err != nil || who != "app" || n != 42 {
				t.Fatalf("got %q %d, %v", who, n, err)
			}
			if v := in.srv.Sessions(); len(v) != 1 || v[0].Identity != "app" || v[0].Database != "app" {
				t.Fatalf("live sessions: %+v", v)
			}
			c.Close(ctx)
			end := in.waitFor(csf.SessionClosed, csf.ReasonClientTerminate)
			bound := in.waitFor(csf.SessionBound, "")
			if bound.Identity != "app" || bound.Facts["tls"] != (sslmode != "disable") || bound.Facts["upstream_tls"] != true || bound.Facts["method"] != "scram-sha-256" {
				t.Errorf("session.bound: %+v", bound)
			}
			if end.Session != bound.Session || end.Facts["statements"].(int64) < 1 || end.Facts["bytes_in"].(int64) == 0 {
				t.Errorf("session.closed: %+v", end)
			}
			if got := in.srv.Counters().Accepted.Load(); got != 1 {
				t.Errorf("accepted %d", got)
			}
		})
	}
}

func TestRefusedStatementLeavesTheTransactionAsAnErrorWould(t *testing.T) {
	in := start(t, nil)
	ctx := context.Background()
	c := in.connect("app", "verify-full")
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec, pgx.QueryExecModeCacheStatement} {
		if _, err := c.Exec(ctx, "SELECT 'forbidden'", mode); sqlState(err) != "42501" {
			t.Fatalf("mode %v: %v", mode, err)
		}
		if st := c.PgConn().TxStatus(); st != 'I' {
			t.Fatalf("mode %v: status %c outside a transaction", mode, st)
		}
		if _, err := c.Exec(ctx, "BEGIN", pgx.QueryExecModeSimpleProtocol); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Exec(ctx, "SELECT 'forbidden'", mode); sqlState(err) != "42501" {
			t.Fatalf("mode %v in a transaction: %v", mode, err)
		}
		if st := c.PgConn().TxStatus(); st != 'E' {
			t.Fatalf("mode %v: status %c inside a transaction", mode, st)
		}
		if _, err := c.Exec(ctx, "SELECT 1", mode); sqlState(err) != "25P02" {
			t.Fatalf("mode %v: after a refusal in a transaction: %v", mode, err)
		}
		if _, err := c.Exec(ctx, "ROLLBACK", pgx.QueryExecModeSimpleProtocol); err != nil {
			t.Fatal(err)
		}
	}
	if e := in.waitFor(csf.QueryBlocked, csf.ReasonRule); e.Facts["rule"] != "test-rule" {
		t.Errorf("%+v", e)
	}
	if _, err := c.Exec(ctx, "SELECT 'poison'", pgx.QueryExecModeSimpleProtocol); sqlState(err) != "42501" {
		t.Errorf("terminate: %v", err)
	}
}

func TestRefusals(t *testing.T) {
	expired := identity("gone", "gone")
	expired.Expires = config.Date{Time: time.Now().Add(-time.Second)}
	other := identity("elsewhere", "elsewhere")
	other.Match.Databases = []string{"postgres"}
	in := start(t, func(c *config.Config) {
		c.Listeners[0].TLS.Mode = "require"
		pass := identity("trusted", "trusted_user")
		pass.Auth = config.Auth{Methods: []string{"scram-sha-256"}, Upstream: "passthrough"}
		clear := identity("clear", "clear_user")
		clear.Auth = pass.Auth
		md5 := identity("md5", "md5_user")
		md5.Auth = pass.Auth
		c.Identities = append(c.Identities, expired, other, pass, clear, md5)
	})
	for _, tt := range []struct {
		user, sslmode, password string
		code                    string
		kind                    csf.Kind
		reason                  csf.Reason
	}{
		{"app", "disable", "", "28000", csf.TLSPlaintextRefused, csf.ReasonPlaintext},
		{"nobody", "verify-full", "", "28P01", csf.AuthzDenied, csf.ReasonIdentityUnknown},
		{"gone", "verify-full", "", "28P01", csf.AuthzDenied, csf.ReasonIdentityExpired},
		{"elsewhere", "verify-full", "", "28P01", csf.AuthzDenied, csf.ReasonIdentityDatabase},
		{"app", "verify-full", "wrong", "28P01", csf.AuthFailed, csf.ReasonPassword},
		{"trusted_user", "verify-full", "", "28000", csf.AuthDowngrade, csf.ReasonAuthFloor},
		{"clear_user", "verify-full", "", "28000", csf.AuthDowngrade, csf.ReasonAuthFloor},
		{"md5_user", "verify-full", "", "28000", csf.AuthDowngrade, csf.ReasonAuthFloor},
	} {
		t.Run(string(tt.reason)+"/"+tt.user, func(t *testing.T) {
			in.log.mu.Lock()
			in.log.list = nil
			in.log.mu.Unlock()
			in.t = t
			url := in.url(tt.user, tt.sslmode)
			if tt.password != "" {
				url = strings.Replace(url, "correct%20horse%20battery%20staple", tt.password, 1)
			}
			_, err := pgx.Connect(context.Background(), url)
			if sqlState(err) != tt.code {
				t.Errorf("client saw %v, want %s", err, tt.code)
			}
			in.waitFor(tt.kind, tt.reason)
		})
	}
}

// TestStates: what a session does is named as pg_stat_activity names it, and how both legs are protected.
func TestStates(t *testing.T) {
	in := start(t, nil)
	conn := in.connect("app", "verify-full")
	state := func() string {
		t.Helper()
		all := in.srv.Sessions()
		if len(all) != 1 {
			t.Fatalf("%d sessions", len(all))
		}
		if all[0].TLS != "TLS 1.3" || all[0].UpstreamTLS != "TLS 1.3" {
			t.Errorf("legs: %q and %q", all[0].TLS, all[0].UpstreamTLS)
		}
		return all[0].State
	}
	for _, step := range [][2]string{{"SELECT 1", "idle"}, {"BEGIN", "idle in transaction"}, {"SELECT nothing", "idle in transaction (aborted)"}, {"ROLLBACK", "idle"}} {
		conn.Exec(t.Context(), step[0])
		if got := state(); got != step[1] {
			t.Errorf("after %s: %s, want %s", step[0], got, step[1])
		}
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		conn.Exec(t.Context(), "SELECT pg_sleep(30)")
	}()
	for deadline := time.Now().Add(20 * time.Second); state() != "active"; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a statement that runs is not seen")
		}
	}
	in.srv.End(func(proxy.View) bool { return true }, csf.ReasonKilled, "test")
	<-ended
}
