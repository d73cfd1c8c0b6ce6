package proxy_test

import (
	"context"
	"testing"

	"github.com/csfproxy/csfproxy/internal/config"
	"github.com/csfproxy/csfproxy/store"
	"github.com/jackc/pgx/v5"
)

// TestStatementsWaitForTheirRecord runs a session with audit.durability sync: each statement that ran has a record from
// before it was forwarded, and one whose record cannot be made does not reach the database.
func TestStatementsWaitForTheirRecord(t *testing.T) {
	in := start(t, func(c *config.Config) { c.Audit.Durability = "sync" })
	ctx := context.Background()
	c, err := pgx.Connect(ctx, in.url("app", "disable"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(ctx)
	run := func(sql string, args ...any) {
		t.Helper()
		if _, err := c.Exec(ctx, sql, args...); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	run("DROP TABLE IF EXISTS waits")
	run("CREATE TABLE waits (n int)")
	for i := range 5 {
		run("INSERT INTO waits VALUES ($1)", i)
	}
	batch := &pgx.Batch{}
	for i := range 5 {
		batch.Queue("INSERT INTO waits VALUES ($1)", 10+i)
	}
	if err := c.SendBatch(ctx, batch).Close(); err != nil {
		t.Fatal(err)
	}
	in.log.mu.Lock()
	begun, ended := len(in.log.begun), len(in.log.stmts)
	for _, r := range in.log.begun {
		if r.Outcome != store.OutcomeBegun || r.Start == 0 {
			t.Errorf("a record before the statement is %+v", r)
		}
	}
	in.log.full = true
	in.log.mu.Unlock()
	if begun != 12 || ended != 12 {
		t.Errorf("%d records before and %d after 12 statements", begun, ended)
	}
	if _, err := c.Exec(ctx, "INSERT INTO waits VALUES (99)"); err == nil {
		t.Error("a statement ran whose record could not be made")
	}
	d, err := pgx.Connect(ctx, database.URL("app", ""))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close(ctx)
	var n, lost int
	if err := d.QueryRow(ctx, "SELECT count(*), count(*) FILTER (WHERE n = 99) FROM waits").Scan(&n, &lost); err != nil || n != 10 || lost != 0 {
		t.Errorf("the table has %d rows, %d of them without a record, %v", n, lost, err)
	}
}
