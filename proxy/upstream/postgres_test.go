package upstream

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/csfproxy/csfproxy/store/privatepg"
)

// login logs in over a connection of the cluster's.
func login(t *testing.T, c *Cluster, user, password string) (*pgconn.PgConn, *Conn) {
	t.Helper()
	cfg, err := pgconn.ParseConfig("host=127.0.0.1 sslmode=disable")
	if err != nil {
		t.Fatal(err)
	}
	var used *Conn
	cfg.User, cfg.Password, cfg.Database, cfg.Fallbacks, cfg.TLSConfig = user, password, "postgres", nil, nil
	cfg.ChannelBinding = "require" // only a *tls.Conn can bind: what Dial gives must be usable as one
	cfg.DialFunc = func(ctx context.Context, _, _ string) (net.Conn, error) {
		conn, err := c.Dial(ctx)
		if err != nil {
			return nil, err
		}
		used = conn
		return conn.Conn, nil
	}
	conn, err := pgconn.ConnectConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return conn, used
}

// A real server: TLS verified in full, a SCRAM login that is bound to the channel, and a cancel over TLS that ends the
// statement and nothing else.
func TestRealServer(t *testing.T) {
	ca := newAuthority(t)
	_, cert, key := ca.issue(t, leaf{ips: []string{"127.0.0.1"}})
	s := privatepg.RunForTest(t, privatepg.Options{Port: privatepg.AnyPort, Unsafe: true, Password: "secret", TLSCert: cert, TLSKey: key,
		HBA: []string{"hostssl all all 127.0.0.1/32 scram-sha-256", "hostnossl all all 127.0.0.1/32 reject"}})
	c := mustNew(t, verified(ca.file, s.Addr()), Options{})
	if err := c.SetPrimary(s.Addr(), 1); err != nil {
		t.Fatal(err)
	}
	conn, used := login(t, c, "postgres", "secret")
	defer conn.Close(t.Context())
	if !c.Valid(used) || used.TLS == nil || !used.TLS.HandshakeComplete {
		t.Fatalf("got %+v", used)
	}

	wrong := make([]byte, 4)
	if err := c.Cancel(t.Context(), s.Addr(), conn.PID(), wrong); err != nil {
		t.Fatal(err) // the server does not say that the key is wrong
	}
	done := make(chan error, 1)
	go func() { _, err := conn.Exec(t.Context(), "select pg_sleep(60)").ReadAll(); done <- err }()
	for {
		if err := c.Cancel(t.Context(), s.Addr(), conn.PID(), conn.SecretKey()); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-done:
			pgErr, ok := errors.AsType[*pgconn.PgError](err)
			if !ok || pgErr.Code != "57014" {
				t.Fatalf("got %v", err)
			}
			if _, err := conn.Exec(t.Context(), "select 1").ReadAll(); err != nil {
				t.Fatal(err)
			}
			return
		case <-time.After(20 * time.Millisecond): // the cancel may have come before the statement
		}
	}
}
