package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/reports"
	"github.com/csfproxy/csfproxy/reports/api"
	"github.com/csfproxy/csfproxy/reports/pack"
	"github.com/csfproxy/csfproxy/store"
	"github.com/csfproxy/csfproxy/store/translog"
	"golang.org/x/mod/sumdb/tlog"
)

// custody is the API's view of who touched evidence.
type custody struct{ a *App }

// custodyReads bounds how many pages of the store one page of custody is made from: where many acts concern no evidence,
// a page is shorter and the next one goes on behind it.
const custodyReads = 20

func (c custody) Custody(ctx context.Context, q api.CustodyQuery) ([]api.Custody, string, error) {
	db, err := c.a.keeper.current(ctx)
	if err != nil {
		return nil, "", err
	}
	kinds := append(reports.CustodyKinds(), csf.AdminAction)
	if len(q.Kinds) > 0 {
		kinds = slices.DeleteFunc(kinds, func(k csf.Kind) bool { return !slices.Contains(q.Kinds, k) })
		if len(kinds) == 0 {
			return nil, "", fmt.Errorf("%w: none of these kinds is an access to evidence", api.ErrInvalid)
		}
	}
	read := store.Query{Kinds: kinds, Since: q.Period.From, Until: q.Period.To, IncludeSelfTests: true, After: q.Cursor,
		Where: []csf.Condition{{Field: "action", Op: csf.OpNotIn, Values: otherActions()}}}
	if q.By != "" {
		read.Where = append(read.Where, csf.Condition{Field: "by", Op: csf.OpIn, Values: []string{q.By}})
	}
	var list []api.Custody
	for range custodyReads {
		read.Limit = q.Limit - len(list)
		events, next, err := db.Events(ctx, read)
		switch {
		case errors.Is(err, store.ErrCursor):
			return nil, "", fmt.Errorf("%w: %w", api.ErrInvalid, err)
		case err != nil:
			return nil, "", fmt.Errorf("%w: %w", api.ErrUnavailable, err)
		}
		for _, e := range events {
			if v, ok := reports.CustodyOf(e); ok {
				list = append(list, api.Custody(v))
			}
		}
		if read.After = next; next == "" || len(list) == q.Limit {
			break
		}
	}
	return list, read.After, nil
}

// otherActions are the API's acts that concern no evidence, so that the store need not hand them out.
func otherActions() []string {
	var list []string
	for _, r := range api.Routes() {
		if action := r.Method + " " + r.Path; !reports.AboutEvidence(action) {
			list = append(list, action)
		}
	}
	return append(list, http.MethodGet+" /", http.MethodGet+" /live", http.MethodGet+" /sessions", http.MethodPost+" /signin")
}

// Consistency gives the proof between two sizes of the log.
func (p proofs) Consistency(ctx context.Context, from, size int64) ([]tlog.Hash, error) {
	db, err := p.store()
	if err != nil {
		return nil, err
	}
	c, ok, err := db.LatestCheckpoint(ctx)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %w", api.ErrUnavailable, err)
	case !ok || size > c.Size:
		return nil, fmt.Errorf("%w: the log has %d leaves", api.ErrNotFound, c.Size)
	case from == size:
		return nil, nil
	}
	return db.ConsistencyProof(ctx, from, size)
}

// Log gives what the state of the log is checked from. The keys come from the node's own files and configuration; from
// the store comes only what they vouch for.
func (p proofs) Log(ctx context.Context) (api.LogFacts, error) {
	db, err := p.store()
	if err != nil {
		return api.LogFacts{}, err
	}
	facts, err := p.log(ctx, db)
	if err != nil {
		return facts, fmt.Errorf("%w: %w", api.ErrUnavailable, err)
	}
	return facts, nil
}

func (p proofs) log(ctx context.Context, db *store.DB) (api.LogFacts, error) {
	facts := api.LogFacts{}
	c, ok, err := db.LatestCheckpoint(ctx)
	if err != nil {
		return facts, err
	}
	if ok {
		v := checkpointView(c)
		facts.Newest = &v
	}
	if facts.Keys, err = p.a.knownKeys(ctx, db); err != nil {
		return facts, err
	}
	if facts.Witnesses, err = p.witnesses(ctx, db, c.Size); err != nil {
		return facts, err
	}
	facts.Alarms, err = p.alarms(ctx, db)
	return facts, err
}

// knownKeys are the log's verifier keys that this node holds, and those that they lead to by handovers.
func (a *App) knownKeys(ctx context.Context, db *store.DB) ([]string, error) {
	keys, err := db.LogKeys(ctx)
	if err != nil {
		return nil, err
	}
	var handovers [][]byte
	byID := map[string]string{}
	for _, k := range keys {
		handovers = append(handovers, k.Handover)
		byID[k.KeyID] = k.VerifierKey
	}
	var out []string
	add := func(vkey string) {
		if vkey != "" && !slices.Contains(out, vkey) {
			out = append(out, vkey)
		}
	}
	for _, k := range []*translog.LogKey{a.translog.key, a.translog.previous} {
		if k == nil {
			continue
		}
		add(k.VerifierKey())
		for _, v := range translog.Follow(k.Verifier(), handovers) {
			add(byID[translog.KeyID(v.KeyHash())])
		}
	}
	return out, nil
}

// witnesses gives those of the configuration and those that ever cosigned.
func (p proofs) witnesses(ctx context.Context, db *store.DB, size int64) ([]api.WitnessFacts, error) {
	seen, err := db.Witnesses(ctx)
	if err != nil {
		return nil, err
	}
	var list []api.WitnessFacts
	known := map[string]api.WitnessFacts{} // by key id
	for _, w := range p.a.cfg.Load().Log.Witnesses {
		v, err := translog.NewVerifier(w.Key)
		if err != nil {
			return nil, err
		}
		known[translog.KeyID(v.KeyHash())] = api.WitnessFacts{Name: w.Name, Key: w.Key}
	}
	for _, s := range seen {
		w, ok := known[s.KeyID]
		if !ok {
			w.Name = s.Witness
		}
		delete(known, s.KeyID)
		c, ok, err := db.CheckpointAt(ctx, s.Size)
		if err != nil {
			return nil, err
		}
		if ok {
			v := checkpointView(c)
			w.Last = &v
			if s.Size > 0 && s.Size < size {
				// A store whose tiles do not give the proof has a fault of its own, which the check names.
				w.Consistency, _ = db.ConsistencyProof(ctx, s.Size, size)
			}
		}
		list = append(list, w)
	}
	for _, w := range known {
		list = append(list, w)
	}
	return list, nil
}

// alarmsFor is how far back a refusal of a witness is looked for.
const alarmsFor = 90 * 24 * time.Hour

// alarms are the refusals of witnesses after which the same witness did not cosign again.
func (p proofs) alarms(ctx context.Context, db *store.DB) ([]api.LogAlarm, error) {
	events, err := db.Select(ctx, []csf.Filter{csf.Of(csf.WitnessAlarm, csf.WitnessCosigned)}, time.Now().Add(-alarmsFor), time.Now().Add(time.Hour), 1000)
	if err != nil {
		return nil, err
	}
	list, settled := []api.LogAlarm{}, map[string]bool{}
	for _, e := range events { // newest first
		name := csf.FieldText(e, "witness")
		if settled[name] {
			continue
		}
		settled[name] = true
		if e.Kind == csf.WitnessAlarm {
			list = append(list, api.LogAlarm{Witness: name, Time: e.Time.UTC(), Detail: csf.FieldText(e, "detail")})
		}
	}
	return list, nil
}

// Verify checks the file of a report as its kind permits and records what came of it.
func (s *reportShelf) Verify(ctx context.Context, id string, by api.Actor) (api.Verification, error) {
	r, file, err := s.Open(ctx, id)
	if err != nil {
		return api.Verification{}, err
	}
	defer file.Close()
	got, fault, err := s.check(ctx, r, file)
	if err != nil {
		return api.Verification{}, err
	}
	v := api.Verification{Time: time.Now().UTC(), By: by.Name, Result: "pass", Detail: got}
	if fault != "" {
		v.Result, v.Detail = "fail", api.Clean(fault)
		s.app.log.Error("a report is not what was made", "report", id, "format", r.Format, "why", fault)
	}
	s.app.records.Record(csf.Event{Kind: csf.ReportVerified, Facts: csf.Facts{"by": by.Name, "report": id, "format": r.Format, "sha256": r.SHA256, "result": v.Result, "detail": v.Detail}})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.jobs[id].Verified = &v
	return v, s.save(s.jobs[id])
}

// check gives what was checked, or what is wrong with the file.
func (s *reportShelf) check(ctx context.Context, r api.Report, file io.ReadCloser) (checked, fault string, err error) {
	digest, size, err := digestOf(file)
	if err != nil {
		return "", "", err
	}
	if digest != r.SHA256 {
		return "", fmt.Sprintf("the file's SHA-256 is %s, and %s was recorded when it was made", digest, r.SHA256), nil
	}
	at, ok := file.(io.ReaderAt)
	if r.Format != "pack" || !ok {
		return fmt.Sprintf("%d bytes with the SHA-256 that was recorded when it was made", size), "", nil
	}
	o := pack.Options{Generator: "csfproxy " + s.app.opt.Version}
	if db, err := s.app.keeper.opened(); err == nil {
		if o.Keys, err = s.app.knownKeys(ctx, db); err != nil {
			o.Keys = nil
		}
	}
	if o.Keys == nil { // the store is away; the node's own key is not
		o.Keys = []string{s.app.translog.key.VerifierKey()}
	}
	result, err := pack.Verify(ctx, at, size, o)
	switch {
	case err != nil:
		return "", "", err
	case !result.OK():
		return "", result.Failure.Error(), nil
	}
	var names []string
	for _, c := range result.Checks {
		names = append(names, c.Name)
	}
	return fmt.Sprintf("%d checks: %s", len(names), strings.Join(names, ", ")), "", nil
}
