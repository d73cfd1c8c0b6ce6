package telemetry

import (
	"context"
	"net/http"
	"net/http/httptest"
	"sort"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/csfproxy/csfproxy/csf"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestMetricsAreThoseOfTheTable(t *testing.T) {
	tel := started(t, Options{Version: "1.2.3", Commit: "abc", Node: "edge-1", Readings: Readings{
		Sessions: func() int { return 7 }, Containments: func() int { return 2 }, StoreUp: func() bool { return true },
		Spool: func() SpoolReading {
			return SpoolReading{LastSeq: 30, SyncedSeq: 20, StoredSeq: 10, Bytes: 4096, Queue: 3}
		},
		Syslog: func() (uint64, uint64) { return 5, 1 },
	}})
	for _, e := range allEvents() {
		tel.Instruments.Event(e)
	}
	tel.Instruments.Statement("select", "ok").Add(41)
	tel.Instruments.BytesIn.Add(100)
	tel.Instruments.UpstreamDial("orders", true, 3*time.Millisecond)
	tel.Instruments.UpstreamDial("orders", false, time.Second)

	text := scrape(t, tel)
	types, labels, helps := parse(text)
	for _, m := range Metrics() {
		got := types[m.Name]
		if got != string(m.Type) {
			t.Errorf("%s: type %q on /metrics, %q in the table", m.Name, got, m.Type)
		}
		want := append([]string{}, m.Labels...)
		sort.Strings(want)
		if diff := cmp.Diff(want, labels[m.Name]); diff != "" {
			t.Errorf("%s: labels: table, /metrics: %s", m.Name, diff)
		}
		if helps[m.Name] != m.Help {
			t.Errorf("%s: help %q", m.Name, helps[m.Name])
		}
		delete(types, m.Name)
	}
	for name := range types {
		if !strings.HasPrefix(name, "go_") && !strings.HasPrefix(name, "process_") {
			t.Errorf("%s is on /metrics and not in the table", name)
		}
	}
	for _, line := range []string{
		`csfproxy_statements_total{kind="select",outcome="ok"} 41`,
		`csfproxy_relayed_bytes_total{direction="in"} 100`,
		`csfproxy_sessions 7`, `csfproxy_store_up 1`, `csfproxy_spool_stored_seq 10`, `csfproxy_syslog_dropped_total 1`,
		`csfproxy_connections_rejected_total{reason="plaintext_refused"} 1`,
		`csfproxy_authentications_total{method="scram-sha-256",result="failed"} 1`,
		`csfproxy_upstream_dials_total{cluster="orders",result="failed"} 1`,
		`csfproxy_failover_duration_seconds_sum{cluster="orders"} 1.5`,
		`csfproxy_session_duration_seconds_count 1`,
	} {
		if !strings.Contains(text, "\n"+line+"\n") {
			t.Errorf("/metrics lacks %s", line)
		}
	}
}

// allEvents has an event for every metric that is counted from events.
func allEvents() []csf.Event {
	return []csf.Event{
		{Kind: csf.ConnAccepted, Facts: csf.Facts{"listener": "apps"}},
		{Kind: csf.TLSPlaintextRefused, Reason: csf.ReasonPlaintext},
		{Kind: csf.AuthSucceeded, Facts: csf.Facts{"method": "scram-sha-256"}},
		{Kind: csf.AuthFailed, Reason: csf.ReasonPassword, Facts: csf.Facts{"method": "scram-sha-256"}},
		{Kind: csf.AuthDowngrade, Reason: csf.ReasonAuthFloor, Facts: csf.Facts{"method": "md5"}},
		{Kind: csf.SessionBound, Cluster: "orders"},
		{Kind: csf.SessionClosed, Reason: csf.ReasonClientTerminate, Facts: csf.Facts{"duration_ms": int64(1500)}},
		{Kind: csf.ProtocolViolation, Reason: csf.ReasonFrameType, Identity: "billing", Source: "lb-eu", Facts: csf.Facts{"side": "frontend", "type": "z"}},
		{Kind: csf.ProtocolViolation, Reason: csf.ReasonFrameState, Cluster: "orders", Upstream: "db1:5432", Facts: csf.Facts{"side": "backend", "type": "Z"}},
		{Kind: csf.UpstreamFailed, Reason: csf.ReasonUpstreamLost, Cluster: "orders"},
		{Kind: csf.FailoverSwitched, Cluster: "orders", Facts: csf.Facts{"ms": 1500}},
		{Kind: csf.FindingOpened, Facts: csf.Facts{"rule": "guessing", "severity": "high"}},
		{Kind: csf.ContainmentApplied, Facts: csf.Facts{"scope": "source"}},
		{Kind: csf.AlertSent}, {Kind: csf.AlertFailed}, {Kind: csf.AdminAction}, {Kind: csf.AdminDenied},
		{Kind: csf.QueryObserved}, // counted by Statement, not here
	}
}

func TestEveryKindCanBeCounted(t *testing.T) {
	tel := started(t, Options{})
	for _, k := range csf.Kinds() {
		tel.Instruments.Event(csf.Event{Kind: k.Kind}) // no facts: must not panic
	}
}

func TestStatementCountersAreBounded(t *testing.T) {
	tel := started(t, Options{})
	for i := range 10 * maxStatementCounters {
		tel.Instruments.Statement("kind", strings.Repeat("x", i)).Add(1)
	}
	if n := len(tel.Instruments.statements); n > maxStatementCounters+1 {
		t.Errorf("%d counters", n)
	}
	if a, b := tel.Instruments.Statement("kind", "x"), tel.Instruments.Statement("kind", "x"); a != b {
		t.Error("the same pair has two counters")
	}
	counter := tel.Instruments.Statement("kind", "x")
	if n := testing.AllocsPerRun(100, func() { counter.Add(1) }); n != 0 {
		t.Errorf("%v allocations per statement", n)
	}
}

func TestTraces(t *testing.T) {
	var posts atomic.Int64
	collector := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost && r.URL.Path == "/v1/traces" && r.ContentLength > 0 {
			posts.Add(1)
		}
	}))
	defer collector.Close()
	tel, err := New(t.Context(), Options{OTLP: collector.URL, Node: "edge-1"})
	if err != nil {
		t.Fatal(err)
	}
	_, span := tel.Tracer().Start(t.Context(), "session")
	span.End()
	if err := tel.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if posts.Load() != 1 {
		t.Errorf("the collector got %d batches", posts.Load())
	}
	http.DefaultClient.CloseIdleConnections()
	for _, bad := range []string{"collector:4318", "ftp://collector", "http://", "::"} {
		if _, err := New(t.Context(), Options{OTLP: bad}); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
	off := started(t, Options{})
	if _, span := off.Tracer().Start(t.Context(), "x"); span.IsRecording() {
		t.Error("spans are recorded without an endpoint")
	}
}

func started(t *testing.T, o Options) *Telemetry {
	t.Helper()
	tel, err := New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tel.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return tel
}

func scrape(t *testing.T, tel *Telemetry) string {
	t.Helper()
	w := httptest.NewRecorder()
	tel.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusOK {
		t.Fatalf("status %d: %s", w.Code, w.Body)
	}
	return w.Body.String()
}

// parse gives by metric the type, the sorted names of its labels and the help.
func parse(text string) (types map[string]string, labels map[string][]string, helps map[string]string) {
	types, labels, helps = map[string]string{}, map[string][]string{}, map[string]string{}
	for _, line := range strings.Split(text, "\n") {
		if rest, ok := strings.CutPrefix(line, "# TYPE "); ok {
			name, kind, _ := strings.Cut(rest, " ")
			types[name] = kind
			continue
		}
		if rest, ok := strings.CutPrefix(line, "# HELP "); ok {
			name, help, _ := strings.Cut(rest, " ")
			helps[name] = help
			continue
		}
		series, _, _ := strings.Cut(line, " ")
		name, pairs, _ := strings.Cut(series, "{")
		if base := strings.TrimSuffix(name, "_count"); types[base] == string(Histogram) {
			name = base
		}
		if types[name] == "" || labels[name] != nil {
			continue
		}
		labels[name] = []string{}
		for _, pair := range strings.Split(strings.TrimSuffix(pairs, "}"), ",") {
			if label, _, ok := strings.Cut(pair, "="); ok && label != "le" {
				labels[name] = append(labels[name], label)
			}
		}
		sort.Strings(labels[name])
	}
	return types, labels, helps
}
