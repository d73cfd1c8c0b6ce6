package pack

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/reports"
	"github.com/csfproxy/csfproxy/store"
	"github.com/csfproxy/csfproxy/store/translog"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

var (
	from = time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	to   = time.Date(2026, 3, 8, 0, 0, 0, 0, time.UTC)
)

const origin = "evidence.example/log"

// world is a log in memory, fed by real spools, with a key and a witness.
type world struct {
	t        testing.TB
	spools   map[string]*store.Spool
	payloads [][]byte
	hashes   []tlog.Hash
	key      *translog.LogKey
	witness  *translog.Cosigner
}

func newWorld(t testing.TB) *world {
	t.Helper()
	skey, _, err := translog.GenerateKey(origin)
	if err != nil {
		t.Fatal(err)
	}
	key, err := translog.NewLogKey(skey)
	if err != nil {
		t.Fatal(err)
	}
	wkey, _, err := note.GenerateKey(rand.Reader, "audit-office.example")
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, spools: map[string]*store.Spool{}, key: key}
	if w.witness, err = translog.NewCosigner(wkey, func() time.Time { return to.Add(2 * time.Hour) }); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) spool(node string) *store.Spool {
	s, ok := w.spools[node]
	if !ok {
		var err error
		if s, _, err = store.OpenSpool(store.SpoolOptions{Dir: w.t.TempDir(), Node: node}); err != nil {
			w.t.Fatal(err)
		}
		w.t.Cleanup(func() { s.Close() })
		w.spools[node] = s
	}
	return s
}

// add records events through the node's spool and puts them into the log.
func (w *world) add(node string, events ...csf.Event) {
	w.t.Helper()
	s := w.spool(node)
	first := s.Stats().LastSeq + 1
	for _, e := range events {
		if _, err := s.Append(e); err != nil {
			w.t.Fatal(err)
		}
	}
	if len(events) == 0 {
		return
	}
	if err := s.WaitSynced(context.Background(), s.Stats().LastSeq); err != nil {
		w.t.Fatal(err)
	}
	n := 0
	for r, err := range s.Read(first) {
		if err != nil {
			w.t.Fatal(err)
		}
		w.append(bytes.Clone(r.Payload))
		if n++; n == len(events) {
			break
		}
	}
}

func (w *world) append(payload []byte) {
	leaf, err := store.LeafData(payload)
	if err != nil {
		w.t.Fatal(err)
	}
	h, err := tlog.StoredHashesForRecordHash(int64(len(w.payloads)), tlog.RecordHash(leaf), w)
	if err != nil {
		w.t.Fatal(err)
	}
	w.hashes = append(w.hashes, h...)
	w.payloads = append(w.payloads, payload)
}

func (w *world) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		out[i] = w.hashes[x]
	}
	return out, nil
}

func (w *world) Hashes(context.Context, int64) tlog.HashReader { return w }

func (w *world) Payloads(_ context.Context, first, last int64, yield func(int64, []byte) error) error {
	for i := first; i <= last; i++ {
		if err := yield(i, w.payloads[i]); err != nil {
			return err
		}
	}
	return nil
}

// checkpoint signs the tree of a size.
func (w *world) checkpoint(size int64, cosigned bool) []byte {
	w.t.Helper()
	root, err := tlog.TreeHash(size, w)
	if err != nil {
		w.t.Fatal(err)
	}
	return w.sign(translog.Checkpoint{Origin: origin, Size: size, Root: root}, cosigned)
}

func (w *world) sign(c translog.Checkpoint, cosigned bool) []byte {
	w.t.Helper()
	signed, err := translog.Sign(c, w.key)
	if err != nil {
		w.t.Fatal(err)
	}
	if cosigned {
		line, err := w.witness.Cosign(c)
		if err != nil {
			w.t.Fatal(err)
		}
		signed = translog.AddSignatures(signed, line)
	}
	return signed
}

func (w *world) size() int64 { return int64(len(w.payloads)) }

// request is for a pack of the whole log up to size.
func (w *world) request(size int64) Request {
	return Request{
		Input: reports.Input{Period: reports.Period{From: from, To: to}, Now: to.Add(time.Hour), By: "anna", Generator: "csfproxy test", ConfigSHA256: "c0ffee",
			Registers: []reports.Entry{
				{Type: reports.EntryIdentity, Name: "billing-service", Owner: "team-billing", ApprovedBy: "CHG-1", Expires: to.AddDate(1, 0, 0)},
				{Type: reports.EntryIdentity, Name: "reporting", Owner: "team-data", ApprovedBy: "CHG-2", Expires: to.AddDate(1, 0, 0)},
				{Type: reports.EntrySource, Name: "lb-eu", Owner: "platform", ApprovedBy: "CHG-3", Expires: to.AddDate(1, 0, 0)},
			},
			Exceptions: []reports.Exception{{ID: "x-1", Control: "auth-floor", Applies: "the old reporting tool", Where: csf.Filter{}.Is("identity", "reporting").Where,
				Reason: "migration under way", ApprovedBy: "CHG-9", Approved: from, Expires: to.AddDate(0, 2, 0)}},
		},
		Checkpoint: w.checkpoint(size, true), CheckpointTime: to.Add(time.Hour), First: 0, Last: size - 1, Signer: w.key,
		Keys: Keys{Log: []string{w.key.VerifierKey()}, Witnesses: []string{w.witness.VerifierKey()}},
	}
}

func (w *world) pack(r Request) []byte {
	w.t.Helper()
	var b bytes.Buffer
	if _, err := Write(context.Background(), &b, w, r); err != nil {
		w.t.Fatal(err)
	}
	return b.Bytes()
}

func check(t testing.TB, pack []byte, o Options) Result {
	t.Helper()
	r, err := Verify(context.Background(), bytes.NewReader(pack), int64(len(pack)), o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// week gives a node's events of the period with everything that a report lists, and some before and after it.
func week(seed int) []csf.Event {
	var list []csf.Event
	at := from.Add(-time.Hour)
	add := func(kind csf.Kind, reason csf.Reason, facts csf.Facts, change ...func(*csf.Event)) {
		at = at.Add(time.Minute)
		e := csf.Event{Time: at, Kind: kind, Reason: reason, Facts: facts, Client: netip.MustParseAddrPort("10.9.0.7:51000")}
		for _, c := range change {
			c(&e)
		}
		list = append(list, e)
	}
	name := func(n string) func(*csf.Event) { return func(e *csf.Event) { e.Identity = n } }
	add(csf.NodeStarted, "", csf.Facts{"version": "1.0"})
	add(csf.BuildInfo, "", csf.Facts{"version": "1.0"})
	add(csf.ConfigLoaded, "", csf.Facts{"sha256": "c0ffee"})
	at = from.Add(time.Hour)
	add(csf.RegistryIdentity, "", csf.Facts{"name": "billing-service", "owner": "team-billing", "approved_by": "CHG-1"})
	add(csf.InventoryFirstSeen, "", csf.Facts{"what": "server", "key": "db1:5432"})
	for i := range 60 {
		who := []string{"billing-service", "reporting"}[(i+seed)%2]
		method := "scram-sha-256"
		if i%20 == 7 && who == "reporting" {
			method = "md5"
		}
		add(csf.ConnAccepted, "", csf.Facts{"listener": "apps"})
		add(csf.TLSEstablished, "", csf.Facts{"tls_version": "1.3"})
		add(csf.SessionBound, "", csf.Facts{"tls": true, "upstream_tls": true, "method": method, "below_floor": false, "database": "orders", "user": "u", "backend_pid": 100 + i}, name(who),
			func(e *csf.Event) {
				e.Upstream, e.Cluster = "db1:5432", "orders"
				if i%3 == 0 {
					e.Source = "lb-eu"
				}
			})
		add(csf.SessionClosed, csf.ReasonClientTerminate, csf.Facts{"duration_ms": 20}, name(who))
	}
	add(csf.AuthzDenied, csf.ReasonIdentityUnknown, csf.Facts{"claimed_user": `=HYPERLINK("http://x")`})
	add(csf.FindingOpened, "", csf.Facts{"rule": "auth-guessing", "severity": "high", "count": 20, "subject": "10.9.0.66"})
	add(csf.ContainmentApplied, "", csf.Facts{"scope": "source", "subject": "10.9.0.66", "by": "rule auth-guessing", "act_ms": 12, "sessions_ended": 1})
	add(csf.AlertSent, "", csf.Facts{"receiver": "soc", "latency_ms": 80})
	add(csf.FailoverSwitched, "", csf.Facts{"from": "db1:5432", "to": "db2:5432", "term": 2, "ms": 2410, "verify_ms": 300}, func(e *csf.Event) { e.Cluster = "orders" })
	add(csf.AdminAction, "", csf.Facts{"by": "anna", "role": "auditor", "action": "GET /v1/reports/{id}/download", "object": "r-1", "status": 200})
	add(csf.AdminAction, "", csf.Facts{"by": "otto", "role": "operator", "action": "DELETE /v1/sessions/{id}", "object": "s-1", "status": 204})
	add(csf.ReportGenerated, "", csf.Facts{"format": "xlsx", "by": "anna", "report": "r-1", "sha256": "ab"})
	for _, c := range csf.Controls() {
		if c.SelfTest == "" {
			continue
		}
		add(csf.SelfTestRun, "", csf.Facts{"test": c.SelfTest, "control": c.ID, "result": "pass", "sandbox": false, "duration_ms": 12, "detail": "refused with 28000"}, func(e *csf.Event) { e.SelfTest = true })
		if c.Sandbox {
			add(csf.SelfTestRun, "", csf.Facts{"test": c.SelfTest, "control": c.ID, "result": "fail", "sandbox": true, "duration_ms": 12}, func(e *csf.Event) { e.SelfTest = true })
		}
	}
	for day := range 7 {
		at = from.AddDate(0, 0, day).Add(20 * time.Hour)
		add(csf.LogSequence, "", csf.Facts{"accepted": 10, "rejected": 1, "recorded": 11, "from": "a", "to": "b"})
	}
	at = to.Add(30 * time.Minute)
	for range 3 {
		add(csf.CapacitySample, "", csf.Facts{"sessions": 4, "limit": 5000})
	}
	return list
}

// standard is a log of two nodes over the week, written in turns.
func standard(t testing.TB) *world {
	w := newWorld(t)
	a, b := week(0), week(1)
	for i := 0; i < max(len(a), len(b)); i += 10 {
		w.add("edge-1", a[min(i, len(a)):min(i+10, len(a))]...)
		w.add("edge-2", b[min(i, len(b)):min(i+10, len(b))]...)
	}
	return w
}

func describe(r Result) string {
	var s string
	for _, c := range r.Checks {
		s += fmt.Sprintf("  %-20s %7d %s\n", c.Name, c.Count, c.What)
	}
	for _, n := range r.Notes {
		s += "  finding: " + n + "\n"
	}
	for _, n := range r.Missing {
		s += "  not shown: " + n + "\n"
	}
	if r.Failure != nil {
		s += "  WRONG: " + r.Failure.Error() + "\n"
	}
	return s
}

func has(list []Check, name string) bool {
	return slices.ContainsFunc(list, func(c Check) bool { return c.Name == name })
}

func withhold(t testing.TB, payload []byte) []byte {
	t.Helper()
	p, err := store.Withhold(payload)
	if err != nil {
		t.Fatal(err)
	}
	return p
}
