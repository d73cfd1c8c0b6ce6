package app

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// TestPgx does what a Go service does, directly and through the ingress, and compares what comes back.
func TestPgx(t *testing.T) {
	n := startNode(t, setup{})
	for _, tc := range []struct {
		name string
		run  func(t *testing.T, c *pgx.Conn) (any, error)
	}{
		{"copy in and out", copyBothWays}, {"pipeline", pipeline}, {"pipeline with an error", brokenPipeline}, {"binary formats", binaryFormats},
		{"large object", largeObject}, {"64 MB bytea", bigValue}, {"thousands of parameters", manyParameters}, {"simple protocol", simpleProtocol},
		{"statement in one message", stacked},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var seen [2]any
			for i, l := range n.legs() {
				c, err := pgx.Connect(t.Context(), url(l.addr, "app", "app"))
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close(context.Background())
				if seen[i], err = tc.run(t, c); err != nil {
					t.Fatalf("%s: %v", l.name, err)
				}
			}
			if d := cmp.Diff(seen[0], seen[1]); d != "" || seen[0] == nil || reflect.ValueOf(seen[0]).IsZero() {
				t.Errorf("-direct +ingress: %s\n%v", d, seen[0])
			}
		})
	}
	for _, e := range n.Recent(n.began, csf.ProtocolViolation, csf.QueryBlocked) {
		t.Errorf("%v", e)
	}
}

func copyBothWays(t *testing.T, c *pgx.Conn) (any, error) {
	ctx := t.Context()
	if _, err := c.Exec(ctx, "CREATE TEMP TABLE copied (id bigint, name text, at timestamptz, raw bytea)"); err != nil {
		return nil, err
	}
	start := time.Date(2024, 2, 29, 12, 0, 0, 0, time.UTC)
	count, err := c.CopyFrom(ctx, pgx.Identifier{"copied"}, []string{"id", "name", "at", "raw"}, pgx.CopyFromSlice(50_000, func(i int) ([]any, error) {
		return []any{int64(i), strings.Repeat("n", i%50), start.Add(time.Duration(i) * time.Second), []byte{byte(i), 0, 255}}, nil
	}))
	if err != nil {
		return nil, err
	}
	h := sha256.New()
	tag, err := c.PgConn().CopyTo(ctx, h, "COPY (SELECT * FROM copied ORDER BY id) TO STDOUT (FORMAT binary)")
	return fmt.Sprintf("%d %s %x", count, tag, h.Sum(nil)), err
}

func pipeline(t *testing.T, c *pgx.Conn) (any, error) {
	b := &pgx.Batch{}
	const size = 3000
	for i := range size {
		b.Queue("SELECT $1::int + 1, repeat('p', $2)", i, i%200)
	}
	r := c.SendBatch(t.Context(), b)
	sum := 0
	for range size {
		var v int
		var s string
		if err := r.QueryRow().Scan(&v, &s); err != nil {
			return nil, err
		}
		sum += v + len(s)
	}
	return sum, r.Close()
}

// brokenPipeline: after an error the rest up to Sync is skipped, and the session goes on.
func brokenPipeline(t *testing.T, c *pgx.Conn) (any, error) {
	p := c.PgConn().StartPipeline(t.Context())
	var seen []string
	for i := range 6 {
		sql := "SELECT 1"
		if i == 2 {
			sql = "SELECT 1/0"
		}
		p.SendQueryParams(sql, nil, nil, nil, nil)
		if i == 3 {
			p.SendPipelineSync()
		}
	}
	if err := p.Sync(); err != nil {
		return nil, err
	}
	for {
		r, err := p.GetResults()
		if err != nil {
			seen = append(seen, sqlState(err))
			continue
		}
		switch r := r.(type) {
		case nil:
			return seen, p.Close()
		case *pgconn.ResultReader:
			tag, err := r.Close()
			seen = append(seen, fmt.Sprint(tag, sqlState(err)))
		default:
			seen = append(seen, fmt.Sprintf("%T", r))
		}
		if len(seen) > 30 {
			return seen, fmt.Errorf("no end: %v", seen)
		}
	}
}

func binaryFormats(t *testing.T, c *pgx.Conn) (any, error) {
	at := time.Date(1999, 12, 31, 23, 59, 59, 123456000, time.UTC)
	var out struct {
		I    int64
		F    float64
		S    []string
		B    []byte
		At   time.Time
		JSON map[string]any
		Nil  *string
	}
	err := c.QueryRow(t.Context(), "SELECT $1::int8, $2::float8, $3::text[], $4::bytea, $5::timestamptz, $6::jsonb, $7::text",
		int64(-1)<<62, 0.1, []string{"a", "", "\x01 ü"}, []byte{0, 1, 2, 255}, at, map[string]any{"k": []any{1.5, nil}}, nil).
		Scan(&out.I, &out.F, &out.S, &out.B, &out.At, &out.JSON, &out.Nil)
	out.At = out.At.UTC()
	return out, err
}

func largeObject(t *testing.T, c *pgx.Conn) (any, error) {
	ctx := t.Context()
	tx, err := c.Begin(ctx)
	if err != nil {
		return nil, err
	}
	defer tx.Rollback(context.Background())
	lo := tx.LargeObjects()
	oid, err := lo.Create(ctx, 0)
	if err != nil {
		return nil, err
	}
	o, err := lo.Open(ctx, oid, pgx.LargeObjectModeRead|pgx.LargeObjectModeWrite)
	if err != nil {
		return nil, err
	}
	data := random(5 << 20)
	if _, err := o.Write(data); err != nil {
		return nil, err
	}
	if _, err := o.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	back, err := io.ReadAll(o)
	if err == nil && !bytes.Equal(back, data) {
		err = fmt.Errorf("%d bytes came back other than they went", len(back))
	}
	return len(back), err
}

// random gives the same bytes each time.
func random(size int) []byte {
	b := make([]byte, size)
	rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

func bigValue(t *testing.T, c *pgx.Conn) (any, error) {
	data := random(64 << 20)
	var back []byte
	if err := c.QueryRow(t.Context(), "SELECT $1::bytea", data).Scan(&back); err != nil {
		return nil, err
	}
	return fmt.Sprint(len(back), bytes.Equal(back, data)), nil
}

func manyParameters(t *testing.T, c *pgx.Conn) (any, error) {
	const size = 5000
	var sql strings.Builder
	sql.WriteString("SELECT 0")
	args := make([]any, size)
	for i := range args {
		fmt.Fprintf(&sql, "+$%d::int8", i+1)
		args[i] = i
	}
	// Nested additions need a deep stack; an array of the parameters does not.
	text := strings.ReplaceAll(strings.Replace(sql.String(), "SELECT 0+", "SELECT sum(x) FROM unnest(ARRAY[", 1), "+", ",") + "]) x"
	if _, err := c.Prepare(t.Context(), "many", text); err != nil {
		return nil, err
	}
	var sum int64
	for range 3 {
		if err := c.QueryRow(t.Context(), "many", args...).Scan(&sum); err != nil {
			return nil, err
		}
	}
	return sum, nil
}

func simpleProtocol(t *testing.T, c *pgx.Conn) (any, error) {
	var s string
	err := c.QueryRow(t.Context(), "SELECT $1::text || $2::int", pgx.QueryExecModeSimpleProtocol, "it's \\ ", 7).Scan(&s)
	return s, err
}

func stacked(t *testing.T, c *pgx.Conn) (any, error) {
	results, err := c.PgConn().Exec(t.Context(), "CREATE TEMP TABLE s (i int); INSERT INTO s SELECT generate_series(1, 3); SELECT * FROM s; SELECT 1/0; SELECT 2").ReadAll()
	var seen []string
	for _, r := range results {
		seen = append(seen, r.CommandTag.String())
	}
	return append(seen, sqlState(err)), nil
}

// TestFunctionCall calls functions by number: one that is harmless works, lo_import (764) is refused by a built-in rule
// and the session goes on.
func TestFunctionCall(t *testing.T) {
	n := startNode(t, setup{})
	c := n.dial("app", "app")
	f := frontend(t, c)
	call := func(oid uint32, arg []byte) (value []byte, code string) {
		f.Send(&pgproto3.FunctionCall{Function: oid, ArgFormatCodes: []uint16{1}, Arguments: [][]byte{arg}, ResultFormatCode: 1})
		if err := f.Flush(); err != nil {
			t.Fatal(err)
		}
		for {
			m, err := f.Receive()
			if err != nil {
				t.Fatal(err)
			}
			switch m := m.(type) {
			case *pgproto3.FunctionCallResponse:
				value = bytes.Clone(m.Result)
			case *pgproto3.ErrorResponse:
				code = m.Code
			case *pgproto3.ReadyForQuery:
				return value, code
			}
		}
	}
	const int4abs, loImport = 1397, 764
	if v, code := call(int4abs, binary.BigEndian.AppendUint32(nil, 1<<32-7)); code != "" || binary.BigEndian.Uint32(v) != 7 {
		t.Errorf("int4abs(-7): %x %s", v, code)
	}
	if _, code := call(loImport, []byte("/etc/passwd")); code != csf.ReasonRule.Info().SQLSTATE {
		t.Errorf("lo_import: %q", code)
	}
	if v, code := call(int4abs, binary.BigEndian.AppendUint32(nil, 9)); code != "" || binary.BigEndian.Uint32(v) != 9 {
		t.Errorf("after the refusal: %x %s", v, code)
	}
	n.waitFor(csf.QueryBlocked, func(e csf.Event) bool { return strings.Contains(fmt.Sprint(e.Facts["redacted"]), "lo_import") })
}

// frontend speaks messages on an idle connection of pgx.
func frontend(t *testing.T, c *pgx.Conn) *pgproto3.Frontend {
	t.Helper()
	h, err := c.PgConn().Hijack()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Conn.Close() })
	h.Conn.SetDeadline(time.Now().Add(time.Minute))
	return h.Frontend
}

// TestNotify: a notification reaches a listening session that is idle, through another session of the ingress.
func TestNotify(t *testing.T) {
	n := startNode(t, setup{})
	listener, speaker := n.dial("app", "app"), n.dial("app", "app")
	if _, err := listener.Exec(t.Context(), "LISTEN acceptance"); err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		if _, err := speaker.Exec(t.Context(), "SELECT pg_notify('acceptance', $1)", fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		m, err := listener.WaitForNotification(ctx)
		cancel()
		if err != nil || m.Payload != fmt.Sprint(i) {
			t.Fatalf("notification %d: %v %v", i, m, err)
		}
	}
}

// TestProtocolVersions: 3.2 brings a long cancel key that works, 3.0 the short one.
func TestProtocolVersions(t *testing.T) {
	n := startNode(t, setup{})
	for version, keyBytes := range map[string]int{"3.0": 4, "3.2": 32} {
		t.Run(version, func(t *testing.T) {
			cfg, err := pgx.ParseConfig(url(n.addr, "app", "app"))
			if err != nil {
				t.Fatal(err)
			}
			cfg.MinProtocolVersion, cfg.MaxProtocolVersion = version, version
			c, err := pgx.ConnectConfig(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close(context.Background())
			if got := len(c.PgConn().SecretKey()); got != keyBytes {
				t.Errorf("a cancel key of %d bytes", got)
			}
			n.waitFor(csf.SessionBound, func(e csf.Event) bool { return e.Facts["protocol"] == version })
			done := make(chan error, 1)
			text := "SELECT pg_sleep(602) -- " + version
			go func() {
				_, err := c.Exec(t.Context(), text, pgx.QueryExecModeSimpleProtocol)
				done <- err
			}()
			waitRunning(t, text)
			if err := c.PgConn().CancelRequest(t.Context()); err != nil {
				t.Error(err)
			}
			if err := <-done; sqlState(err) != "57014" {
				t.Errorf("the cancelled statement: %v", err)
			}
		})
	}
}
