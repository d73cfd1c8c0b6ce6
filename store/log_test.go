package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/store/privatepg"
	"github.com/csfproxy/csfproxy/store/translog"
)

func logKey(t *testing.T) *translog.LogKey {
	t.Helper()
	skey, _, err := translog.GenerateKey("test.example/log")
	if err != nil {
		t.Fatal(err)
	}
	k, err := translog.NewLogKey(skey)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func sequencer(t *testing.T, db *DB, opts SequencerOptions) *Sequencer {
	t.Helper()
	if opts.Key == nil {
		opts.Key = logKey(t)
	}
	s, err := NewSequencer(db, opts)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// sequenceAll runs rounds until nothing is left.
func sequenceAll(t *testing.T, s *Sequencer) {
	t.Helper()
	for range 1000 {
		more, err := s.Round(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if !more {
			return
		}
	}
	t.Fatal("the rounds do not end")
}

// put stores events first to last of a node's log; each has personal data.
func put(t *testing.T, db *DB, node, log string, first, last int, at func(seq int) time.Time) {
	t.Helper()
	if err := db.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	var records []Record
	for seq := first; seq <= last; seq++ {
		e := fullEvent()
		e.Block, e.Time = nil, at(seq)
		e.Identity = fmt.Sprintf("person-%d", seq%5)
		records = append(records, Record{uint64(seq), encode(e, node, log, [saltSize]byte{byte(seq)}).appendTo(nil, uint64(seq))})
	}
	for len(records) > 0 {
		n := min(len(records), 1000)
		if _, err := db.storeBatch(t.Context(), node, log, records[:n]); err != nil {
			t.Fatal(err)
		}
		records = records[n:]
	}
}

func atTestTime(int) time.Time { return testTime }

func verify(t *testing.T, db *DB, o VerifyOptions) LogReport {
	t.Helper()
	r, err := db.VerifyLog(t.Context(), o)
	if err != nil {
		t.Fatalf("verification: %v", err)
	}
	return r
}

func TestLogGrowsWithTheStoredEvents(t *testing.T) {
	db := openDB(t, database(t), DBOptions{})
	var recorded []csf.Event
	s := sequencer(t, db, SequencerOptions{MaxLeaves: 700, Record: func(e csf.Event) { recorded = append(recorded, e) }})
	put(t, db, "a", "0a", 1, 1500, atTestTime)
	put(t, db, "b", "0b", 1, 10, atTestTime)
	put(t, db, "a", "0a", 1601, 1700, atTestTime) // 100 are lost for good
	sequenceAll(t, s)
	put(t, db, "b", "0b", 11, 12, atTestTime)
	sequenceAll(t, s)

	cp, ok, err := db.LatestCheckpoint(t.Context())
	if err != nil || !ok || cp.Size != 1612 {
		t.Fatalf("checkpoint %+v %v %v, want size 1612", cp, ok, err)
	}
	if len(recorded) != 1 || recorded[0].Kind != csf.CheckpointSigned {
		t.Errorf("recorded %v, want one checkpoint.signed a minute", recorded)
	}
	r := verify(t, db, VerifyOptions{Keys: []note.Verifier{s.opts.Key.Verifier()}})
	if r.Size != cp.Size || r.Present != 1612 || r.Waiting != 0 || r.Checkpoints < 3 {
		t.Errorf("report %+v", r)
	}

	// Every leaf: its index both ways, its proof by another implementation, its bytes.
	var seen int64
	err = db.Leaves(t.Context(), 0, cp.Size-1, func(l Leaf) error {
		if l.Index != seen {
			return fmt.Errorf("leaf %d where %d is due", l.Index, seen)
		}
		seen++
		if l.Payload == nil {
			return fmt.Errorf("leaf %d has no event", l.Index)
		}
		if l.Index%97 != 0 && l.Index != cp.Size-1 {
			return nil
		}
		if i, err := db.LeafIndex(t.Context(), l.Node, l.Epoch, l.Seq); err != nil || i != l.Index {
			return fmt.Errorf("event %s/%d has leaf %d, %v, want %d", l.Node, l.Seq, i, err, l.Index)
		}
		hashes, err := db.InclusionProof(t.Context(), l.Index, cp.Size)
		if err != nil {
			return err
		}
		leaf, err := LeafData(l.Payload)
		if err != nil {
			return err
		}
		return proof.VerifyInclusion(rfc6962.DefaultHasher, uint64(l.Index), uint64(cp.Size), rfc6962.DefaultHasher.HashLeaf(leaf), raw(hashes), cp.Root[:])
	})
	if err != nil || seen != cp.Size {
		t.Fatalf("leaves: %d, %v", seen, err)
	}
	all, err := db.Checkpoints(t.Context(), 0, 100)
	if err != nil {
		t.Fatal(err)
	}
	for _, old := range all {
		hashes, err := db.ConsistencyProof(t.Context(), old.Size, cp.Size)
		if err != nil {
			t.Fatal(err)
		}
		if err := proof.VerifyConsistency(rfc6962.DefaultHasher, uint64(old.Size), uint64(cp.Size), raw(hashes), old.Root[:], cp.Root[:]); err != nil {
			t.Errorf("from %d to %d: %v", old.Size, cp.Size, err)
		}
	}
	for _, c := range []struct {
		node string
		seq  uint64
	}{{"a", 1550}, {"a", 1701}, {"c", 1}} {
		if _, err := db.LeafIndex(t.Context(), c.node, 1, c.seq); !errors.Is(err, ErrNoLeaf) {
			t.Errorf("event %s/%d that is not there: %v", c.node, c.seq, err)
		}
	}
	if err := db.Leaves(t.Context(), cp.Size-2, cp.Size, func(Leaf) error { return nil }); !errors.Is(err, ErrNoLeaf) {
		t.Errorf("a leaf beyond the end: %v", err)
	}
}

func raw(hashes []tlog.Hash) [][]byte {
	var out [][]byte
	for i := range hashes {
		out = append(out, hashes[i][:])
	}
	return out
}

func TestEventsFromBeforeTheLogGetLeaves(t *testing.T) {
	db := openDB(t, database(t), DBOptions{})
	put(t, db, "a", "0a", 1, 300, func(seq int) time.Time { return testTime.Add(time.Duration(seq) * time.Hour) })
	// As a store of the version before looks: events, and no hashes beside them; a part has them again.
	if _, err := db.pool.Exec(t.Context(), "delete from csfproxy.leaf_runs"); err != nil {
		t.Fatal(err)
	}
	put(t, db, "a", "0a", 301, 310, atTestTime)
	s := sequencer(t, db, SequencerOptions{MaxLeaves: 128})
	sequenceAll(t, s)
	if r := verify(t, db, VerifyOptions{}); r.Size != 310 || r.Present != 310 {
		t.Errorf("report %+v", r)
	}
	if n := scalar[int](t, db, "select count(*) from csfproxy.leaf_runs"); n != 0 {
		t.Errorf("%d runs remain", n)
	}
}

func TestSequencerDiesAtAnyStep(t *testing.T) {
	db := openDB(t, database(t), DBOptions{})
	key := logKey(t)
	state := filepath.Join(t.TempDir(), "last")
	died := errors.New("died here")
	next := 1
	for _, step := range []string{"checked", "hashed", "ranges", "tiles", "runs", "before commit", "after commit"} {
		for _, how := range []string{"error", "connection"} {
			put(t, db, "a", "0a", next, next+300, atTestTime)
			next += 301
			before, _, err := db.LatestCheckpoint(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			s := sequencer(t, db, SequencerOptions{Key: key, StateFile: state})
			hit := false
			s.at = func(now string) error {
				if now != step {
					return nil
				}
				hit = true
				if how == "error" {
					return died
				}
				// The server ends the session, as a killed process or a lost network would.
				if _, err := db.pool.Exec(context.Background(), `select pg_terminate_backend(pid) from pg_locks
					where locktype = 'advisory' and objid = 2 and objsubid = 2 and pid <> pg_backend_pid()`); err != nil {
					return err
				}
				return nil
			}
			_, err = s.Round(t.Context())
			if !hit {
				t.Fatalf("step %q was not reached: %v", step, err)
			}
			if how == "error" && !errors.Is(err, died) || how == "connection" && err == nil && step != "after commit" {
				t.Errorf("%s at %q: %v", how, step, err)
			}
			after, _, cerr := db.LatestCheckpoint(t.Context())
			if cerr != nil {
				t.Fatal(cerr)
			}
			if grew := after.Size > before.Size; grew != (step == "after commit") {
				t.Errorf("%s at %q: size %d after %d", how, step, after.Size, before.Size)
			}
			// Another node goes on, once the server has let the dead session's lock go.
			other := sequencer(t, db, SequencerOptions{Key: key, StateFile: state})
			for end := time.Now().Add(time.Minute); other.State().Size != int64(next-1) && time.Now().Before(end); {
				sequenceAll(t, other)
			}
			if r := verify(t, db, VerifyOptions{}); r.Size != int64(next-1) {
				t.Fatalf("%s at %q: size %d, want %d", how, step, r.Size, next-1)
			}
		}
	}
}

func TestLogThroughKilledServers(t *testing.T) {
	pg := privatepg.RunForTest(t, privatepg.Options{})
	db := openDB(t, pg.URL("postgres", ""), DBOptions{})
	spool, _ := openSpool(t, SpoolOptions{Dir: t.TempDir()})
	i, stop := ingest(t, db, spool)
	key := logKey(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{}, 2)
	for n := range 2 { // two nodes want to sequence
		s := sequencer(t, db, SequencerOptions{Key: key, Interval: time.Millisecond, MaxLeaves: 50, StateFile: filepath.Join(t.TempDir(), fmt.Sprint(n))})
		go func() { s.Run(ctx); done <- struct{}{} }()
	}
	for round := range 4 {
		appendN(t, spool, 500)
		if err := i.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		if round == 3 {
			break
		}
		if err := pg.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := pg.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	wait, stopWaiting := context.WithTimeout(t.Context(), time.Minute)
	defer stopWaiting()
	if _, err := db.WaitSequenced(wait); err != nil {
		t.Fatal(err)
	}
	cancel()
	<-done
	<-done
	stop()
	if r := verify(t, db, VerifyOptions{}); r.Present < 2000 {
		t.Errorf("report %+v", r)
	}
}

func TestTamperingIsFoundAndNamed(t *testing.T) {
	for _, c := range []struct {
		name, sql string
		leaf      int64 // -1: no leaf can be named
		want      string
	}{
		{"payload", "update csfproxy.events set payload = set_byte(payload, 12, 57) where seq = 42", 41, "leaf 41 (event a/42 of log 1): the stored event is not the one"},
		{"body", "update csfproxy.events set payload = set_byte(payload, octet_length(payload) - 10, 66) where seq = 42", 41, "changed or reordered"},
		{"form", "update csfproxy.events set payload = set_byte(payload, 1, 7) where seq = 42", 41, "it is none"},
		{"columns", "update csfproxy.events set kind = 'auth.failed' where seq = 7", 6, "columns were changed"},
		{"identity", "update csfproxy.events set identity = 'mallory' where seq = 7", 6, "columns were changed"},
		{"facts", `update csfproxy.events set facts = facts || '{"tls": false}' where seq = 7`, 6, "facts was changed"},
		{"delete", "delete from csfproxy.events where seq = 100", 99, "was removed"},
		{"delete the last", "delete from csfproxy.events where seq = 300", 299, "was removed"},
		{"swapped", "update csfproxy.events set seq = 10000 - seq where seq in (50, 51); update csfproxy.events set seq = case seq when 9950 then 51 else 50 end where seq > 9000", 49, "changed or reordered"},
		{"swapped payloads", "update csfproxy.events e set payload = o.payload from csfproxy.events o where e.seq in (50, 51) and o.seq = 101 - e.seq", 49, "changed or reordered"},
		{"inserted twice", "insert into csfproxy.events select (jsonb_populate_record(e, jsonb_build_object('time', e.time + interval '1 microsecond'))).* from csfproxy.events e where seq = 5", -1, "it was put there"},
		{"inserted in a gap", "insert into csfproxy.events select (jsonb_populate_record(e, '{\"seq\": 305}')).* from csfproxy.events e where seq = 5", -1, "it was put there"},
		{"day dropped unsaid", "drop table csfproxy.events_20260301", 0, "was removed"},
		{"day cut", "insert into csfproxy.dropped_days (day, events) values ('2026-03-01', 3); delete from csfproxy.events where seq between 20 and 30", 22, "was removed"},
		{"range moved", "update csfproxy.leaf_ranges set first_seq = first_seq + 1, last_seq = last_seq + 1 where first_seq = 1", 0, "changed or reordered"},
		{"range removed", "delete from csfproxy.leaf_ranges where first_seq = 1", 200, "where leaf 0 is due"},
		{"ranges swapped", "update csfproxy.leaf_ranges set first_leaf = 1000 where first_leaf = 0; update csfproxy.leaf_ranges set first_leaf = 0 where first_leaf = 200; update csfproxy.leaf_ranges set first_leaf = 100 where first_leaf = 1000", 0, "changed or reordered"},
		{"leaf hash", "update csfproxy.tiles set hashes = set_byte(hashes, 32 * 33, get_byte(hashes, 32 * 33) # 1) where level = 0 and n = 0", 33, "changed or reordered"},
		{"leaf and its hash", `update csfproxy.events set payload = set_byte(payload, csfproxy.payload_header_end(payload), 66) where seq = 42; -- the salt, which no column shows
			update csfproxy.tiles set hashes = overlay(hashes placing sha256('\x00' || (select '\x01' || substring(payload from 3 for csfproxy.payload_header_end(payload) - 2)
				|| sha256(substring(payload from csfproxy.payload_header_end(payload) + 1)) from csfproxy.events where seq = 42)) from 41 * 32 + 1) where level = 0 and n = 0`, -1, "a hash of leaves 0 to 199 was changed"},
		{"higher tile", "update csfproxy.tiles set hashes = set_byte(hashes, 3, get_byte(hashes, 3) # 1) where level = 1", -1, "tile"},
		{"root", "update csfproxy.checkpoints set root = set_byte(root, 3, get_byte(root, 3) # 1) where size = 200", -1, "checkpoint of size 200"},
		{"note", "update csfproxy.checkpoints set note = set_byte(note, 3, 65) where size = 200", -1, "checkpoint of size 200"},
		{"checkpoint removed", "delete from csfproxy.checkpoints where size > 200", -1, "cut off or extended"},
		{"log cut back", "delete from csfproxy.checkpoints where size > 200; delete from csfproxy.leaf_ranges where first_leaf >= 200", -1, "a checkpoint of size 350 is known"},
		{"key", "update csfproxy.log_keys set vkey = 'x'", -1, "keys of the log"},
	} {
		t.Run(c.name, func(t *testing.T) {
			db := openDB(t, database(t), DBOptions{})
			s := sequencer(t, db, SequencerOptions{})
			put(t, db, "a", "0a", 1, 200, atTestTime)
			sequenceAll(t, s)
			put(t, db, "a", "0a", 201, 300, atTestTime)
			put(t, db, "a", "0a", 311, 360, atTestTime)
			sequenceAll(t, s)
			cp, _, err := db.LatestCheckpoint(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			known := translog.Checkpoint{Size: cp.Size, Root: cp.Root}
			verify(t, db, VerifyOptions{Known: &known})
			if _, err := db.pool.Exec(t.Context(), c.sql); err != nil {
				t.Fatal(err)
			}
			_, err = db.VerifyLog(t.Context(), VerifyOptions{Known: &known})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("verification: %v, want %q", err, c.want)
			}
			leaf, named := errors.AsType[*LeafError](err)
			if named != (c.leaf >= 0) || named && leaf.Index != c.leaf {
				t.Errorf("%v, want leaf %d", err, c.leaf)
			}
		})
	}
}

func TestSequencerSignsNothingOnTopOfAChangedLog(t *testing.T) {
	for name, sql := range map[string]string{
		"edge":      "update csfproxy.tiles set hashes = set_byte(hashes, 3, get_byte(hashes, 3) # 1) where level = 0 and n = 1",
		"cut back":  "delete from csfproxy.checkpoints where size > 200; delete from csfproxy.leaf_ranges where first_leaf >= 200",
		"emptied":   "delete from csfproxy.checkpoints",
		"no tiles":  "delete from csfproxy.tiles",
		"rewritten": "delete from csfproxy.checkpoints; delete from csfproxy.leaf_ranges; delete from csfproxy.tiles",
	} {
		t.Run(name, func(t *testing.T) {
			db := openDB(t, database(t), DBOptions{})
			var findings []csf.Event
			s := sequencer(t, db, SequencerOptions{StateFile: filepath.Join(t.TempDir(), "last"), Record: func(e csf.Event) {
				if e.Kind == csf.FindingOpened {
					findings = append(findings, e)
				}
			}})
			put(t, db, "a", "0a", 1, 200, atTestTime)
			sequenceAll(t, s)
			put(t, db, "a", "0a", 201, 300, atTestTime)
			sequenceAll(t, s)
			if _, err := db.pool.Exec(t.Context(), sql); err != nil {
				t.Fatal(err)
			}
			put(t, db, "a", "0a", 301, 310, atTestTime)
			for range 2 {
				_, err := s.Round(t.Context())
				if !errors.Is(err, ErrLogChanged) && !errors.Is(err, translog.ErrTile) {
					t.Fatalf("round: %v", err)
				}
				s.report(err)
			}
			if len(findings) != 1 || findings[0].Facts["rule"] != "log-changed" {
				t.Errorf("findings %+v, want one", findings)
			}
		})
	}
}

func TestKeyIsHandedOver(t *testing.T) {
	db := openDB(t, database(t), DBOptions{})
	one, two, stranger := logKey(t), logKey(t), logKey(t)
	next := 1
	grow := func(o SequencerOptions) error {
		put(t, db, "a", "0a", next, next+9, atTestTime)
		next += 10
		_, err := sequencer(t, db, o).Round(t.Context())
		return err
	}
	if err := grow(SequencerOptions{Key: one}); err != nil {
		t.Fatal(err)
	}
	if err := grow(SequencerOptions{Key: stranger}); !errors.Is(err, ErrOtherKey) {
		t.Errorf("a key that nobody named: %v", err)
	}
	if err := grow(SequencerOptions{Key: two, Previous: one}); err != nil {
		t.Fatal(err)
	}
	cp, _, err := db.LatestCheckpoint(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range []*translog.LogKey{one, two} {
		if _, err := translog.Open(cp.Note, []note.Verifier{k.Verifier()}); err != nil {
			t.Errorf("while both keys are given, %s: %v", k.KeyID(), err)
		}
	}
	if err := grow(SequencerOptions{Key: two}); err != nil {
		t.Fatal(err)
	}
	if cp, _, err = db.LatestCheckpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := translog.Open(cp.Note, []note.Verifier{one.Verifier()}); !errors.Is(err, translog.ErrUnsigned) {
		t.Errorf("after it the old key: %v", err)
	}
	// Who trusts the first key alone follows it.
	if r := verify(t, db, VerifyOptions{}); r.Size != 40 {
		t.Errorf("report %+v", r)
	}
	if err := grow(SequencerOptions{Key: one}); !errors.Is(err, ErrOtherKey) {
		t.Errorf("a retired key: %v", err)
	}
	if _, err := db.VerifyLog(t.Context(), VerifyOptions{Keys: []note.Verifier{stranger.Verifier()}}); !errors.Is(err, translog.ErrUnsigned) {
		t.Errorf("for somebody who trusts another key: %v", err)
	}
}

func TestErasedBodiesKeepTheirProof(t *testing.T) {
	db := openDB(t, database(t), DBOptions{})
	s := sequencer(t, db, SequencerOptions{})
	put(t, db, "a", "0a", 1, 100, func(seq int) time.Time { return testTime.AddDate(0, 0, seq%3) })
	sequenceAll(t, s)
	before, _, err := db.LatestCheckpoint(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// Some are not in the log yet.
	put(t, db, "a", "0a", 101, 110, atTestTime)

	id, err := db.Hold(t.Context(), "case 7", testTime, testTime.Add(time.Hour), "litigation", "legal")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.EraseSubject(t.Context(), Subject{"identity", "person-3"}, time.Time{}, time.Time{}); !errors.Is(err, ErrHeld) || !strings.Contains(err.Error(), "case 7") {
		t.Errorf("under a hold: %v", err)
	}
	if ok, err := db.Release(t.Context(), id, "legal", "settled"); err != nil || !ok {
		t.Fatalf("release: %v %v", ok, err)
	}
	if ok, err := db.Release(t.Context(), id, "legal", "settled"); err != nil || ok {
		t.Errorf("released twice: %v %v", ok, err)
	}
	got, err := db.EraseSubject(t.Context(), Subject{"identity", "person-3"}, time.Time{}, time.Time{})
	if err != nil || got.Events != 22 || len(got.Days) != 3 {
		t.Fatalf("erased %+v %v, want 22 events of 3 days", got, err)
	}
	if again, err := db.EraseSubject(t.Context(), Subject{"identity", "person-3"}, time.Time{}, time.Time{}); err != nil || again.Events != 0 {
		t.Errorf("again: %+v %v", again, err)
	}
	sequenceAll(t, s)
	r := verify(t, db, VerifyOptions{Known: &translog.Checkpoint{Size: before.Size, Root: before.Root}})
	if r.Present != 110 || r.Withheld != 22 {
		t.Errorf("report %+v", r)
	}
	if n := scalar[int](t, db, `select count(*) from csfproxy.events where seq % 5 = 3
		and (identity is not null or client is not null or peer is not null or facts::text like '%alice%' or payload::text like '%' || encode('alice', 'hex') || '%')`); n != 0 {
		t.Errorf("%d events still hold what was erased", n)
	}
	if n := scalar[int](t, db, "select count(*) from csfproxy.events where seq % 5 = 3 and facts ->> 'method' = 'scram-sha-256'"); n != 22 {
		t.Errorf("%d of 22 events keep the facts of their headers", n)
	}
	if err := db.Leaves(t.Context(), 2, 2, func(l Leaf) error {
		want, err := Withhold(payloadOf(fullEvent(), 1))
		if err != nil || len(l.Payload) == 0 || l.Payload[1] != want[1] {
			return fmt.Errorf("payload %x", l.Payload)
		}
		e, err := Decode(l.Payload)
		if err != nil || e.Seq != 3 || e.Identity != "" {
			return fmt.Errorf("event %+v %v", e, err)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}

	// By address: the columns, and what a fact says.
	if got, err = db.EraseSubject(t.Context(), Subject{"address", "203.0.113.7"}, testTime, testTime.Add(time.Hour)); err != nil || got.Events == 0 {
		t.Errorf("by address: %+v %v", got, err)
	}
	if n := scalar[int](t, db, "select count(*) from csfproxy.events where client = '203.0.113.7' and time < $1", testTime.Add(time.Hour)); n != 0 {
		t.Errorf("%d events still have the address", n)
	}
	// By what a fact says.
	if got, err = db.EraseSubject(t.Context(), Subject{"value", "alice-secret-name"}, time.Time{}, time.Time{}); err != nil || got.Events == 0 {
		t.Errorf("by value: %+v %v", got, err)
	}
	for _, bad := range []Subject{{"person", "x"}, {"identity", ""}, {"address", "not an address"}} {
		if _, err := db.EraseSubject(t.Context(), bad, time.Time{}, time.Time{}); err == nil {
			t.Errorf("%+v was taken", bad)
		}
	}
	verify(t, db, VerifyOptions{})
}

func TestSQLWithholdsAsGoDoes(t *testing.T) {
	db := openDB(t, database(t), DBOptions{})
	if err := db.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	long := fullEvent()
	long.Facts["listener"] = strings.Repeat("ü", 70_000) // a header longer than two bytes count
	for name, e := range map[string]csf.Event{"full": fullEvent(), "bare": {Kind: csf.NodeStarted, Time: testTime}, "long header": long} {
		p := payloadOf(e, 9)
		want, err := Withhold(p)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if p = scalar[[]byte](t, db, "select csfproxy.payload_withheld($1)", p); !bytes.Equal(p, want) {
				t.Errorf("%s: %x, want %x", name, p, want)
			}
		}
	}
}

func TestHoldStopsRetention(t *testing.T) {
	now := testTime
	db := openDB(t, database(t), DBOptions{Retention: 48 * time.Hour, Now: func() time.Time { return now }})
	s := sequencer(t, db, SequencerOptions{})
	put(t, db, "a", "0a", 1, 60, func(seq int) time.Time { return testTime.AddDate(0, 0, (seq-1)/10-5) })
	sequenceAll(t, s)
	held := testTime.AddDate(0, 0, -4)
	id, err := db.Hold(t.Context(), "case 8", held.Add(-time.Minute), held, "audit", "legal")
	if err != nil {
		t.Fatal(err)
	}
	if dropped, err := db.Maintain(t.Context()); err != nil || len(dropped) != 2 {
		t.Fatalf("dropped %v %v, want two days of three", dropped, err)
	}
	if _, err := db.pool.Exec(t.Context(), "select csfproxy.drop_day($1)", dayOf(held)); sqlState(err) != stateHeld {
		t.Errorf("the held day: %v", err)
	}
	// Leaves of dropped days are proved as before, and later ones too.
	cp, _, err := db.LatestCheckpoint(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, index := range []int64{0, 59} {
		if _, err := db.InclusionProof(t.Context(), index, cp.Size); err != nil {
			t.Error(err)
		}
	}
	r := verify(t, db, VerifyOptions{})
	if r.Present != 40 || r.Dropped != 20 || len(r.Days) != 2 {
		t.Errorf("report %+v", r)
	}
	absent := 0
	if err := db.Leaves(t.Context(), 0, 59, func(l Leaf) error {
		if l.Payload == nil {
			absent++
		}
		return nil
	}); err != nil || absent != 20 {
		t.Errorf("%d leaves without their event, %v", absent, err)
	}
	if ok, err := db.Release(t.Context(), id, "legal", "over"); err != nil || !ok {
		t.Fatal(ok, err)
	}
	if dropped, err := db.Maintain(t.Context()); err != nil || len(dropped) != 1 {
		t.Errorf("after the release %v %v", dropped, err)
	}
	holds, err := db.Holds(t.Context())
	if err != nil || len(holds) != 1 || holds[0].InForce() || holds[0].ReleasedBy != "legal" || !holds[0].From.Equal(held.Add(-time.Minute)) {
		t.Errorf("holds %+v %v", holds, err)
	}
}

// login makes a role that may log in and is a member of the given ones, and gives the store as it sees it.
func login(t *testing.T, db *DB, groups ...string) *DB {
	t.Helper()
	name := fmt.Sprintf("u%d", time.Now().UnixNano())
	exec := func(sql string) {
		if _, err := db.pool.Exec(context.Background(), sql); err != nil {
			t.Fatal(err)
		}
	}
	exec("create role " + name + " login password 'p'")
	for _, g := range groups {
		exec("grant " + g + " to " + name)
	}
	t.Cleanup(func() { exec("drop role " + name) })
	cfg := db.pool.Config()
	return openDB(t, server.URL(cfg.ConnConfig.Database, name), DBOptions{Retention: db.opts.Retention, Now: db.opts.Now})
}

func TestRolesKeepApart(t *testing.T) {
	now := testTime
	owner := openDB(t, database(t), DBOptions{Retention: 48 * time.Hour, Now: func() time.Time { return now }})
	if err := owner.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	writer := login(t, owner, "csfproxy_writer")
	seq := login(t, owner, "csfproxy_writer", "csfproxy_sequencer")
	retention, hold, reader := login(t, owner, "csfproxy_retention"), login(t, owner, "csfproxy_hold"), login(t, owner, "csfproxy_reader")

	// The writer ingests: new partitions, the log's row, fingerprints, a batch that comes again.
	put(t, writer, "a", "0a", 1, 50, func(n int) time.Time { return testTime.AddDate(0, 0, n%4-3) })
	s := sequencer(t, seq, SequencerOptions{})
	sequenceAll(t, s)
	put(t, writer, "a", "0a", 51, 60, atTestTime)
	sequenceAll(t, s)
	spool, _ := openSpool(t, SpoolOptions{Dir: t.TempDir(), Node: "b"})
	appendN(t, spool, 20)
	i, stop := ingest(t, writer, spool)
	if err := i.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	stop()
	if dropped, err := writer.Maintain(t.Context()); err != nil || len(dropped) != 0 {
		t.Errorf("retention by the writer: %v %v", dropped, err)
	}

	for _, c := range []struct {
		who string
		db  *DB
		sql []string
	}{
		{"writer", writer, []string{
			"update csfproxy.events set kind = 'x' where false", "delete from csfproxy.events where false", "truncate csfproxy.events",
			"update csfproxy.events_20260301 set kind = 'x'", "delete from csfproxy.events_20260301", "drop table csfproxy.events_20260301",
			"alter table csfproxy.events add column x text", "delete from csfproxy.logs", "update csfproxy.logs set node = 'x'", "update csfproxy.leaf_ranges set node = 'x'",
			"insert into csfproxy.leaf_ranges values (0,'a',1,1,1,now(),now())", "delete from csfproxy.leaf_runs", "insert into csfproxy.checkpoints values (1,'','',now())",
			"update csfproxy.tiles set hashes = ''", "delete from csfproxy.fingerprints", "update csfproxy.fingerprints set redacted = ''",
			"select csfproxy.drop_day('2026-03-01')", "select csfproxy.erase('identity','x','-infinity','infinity')", "select csfproxy.hold('a',now(),now(),'b','c')", "select csfproxy.release(1,'a','b')", "select csfproxy.retain('400 days')",
			"create table csfproxy.x ()", "select csfproxy.grant_roles()"}},
		{"sequencer", seq, []string{
			"update csfproxy.events set kind = 'x'", "delete from csfproxy.events", "update csfproxy.checkpoints set root = ''", "delete from csfproxy.checkpoints",
			"update csfproxy.leaf_ranges set node = 'x'", "delete from csfproxy.leaf_ranges", "delete from csfproxy.tiles", "update csfproxy.log_keys set vkey = ''", "delete from csfproxy.cosignatures", "select csfproxy.drop_day('2026-03-01')"}},
		{"retention", retention, []string{
			"update csfproxy.events set kind = 'x'", "delete from csfproxy.events", "insert into csfproxy.events default values", "select payload from csfproxy.events", "drop table csfproxy.events_20260301",
			"delete from csfproxy.holds", "update csfproxy.holds set released_at = now()", "select csfproxy.release(1,'a','b')", "select csfproxy.hold('a',now(),now(),'b','c')", "delete from csfproxy.dropped_days"}},
		{"hold", hold, []string{
			"delete from csfproxy.holds", "update csfproxy.holds set to_time = now()", "insert into csfproxy.holds (name) values ('x')", "select csfproxy.drop_day('2026-03-01')",
			"select csfproxy.erase('identity','x','-infinity','infinity')", "select payload from csfproxy.events", "update csfproxy.events set kind = 'x'"}},
		{"reader", reader, []string{
			"insert into csfproxy.logs values ('a','b',1)", "update csfproxy.events set kind = 'x'", "delete from csfproxy.events", "select csfproxy.drop_day('2026-03-01')", "select csfproxy.hold('a',now(),now(),'b','c')", "delete from csfproxy.tiles"}},
	} {
		for _, sql := range c.sql {
			if _, err := c.db.pool.Exec(t.Context(), sql, pgx.QueryExecModeSimpleProtocol); sqlState(err) != "42501" {
				t.Errorf("%s: %s: %v, want permission denied", c.who, sql, err)
			}
		}
	}

	// What each may do.
	if r := verify(t, reader, VerifyOptions{}); r.Size != 60 {
		t.Errorf("the reader verifies %+v", r)
	}
	old := testTime.AddDate(0, 0, -3)
	id, err := hold.Hold(t.Context(), "case", old, old.Add(time.Hour), "why", "who")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := retention.pool.Exec(t.Context(), "select csfproxy.drop_day($1)", dayOf(old)); sqlState(err) != stateHeld {
		t.Errorf("retention under a hold: %v", err)
	}
	if _, err := retention.EraseSubject(t.Context(), Subject{"identity", "person-0"}, old, old.AddDate(0, 0, 1)); !errors.Is(err, ErrHeld) {
		t.Errorf("erasure under a hold: %v", err)
	}
	if _, err := writer.EraseSubject(t.Context(), Subject{"identity", "person-0"}, old, now); !errors.Is(err, ErrPermission) {
		t.Errorf("erasure by the writer: %v", err)
	}
	if _, err := hold.Release(t.Context(), id, "who", "over"); err != nil {
		t.Fatal(err)
	}
	if e, err := retention.EraseSubject(t.Context(), Subject{"identity", "person-0"}, old, testTime.AddDate(0, 0, 1)); err != nil || e.Events == 0 {
		t.Errorf("erasure %+v %v", e, err)
	}
	sequenceAll(t, s)
	var n int64
	if err := retention.pool.QueryRow(t.Context(), "select events from csfproxy.retain('2 days')").Scan(&n); err != nil || n == 0 {
		t.Errorf("a job's retention: %d %v", n, err)
	}
	verify(t, reader, VerifyOptions{})
	// A program of this version starts under the writer's role, which cannot migrate.
	if err := writer.Migrate(t.Context()); err != nil {
		t.Error(err)
	}
}
