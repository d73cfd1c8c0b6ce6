package store

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/store/privatepg"
)

// database makes an empty database in the package's server.
func database(t *testing.T) string {
	t.Helper()
	name := fmt.Sprintf("t%d", rand.Uint64())
	conn, err := pgx.Connect(t.Context(), server.URL("postgres", ""))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(t.Context(), "create database "+name); err != nil {
		t.Fatal(err)
	}
	return server.URL(name, "")
}

func openDB(t *testing.T, url string, opts DBOptions) *DB {
	t.Helper()
	db, err := Open(t.Context(), url, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	return db
}

// ingest runs an ingester until stop.
func ingest(t *testing.T, db *DB, s *Spool) (i *Ingester, stop func()) {
	t.Helper()
	i = NewIngester(db, s, IngesterOptions{RetryMin: time.Millisecond, RetryMax: 20 * time.Millisecond, IdleCheck: 20 * time.Millisecond})
	return i, run(t, i, func() {})
}

func scalar[T any](t *testing.T, db *DB, sql string, args ...any) (v T) {
	t.Helper()
	if err := db.pool.QueryRow(t.Context(), sql, args...).Scan(&v); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return v
}

func TestEventsArriveUnchanged(t *testing.T) {
	url := database(t)
	db := openDB(t, url, DBOptions{})
	s, _ := openSpool(t, SpoolOptions{Dir: t.TempDir()})
	e := fullEvent()
	if _, err := s.Append(e); err != nil {
		t.Fatal(err)
	}
	i, stop := ingest(t, db, s)
	if err := i.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	stop()
	var payload []byte
	for rec, err := range s.Read(1) {
		if err != nil {
			t.Fatal(err)
		}
		payload = rec.Payload
	}
	if !slices.Equal(scalar[[]byte](t, db, "select payload from csfproxy.events"), payload) {
		t.Error("the stored bytes are not the spooled ones")
	}
	got := scalar[string](t, db, `select concat_ws('|', time at time zone 'UTC', node, epoch, seq, kind, reason, session, identity, source, host(client), client_port,
		host(peer), peer_port, cluster, upstream, selftest, csfproxy.facts(payload)->>'user', csfproxy.facts(payload)->>'bytes_in', csfproxy.facts(payload)->'list') from csfproxy.events`)
	want := `2026-03-01 12:30:15.123456|edge-1|1|1|session.bound|killed|0190163d-8694-739b-aea5-966c26f8ad91|alice|lb-eu|203.0.113.7|5555|2001:db8::1|99|orders|db1:5432|t|alice-secret-name|1152921504606846976|["a", 2]`
	if got != want {
		t.Errorf("row\n %s, want\n %s", got, want)
	}
}

func TestStrangeEventsHoldNobodyUp(t *testing.T) {
	db := openDB(t, database(t), DBOptions{})
	s, _ := openSpool(t, SpoolOptions{Dir: t.TempDir()})
	random := make([]byte, 3000) // what no compression makes short enough for an index
	for i := range random {
		random[i] = byte('!' + rand.IntN(90))
	}
	strange := []csf.Event{
		{Kind: csf.ConnRejected, Identity: string(random)},
		{Kind: csf.ConnRejected, Facts: csf.Facts{"detail": "nul\x00", "x": strings.Repeat("y", 2<<20)}},
		{Kind: csf.QueryObserved, Block: []byte("not a block")},
		{Kind: csf.ConnRejected, Time: time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC)},
		{Kind: csf.ConnRejected, Time: time.Date(2999, 1, 1, 0, 0, 0, 0, time.UTC)},
		{Kind: csf.ConnRejected, Time: time.Date(20999, 1, 1, 0, 0, 0, 0, time.UTC)},
	}
	appendN(t, s, 10)
	for _, e := range strange {
		if _, err := s.Append(e); err != nil {
			t.Fatal(err)
		}
		appendN(t, s, 3)
	}
	i, stop := ingest(t, db, s)
	if err := i.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	stop()
	if n := scalar[int](t, db, "select count(*) from csfproxy.events"); n != 10+4*len(strange) {
		t.Errorf("%d events are stored, want %d", n, 10+4*len(strange))
	}
	if n := scalar[int](t, db, "select count(*) from csfproxy.events where octet_length(identity) = 1000"); n != 1 {
		t.Errorf("%d events have an identity that was cut for the index, want 1", n)
	}
	if n := scalar[int](t, db, "select count(*) from csfproxy.events where csfproxy.facts(payload) ? 'facts_error'"); n != 1 {
		t.Errorf("%d events say that their facts were left out, want 1", n)
	}
}

// TestBatchesAreGathered: events that come one by one share batches, and whoever waits for one does not wait for the pause.
func TestBatchesAreGathered(t *testing.T) {
	db := openDB(t, database(t), DBOptions{})
	s, _ := openSpool(t, SpoolOptions{Dir: t.TempDir()})
	i := NewIngester(db, s, IngesterOptions{Every: time.Hour})
	stop := run(t, i, func() {})
	defer stop()
	appendN(t, s, 1)
	for range 3 {
		if err := i.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		before := i.State()
		for range 20 { // each durable, and so one that the ingester could take, before the next
			appendN(t, s, 1)
			if err := s.WaitSynced(t.Context(), s.Stats().LastSeq); err != nil {
				t.Fatal(err)
			}
		}
		if now := i.State(); now.Batches > before.Batches+1 { // one may have begun while Drain waited
			t.Errorf("%d batches for 20 events that nobody waits for", now.Batches-before.Batches)
		}
	}
	if err := i.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := scalar[int](t, db, "select count(*) from csfproxy.events"); n != 61 {
		t.Errorf("%d events are stored, want 61", n)
	}
}

func TestRetentionDropsDays(t *testing.T) {
	now := testTime
	db := openDB(t, database(t), DBOptions{Retention: 48 * time.Hour, Now: func() time.Time { return now }})
	if err := db.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	var records []Record
	for day := range 6 {
		seq := uint64(day + 1)
		records = append(records, Record{seq, payloadOf(csf.Event{Kind: csf.ConnAccepted, Time: testTime.AddDate(0, 0, day-5)}, seq)})
	}
	if _, err := db.storeBatch(t.Context(), "edge-1", "0011", records); err != nil {
		t.Fatal(err)
	}
	dropped, err := db.Maintain(t.Context())
	if err != nil || len(dropped) != 3 {
		t.Fatalf("dropped %v, %v, want the three days that are wholly past", dropped, err)
	}
	if n := scalar[int](t, db, "select count(*) from csfproxy.events"); n != 3 {
		t.Errorf("%d events, want 3", n)
	}
	days, err := db.partitionDays(t.Context())
	if err != nil || len(days) != 3+partitionsAhead || !days[len(days)-1].Equal(dayOf(now).AddDate(0, 0, partitionsAhead)) {
		t.Errorf("partitions %v %v", days, err)
	}
	if again, err := db.Maintain(t.Context()); err != nil || len(again) != 0 {
		t.Errorf("once more: %v %v", again, err)
	}
	// Another node dropped a day that this one knows: a late event brings it back.
	other := openDB(t, db.pool.Config().ConnString(), DBOptions{Retention: 24 * time.Hour, Now: func() time.Time { return now }})
	if dropped, err := other.Maintain(t.Context()); err != nil || len(dropped) != 1 {
		t.Fatalf("another node dropped %v, %v", dropped, err)
	}
	late := []Record{{7, payloadOf(csf.Event{Kind: csf.ConnAccepted, Time: testTime.AddDate(0, 0, -2)}, 7)}}
	db.mu.Lock()
	db.partitions[dayOf(testTime.AddDate(0, 0, -2)).Format(partitionFormat)] = true
	db.mu.Unlock()
	if res, err := db.storeBatch(t.Context(), "edge-1", "0011", late); err != nil || res.stored != 1 {
		t.Errorf("a late event: %+v %v", res, err)
	}
}

func TestMigrateByManyAtOnce(t *testing.T) {
	url := database(t)
	errs := make(chan error)
	for range 4 {
		db := openDB(t, url, DBOptions{})
		go func() { errs <- db.Migrate(context.Background()) }()
	}
	for range 4 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	db := openDB(t, url, DBOptions{})
	if err := db.Ping(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := db.pool.Exec(t.Context(), "insert into csfproxy.schema_version (version_id, is_applied) values (99, true)"); err != nil {
		t.Fatal(err)
	}
	if err := db.Migrate(t.Context()); err == nil || !strings.Contains(err.Error(), "newer program") {
		t.Errorf("a schema of a later version: %v", err)
	}
}

func TestStoreThatIsAwayFromTheStart(t *testing.T) {
	pg := privatepg.RunForTest(t, privatepg.Options{})
	if err := pg.Stop(t.Context(), privatepg.Fast); err != nil {
		t.Fatal(err)
	}
	db := openDB(t, pg.URL("postgres", ""), DBOptions{})
	s, _ := openSpool(t, SpoolOptions{Dir: t.TempDir()})
	i, _ := ingest(t, db, s)
	appendN(t, s, 5)
	for i.State().Err == nil || i.State().Behind < 5 {
		time.Sleep(time.Millisecond)
	}
	if _, _, err := db.Events(t.Context(), Query{}); err == nil {
		t.Error("a query of a store that is away gives no error")
	}
	if err := pg.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := i.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if st := i.State(); !st.Connected || st.Err != nil {
		t.Errorf("state %+v", st)
	}
}
