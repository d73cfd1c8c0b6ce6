package app

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/proxy/wire"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// try logs in with names and a password that no connection string could hold, and gives the code of the refusal.
func (n *node) try(user, database, secret string, edit func(*pgconn.Config)) string {
	n.t.Helper()
	cfg, err := pgconn.ParseConfig(url(n.addr, "app", "app"))
	if err != nil {
		n.t.Fatal(err)
	}
	cfg.User, cfg.Database, cfg.Password = user, database, secret
	if edit != nil {
		edit(cfg)
	}
	ctx, cancel := context.WithTimeout(n.t.Context(), 20*time.Second)
	defer cancel()
	c, err := pgconn.ConnectConfig(ctx, cfg)
	if err == nil {
		c.Close(ctx)
		return "in"
	}
	if code := sqlState(err); code != "" {
		return code
	}
	return err.Error()
}

// role makes a role for the test.
func role(t *testing.T, name, attributes string) {
	t.Helper()
	admin(t, "postgres", "CREATE ROLE "+name+" "+attributes)
	t.Cleanup(func() { admin(t, "postgres", "DROP ROLE IF EXISTS "+name) })
}

// TestChangedRolesCountAtOnce: a password that was changed, a role that was dropped and a right that was revoked no longer
// let in, though the ingress keeps verifiers for a time: the server behind has the last word (AU-43).
func TestChangedRolesCountAtOnce(t *testing.T) {
	role(t, "fleeting", "LOGIN PASSWORD 'first'")
	database := createDatabase(t, "fleeting")
	admin(t, "postgres", "REVOKE CONNECT ON DATABASE fleeting FROM PUBLIC", "GRANT CONNECT ON DATABASE fleeting TO fleeting")
	n := startNode(t, setup{Identities: []string{row("fleeting")}})
	in := func(secret string) string { return n.try("fleeting", database, secret, nil) }
	if got := in("first"); got != "in" {
		t.Fatal(got)
	}
	admin(t, "postgres", "ALTER ROLE fleeting PASSWORD 'second'")
	if got := in("first"); got != "28P01" {
		t.Errorf("the old password: %s", got)
	}
	if got := in("second"); got != "in" { // the refusal before made the ingress forget what it had read
		t.Errorf("the new password: %s", got)
	}
	admin(t, "postgres", "REVOKE CONNECT ON DATABASE fleeting FROM fleeting")
	if got := in("second"); got != "42501" {
		t.Errorf("without CONNECT: %s", got)
	}
	admin(t, "postgres", "DROP ROLE fleeting")
	if got := in("second"); !strings.HasPrefix(got, "28") {
		t.Errorf("a role that is dropped: %s", got)
	}
}

// TestRolesThatMayNotLogIn: NOLOGIN, no password and no connection left are refused with PostgreSQL's own codes (AU-28).
func TestRolesThatMayNotLogIn(t *testing.T) {
	role(t, "nologin", "NOLOGIN PASSWORD '"+password+"'")
	role(t, "nosecret", "LOGIN")
	role(t, "nobodymore", "LOGIN CONNECTION LIMIT 0 PASSWORD '"+password+"'")
	n := startNode(t, setup{Identities: []string{row("nologin"), row("nosecret"), row("nobodymore")}})
	for user, want := range map[string]string{"nologin": "28000", "nosecret": "28P01", "nobodymore": "53300"} {
		if got := n.try(user, "app", password, nil); got != want {
			t.Errorf("%s: %s, want %s", user, got, want)
		}
	}
}

// TestNamesAreNoConnectionStrings: user and database names that look like SQL or like connection strings lead to the
// configured member and to nothing else (AU-42).
func TestNamesAreNoConnectionStrings(t *testing.T) {
	away, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer away.Close()
	go func() {
		for {
			c, err := away.Accept()
			if err != nil {
				return
			}
			t.Errorf("somebody came from %s", c.RemoteAddr())
			c.Close()
		}
	}()
	_, other, _ := net.SplitHostPort(away.Addr().String())
	n := startNode(t, setup{})
	for _, database := range []string{"d host=127.0.0.1 port=" + other + " sslmode=disable", "postgres://app@" + away.Addr().String() + "/app", "app' host='127.0.0.1", "app?host=127.0.0.1&port=" + other, "app;DROP DATABASE app"} {
		if got := n.try("app", database, password, nil); got != "3D000" {
			t.Errorf("database %q: %s", database, got)
		}
	}
	for _, user := range []string{"x' UNION SELECT rolpassword FROM pg_authid --", "app' --", "app\" OR true", "app host=127.0.0.1 port=" + other, "app@" + away.Addr().String()} {
		if got := n.try(user, "app", password, nil); got != "28P01" {
			t.Errorf("user %q: %s", user, got)
		}
	}
	for _, e := range n.Recent(n.began) {
		if e.Upstream != "" && e.Upstream != world.db.Addr() {
			t.Errorf("%s names the member %s", e.Kind, e.Upstream)
		}
	}
}

// TestVerifiersAreReadOnTheNodesOwnSession: nothing that a client says at its start reaches the session that reads its
// verifier (AU-40).
func TestVerifiersAreReadOnTheNodesOwnSession(t *testing.T) {
	n := startNode(t, setup{})
	evil := func(c *pgconn.Config) {
		c.RuntimeParams = map[string]string{"application_name": "evil", "client_encoding": "LATIN1", "datestyle": "German", "timezone": "Asia/Tokyo", "statement_timeout": "77"}
	}
	if got := n.try("app", "app", password, evil); got != "in" {
		t.Fatal(got)
	}
	for name, value := range map[string]string{"search_path": "evil", "role": "postgres", "options": "-c search_path=evil"} {
		if got := n.try("app", "app", password, func(c *pgconn.Config) { c.RuntimeParams[name] = value }); got != "42501" {
			t.Errorf("%s: %s", name, got)
		}
	}
	ctx := context.WithoutCancel(t.Context())
	c, err := pgx.Connect(ctx, world.db.URL("postgres", ""))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(ctx)
	rows, err := c.Query(ctx, "SELECT application_name FROM pg_stat_activity WHERE usename = 'ingress_auth'")
	if err != nil {
		t.Fatal(err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(names) == 0 {
		t.Fatalf("no session reads verifiers: %v", err)
	}
	for _, name := range names {
		if name != "csfproxy verifier" {
			t.Errorf("a session that reads verifiers calls itself %q", name)
		}
	}
	// The settings of that session, seen from inside: by a session of the same pool.
	source, ok := n.verifiers.source("main")
	if !ok {
		t.Fatal("no query_user")
	}
	own, err := source.pool.Acquire(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer own.Release()
	var settings string
	if err := own.QueryRow(ctx, "SELECT concat_ws('|', current_setting('client_encoding'), current_setting('timezone'), current_setting('datestyle'), current_setting('statement_timeout'), current_setting('search_path'))").Scan(&settings); err != nil {
		t.Fatal(err)
	}
	for _, evil := range []string{"LATIN1", "Tokyo", "German", "77", "evil"} {
		if strings.Contains(settings, evil) {
			t.Errorf("the settings are %s", settings)
		}
	}
}

// TestSaltOfStrangersSurvivesARestart: the salt that a user whom nobody knows is shown is the same on each connection and
// after a restart: another one would tell that the user does not exist (AU-25).
func TestSaltOfStrangersSurvivesARestart(t *testing.T) {
	s := setup{Dir: t.TempDir()}
	first := startNode(t, s)
	a, b := first.salt("nobody"), first.salt("nobody")
	first.stop()
	second := startNode(t, s)
	if c := second.salt("nobody"); a != b || b != c || a == second.salt("nobody2") {
		t.Errorf("%s and %s, after the restart %s", a, b, c)
	}
}

// salt gives the salt that a user is shown.
func (n *node) salt(user string) string {
	n.t.Helper()
	raw, err := net.Dial("tcp", n.addr)
	if err != nil {
		n.t.Fatal(err)
	}
	defer raw.Close()
	raw.SetDeadline(time.Now().Add(30 * time.Second))
	raw.Write(sslRequest)
	if _, err := io.ReadFull(raw, make([]byte, 1)); err != nil {
		n.t.Fatal(err)
	}
	c := tls.Client(raw, clientTLS())
	start, err := wire.AppendStartupMessage(nil, wire.Version30, []wire.Parameter{{Name: "user", Value: user}, {Name: "database", Value: "app"}})
	if err != nil {
		n.t.Fatal(err)
	}
	c.Write(start)
	if _, _, err := wire.ReadFrame(c, wire.Backend, nil, 1<<16); err != nil {
		n.t.Fatal(err)
	}
	answer, err := wire.AppendSASLInitialResponse(nil, "SCRAM-SHA-256", []byte("n,,n=,r=abcdefghijklmnopqrstuvwx"))
	if err != nil {
		n.t.Fatal(err)
	}
	c.Write(answer)
	typ, body, err := wire.ReadFrame(c, wire.Backend, nil, 1<<16)
	_, rest, ok := strings.Cut(string(body), ",s=")
	if err != nil || typ != 'R' || !ok {
		n.t.Fatalf("%c %q %v", typ, body, err)
	}
	salt, _, _ := strings.Cut(rest, ",")
	return salt
}

// TestBruteForce: who guesses at twenty passwords a second is shut out, and who is guessed at from fifty addresses is not:
// every refusal has the same code, and the user himself comes in all the while (AU-39).
func TestBruteForce(t *testing.T) {
	n := startNode(t, setup{Proxy: source("127.0.0.1/32", tomorrow())})
	behind := func(client, secret string) string {
		return n.try("app", "app", secret, func(c *pgconn.Config) {
			c.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
				conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
				if err == nil {
					_, err = conn.Write(version1(client))
				}
				return conn, err
			}
		})
	}
	refused := 0
	for refused < 200 {
		got := behind("203.0.113.66", "wrong")
		if got != "28P01" { // shut out
			break
		}
		refused++
	}
	n.waitFor(csf.ContainmentApplied, nil)
	if refused < 25 || refused == 200 {
		t.Errorf("%d guesses were answered", refused)
	}
	if got := behind("203.0.113.66", password); got == "in" || got == "28P01" {
		t.Errorf("with the right password from the address that is shut out: %s", got)
	}
	for i := range 50 {
		if got := behind(fmt.Sprintf("203.0.113.%d", 100+i), "wrong"); got != "28P01" {
			t.Fatalf("address %d: %s", i, got)
		}
		if i%10 == 9 {
			if got := behind("203.0.113.7", password); got != "in" {
				t.Fatalf("the user, after %d guesses: %s", i+1, got)
			}
		}
	}
	n.waitFor(csf.FindingOpened, func(e csf.Event) bool { return strings.Contains(fmt.Sprint(e.Facts), "app") })
}
