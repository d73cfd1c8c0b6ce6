package app

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/internal/config"
	"github.com/csfproxy/csfproxy/internal/selftest"
	"github.com/csfproxy/csfproxy/proxy/upstream"
	"github.com/csfproxy/csfproxy/reports"
	"github.com/csfproxy/csfproxy/reports/api"
	"github.com/csfproxy/csfproxy/store"
)

// nodeHooks gives a target what self-tests of the node around the ingress need.
func (a *App) nodeHooks(t *selftest.Target) {
	t.Propose = a.proposeTo(a.records.Record)
	t.InForce = func() string { return a.cfg.Load().Hash }
	if a.http != nil {
		t.Call = a.readerCall
	}
	t.Tamper = a.tamperWith(false)
	t.DropHeld = a.dropDay(true)
	t.Recompute = func(ctx context.Context, changed bool) (string, int, error) { return a.recompute(ctx, changed) }
}

// sandboxHooks is nodeHooks for a sandbox: the same, and what is off is off.
func (a *App) sandboxHooks(ctx context.Context, t *selftest.Target, log *sandboxRecords, off string) (end func(), err error) {
	end = func() {}
	a.nodeHooks(t)
	t.Propose = a.proposeTo(log.Record)
	switch off {
	case "unsafe-configuration":
		t.Propose = func(context.Context, []byte) error { return nil } // a loader that checks nothing
	case "store-append-only":
		t.Tamper = a.tamperWith(true)
	case "evidence-hold":
		t.DropHeld = a.dropDay(false)
	case "report-drill":
		t.Recompute = func(ctx context.Context, _ bool) (string, int, error) { return a.recompute(ctx, true) }
	case "containment-drill":
		t.Contain = func(context.Context, string, time.Duration) (func(context.Context) error, error) {
			return func(context.Context) error { return nil }, nil // an order that nobody follows
		}
	case "role-separation":
		t.Call, end, err = a.rolelessAPI(ctx, log)
	}
	return end, err
}

// sandboxRouter gives a sandbox the clusters of the node; with upstream-verified off the foreign server is taken as it is.
func sandboxRouter(clusters map[string]*upstream.Cluster, f *selftest.Fixture, off string) router {
	if off != "upstream-verified" {
		return router(clusters)
	}
	open := f.ForeignCluster
	open.TLS = config.UpstreamTLS{Mode: "disable"}
	u, err := upstream.New(open, upstream.Options{})
	if err != nil { // the test then finds the cluster as it is, passes, and so is void
		return router(clusters)
	}
	out := router{}
	for name, c := range clusters {
		out[name] = c
	}
	out[f.ForeignCluster.Name] = u
	return out
}

// proposeTo takes a configuration through everything that a reload does before the swap.
func (a *App) proposeTo(record func(csf.Event)) func(context.Context, []byte) error {
	return func(_ context.Context, document []byte) error {
		cfg, err := config.Parse("proposed.yaml", document, config.Options{})
		if err == nil {
			err = Check(cfg)
		}
		if err != nil {
			sum := sha256.Sum256(document)
			record(csf.Event{Kind: csf.ConfigRejected, SelfTest: true, Facts: csf.Facts{"error": firstLine(err), "sha256": hex.EncodeToString(sum[:])}})
		}
		return err
	}
}

// callTimeout bounds a call of the reader.
const callTimeout = 10 * time.Second

// readerCall calls the live API as the self-tests' reader.
func (a *App) readerCall(ctx context.Context, method, path string) (int, error) {
	scheme, conf := "http", (*tls.Config)(nil)
	if cert := a.cfg.Load().API.TLS.Cert; cert != "" {
		pem, err := os.ReadFile(cert)
		if err != nil {
			return 0, err
		}
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(pem)
		scheme, conf = "https", &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12, InsecureSkipVerify: true, VerifyConnection: pinned(cert)}
	}
	return call(ctx, scheme+"://"+reachable(a.http.Addr())+path, method, a.reader, conf)
}

func call(ctx context.Context, url, method, token string, conf *tls.Config) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var body io.Reader
	if method == http.MethodPost {
		body = strings.NewReader("{}")
	}
	r, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return 0, err
	}
	r.Header.Set("Authorization", "Bearer "+token)
	r.Header.Set("Content-Type", "application/json")
	client := http.Client{Transport: &http.Transport{TLSClientConfig: conf, DisableKeepAlives: true}}
	resp, err := client.Do(r)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<20))
	return resp.StatusCode, err
}

// rolelessAPI starts an API with nothing behind it where the self-tests' reader may do everything.
func (a *App) rolelessAPI(ctx context.Context, log *sandboxRecords) (func(context.Context, string, string) (int, error), func(), error) {
	var tokens api.Tokens
	token := tokens.AddSelfTest(api.RoleAdmin)
	srv, err := api.New(api.Options{Guard: api.NewGuard(&tokens, sandboxRecorder{log}, time.Now, a.log), Local: true, Log: a.log})
	if err != nil {
		return nil, nil, err
	}
	l, err := srv.Listen("127.0.0.1:0", "", "")
	if err != nil {
		return nil, nil, err
	}
	done := make(chan error, 1)
	go func() { done <- l.Serve() }()
	end := func() {
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
		defer cancel()
		l.Close(stop)
		<-done
	}
	return func(ctx context.Context, method, path string) (int, error) {
		return call(ctx, "http://"+l.Addr().(*net.TCPAddr).String()+path, method, token, nil)
	}, end, nil
}

// sandboxRecorder is the form of Record that the API calls.
type sandboxRecorder struct{ *sandboxRecords }

func (r sandboxRecorder) Record(_ context.Context, e csf.Event) error {
	r.sandboxRecords.Record(e)
	return nil
}

// tamperWith tries changes of stored events; unprotected ones are tried where they are permitted.
func (a *App) tamperWith(unprotected bool) func(context.Context, string) error {
	return func(ctx context.Context, change string) error {
		db, err := a.keeper.opened()
		if err != nil {
			return fmt.Errorf("%w: %w", selftest.ErrNoStore, err)
		}
		err = db.TryChange(ctx, change, unprotected)
		if errors.Is(err, store.ErrNoWriter) {
			return fmt.Errorf("%w: %w", selftest.ErrNoStore, err)
		}
		return err
	}
}

// dropDay has retention drop a day of its own, under a hold or not.
func (a *App) dropDay(held bool) func(context.Context) error {
	return func(ctx context.Context) error {
		db, err := a.keeper.opened()
		if err != nil {
			return fmt.Errorf("%w: %w", selftest.ErrNoStore, err)
		}
		err = db.TryDrop(ctx, held)
		switch {
		case errors.Is(err, store.ErrHeld):
			return fmt.Errorf("%w: %w", selftest.ErrHeld, err)
		case errors.Is(err, store.ErrPermission):
			return fmt.Errorf("%w: %w", selftest.ErrNoStore, err)
		}
		return err
	}
}

// Bounds of the report drill: the newest events of an hour, at most so many.
const (
	recomputePeriod = time.Hour
	recomputeMost   = 20_000
	// recomputeSettle is how old an event must be: records of statements come up to 50 ms after their last one ended.
	recomputeSettle = 2 * time.Second
)

// recompute makes a report from the store's queries and again from the events themselves, with one taken away where
// changed is set, and says where the two differ.
func (a *App) recompute(ctx context.Context, changed bool) (difference string, n int, err error) {
	to := time.Now().Add(-recomputeSettle).UTC().Truncate(time.Microsecond)
	db, err := a.keeper.current(ctx)
	if err != nil {
		return "", 0, fmt.Errorf("%w: %w", selftest.ErrNoStore, err)
	}
	p := reports.Period{From: to.Add(-recomputePeriod), To: to}
	events, err := db.Select(ctx, []csf.Filter{{SelfTests: true}}, p.From, p.To, recomputeMost)
	if err != nil {
		return "", 0, err
	}
	if len(events) == recomputeMost { // the oldest moment may be cut in two
		p.From = events[len(events)-1].Time.Add(time.Microsecond)
		events = slices.DeleteFunc(events, func(e csf.Event) bool { return e.Time.Before(p.From) })
	}
	if changed {
		if i := slices.IndexFunc(events, counted); i >= 0 {
			events = slices.Delete(slices.Clone(events), i, i+1)
		}
	}
	in := reports.Input{Period: p, Now: to, By: api.SelfTestPerson, Generator: "csfproxy " + a.opt.Version}
	asked, err := reports.Collect(ctx, facts{periods: db.Periods()}, in)
	if err != nil {
		return "", 0, err
	}
	recounted, err := reports.Collect(ctx, reports.EventSlice(events), in)
	if err != nil {
		return "", 0, err
	}
	return differenceOf(asked, recounted), len(events), nil
}

// counted says whether an event is in the population of a control.
func counted(e csf.Event) bool {
	for _, c := range csf.Controls() {
		if slices.ContainsFunc(c.Population, func(f csf.Filter) bool { return f.Match(e) }) {
			return true
		}
	}
	return false
}

// differenceOf holds the evidence and the states of two reports of one period against each other, a line for each
// difference. Completeness is left out: it asks for numbers beyond the period.
func differenceOf(a, b reports.Model) string {
	var out []string
	differ := func(what string, x, y any) {
		if x != y {
			out = append(out, fmt.Sprintf("%s: %v and %v", what, x, y))
		}
	}
	differ("lines of evidence", len(a.Evidence), len(b.Evidence))
	for i := range min(len(a.Evidence), len(b.Evidence)) {
		x, y := a.Evidence[i], b.Evidence[i]
		differ("evidence "+strconv.Itoa(i+1), x.ID, y.ID)
		differ(x.ID, x.Count, y.Count)
		if x.Count == y.Count {
			differ(x.ID+" SHA-256", x.SHA256, y.SHA256)
		}
	}
	for i := range min(len(a.Controls), len(b.Controls)) {
		if x, y := a.Controls[i], b.Controls[i]; x.Proof != csf.ProofCompleteness {
			differ("state of "+x.ID, x.State, y.State)
		}
	}
	return strings.Join(out, "\n")
}

// failoverGoal is what a failover may take from the loss of the primary to confirmed writes on another member.
const failoverGoal = 30 * time.Second

// observeDrills records each failover as the exercise that it is: how long it took against its goal.
func (a *App) observeDrills(e csf.Event) {
	if e.Kind != csf.FailoverSwitched || csf.FieldText(e, "verify_ms") == "" {
		return // a switch that was not verified proves nothing
	}
	ms, err := strconv.ParseInt(csf.FieldText(e, "ms"), 10, 64)
	if err != nil {
		return
	}
	result := selftest.Pass
	if ms > failoverGoal.Milliseconds() {
		result = selftest.Fail
	}
	a.records.Record(csf.Event{Kind: csf.DrillFinished, Cluster: e.Cluster, Upstream: e.Upstream, SelfTest: e.SelfTest, Facts: csf.Facts{
		"drill": "failover-drill", "goal_ms": failoverGoal.Milliseconds(), "actual_ms": ms, "result": string(result),
		"detail": "trigger " + csf.FieldText(e, "trigger")}})
}
