package telemetry

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/csfproxy/csfproxy/csf"
)

const (
	// maxStatementCounters bounds the pairs of kind and outcome; beyond it everything counts as other.
	maxStatementCounters = 256
	other                = "other"
)

// Instruments is what the program counts with. Its methods may be called from many goroutines.
//
// Most numbers come from the events (Event), so that a metric and the log never tell two stories. What happens too
// often for an event of its own is counted by Statement and by BytesIn and BytesOut.
type Instruments struct {
	// BytesIn came from clients, BytesOut went to them.
	BytesIn, BytesOut atomic.Int64

	counters   map[string]metric.Int64Counter
	histograms map[string]metric.Float64Histogram

	mu         sync.Mutex
	statements map[statementKey]*atomic.Int64
}

type statementKey struct{ kind, outcome string }

func newInstruments(m metric.Meter, o Options, goVersion string) (*Instruments, error) {
	i := &Instruments{counters: map[string]metric.Int64Counter{}, histograms: map[string]metric.Float64Histogram{},
		statements: map[statementKey]*atomic.Int64{}}
	observed := i.observed(o, goVersion)
	for _, entry := range Metrics() {
		// The exporter adds the suffix of counters by itself.
		name := strings.TrimSuffix(entry.Name, "_total")
		help := metric.WithDescription(entry.Help)
		observe, isObserved := observed[entry.Name]
		var err error
		switch {
		case isObserved && observe == nil:
			// Nobody holds this number here.
		case isObserved && entry.Type == Counter:
			_, err = m.Int64ObservableCounter(name, help, metric.WithInt64Callback(observe))
		case isObserved:
			_, err = m.Int64ObservableGauge(name, help, metric.WithInt64Callback(observe))
		case entry.Type == Counter:
			i.counters[entry.Name], err = m.Int64Counter(name, help)
		case entry.Type == Histogram:
			i.histograms[entry.Name], err = m.Float64Histogram(name, help, metric.WithExplicitBucketBoundaries(buckets(entry.Name)...))
		default:
			err = fmt.Errorf("%s is a gauge that nobody reads", entry.Name)
		}
		if err != nil {
			return nil, err
		}
	}
	return i, nil
}

// buckets are the upper bounds in seconds: sessions last from milliseconds to days, dials and failovers are measured
// against targets of milliseconds and seconds.
func buckets(name string) []float64 {
	if name == sessionSeconds {
		return []float64{0.01, 0.1, 1, 10, 60, 600, 3600, 6 * 3600, 24 * 3600, 7 * 24 * 3600}
	}
	return []float64{0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60}
}

// observed gives what is read at a scrape instead of being counted, by metric; a nil function leaves the metric out.
func (i *Instruments) observed(o Options, goVersion string) map[string]metric.Int64Callback {
	r := o.Readings
	value := func(set bool, read func() int64) metric.Int64Callback {
		if !set {
			return nil
		}
		return func(_ context.Context, out metric.Int64Observer) error { out.Observe(read()); return nil }
	}
	spool := func(read func(SpoolReading) int64) metric.Int64Callback {
		return value(r.Spool != nil, func() int64 { return read(r.Spool()) })
	}
	return map[string]metric.Int64Callback{
		sessionsLive:       value(r.Sessions != nil, func() int64 { return int64(r.Sessions()) }),
		containmentsActive: value(r.Containments != nil, func() int64 { return int64(r.Containments()) }),
		spoolLastSeq:       spool(func(s SpoolReading) int64 { return int64(s.LastSeq) }),
		spoolSyncedSeq:     spool(func(s SpoolReading) int64 { return int64(s.SyncedSeq) }),
		spoolStoredSeq:     spool(func(s SpoolReading) int64 { return int64(s.StoredSeq) }),
		spoolBytes:         spool(func(s SpoolReading) int64 { return s.Bytes }),
		spoolQueue:         spool(func(s SpoolReading) int64 { return s.Queue }),
		storeUp: value(r.StoreUp != nil, func() int64 {
			if r.StoreUp() {
				return 1
			}
			return 0
		}),
		syslogSent:    value(r.Syslog != nil, func() int64 { sent, _ := r.Syslog(); return int64(sent) }),
		syslogDropped: value(r.Syslog != nil, func() int64 { _, dropped := r.Syslog(); return int64(dropped) }),
		bytesRelayed: func(_ context.Context, out metric.Int64Observer) error {
			out.Observe(i.BytesIn.Load(), with("direction", "in"))
			out.Observe(i.BytesOut.Load(), with("direction", "out"))
			return nil
		},
		statements: i.observeStatements,
		buildInfo: func(_ context.Context, out metric.Int64Observer) error {
			out.Observe(1, with("version", o.Version, "commit", o.Commit, "go", goVersion))
			return nil
		},
	}
}

// Statement gives the counter of a kind and outcome of statements. A session asks for it once and adds to it for each
// statement.
func (i *Instruments) Statement(kind, outcome string) *atomic.Int64 {
	key := statementKey{kind, outcome}
	i.mu.Lock()
	defer i.mu.Unlock()
	if c := i.statements[key]; c != nil {
		return c
	}
	if len(i.statements) >= maxStatementCounters {
		key = statementKey{other, other}
		if c := i.statements[key]; c != nil {
			return c
		}
	}
	c := &atomic.Int64{}
	i.statements[key] = c
	return c
}

func (i *Instruments) observeStatements(_ context.Context, out metric.Int64Observer) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	for key, c := range i.statements {
		out.Observe(c.Load(), with("kind", key.kind, "outcome", key.outcome))
	}
	return nil
}

// UpstreamDial counts an attempt to connect to a member of the cluster that took d.
func (i *Instruments) UpstreamDial(cluster string, ok bool, d time.Duration) {
	result := "failed"
	if ok {
		result = "ok"
		i.histograms[upstreamDialSeconds].Record(context.Background(), d.Seconds(), with("cluster", cluster))
	}
	i.add(upstreamDials, "cluster", cluster, "result", result)
}

// Event counts what the event says. Traffic of self-tests counts too: metrics are for operating the node, and the
// evidence leaves it out by itself. Blocks of statements are not counted here but by Statement.
func (i *Instruments) Event(e csf.Event) {
	fact := func(name string) string { s, _ := e.Facts[name].(string); return s }
	switch e.Kind {
	case csf.ConnAccepted:
		i.add(connectionsAccepted, "listener", fact("listener"))
	case csf.ConnRejected, csf.ProxyRefused, csf.TLSPlaintextRefused, csf.TLSRefused, csf.StartupRefused, csf.CancelRefused,
		csf.AuthzDenied, csf.LimitExceeded:
		i.add(connectionsRejected, "reason", string(e.Reason))
	case csf.AuthSucceeded:
		i.add(authentications, "method", fact("method"), "result", "succeeded")
	case csf.AuthFailed:
		i.add(connectionsRejected, "reason", string(e.Reason))
		i.add(authentications, "method", fact("method"), "result", "failed")
	case csf.AuthDowngrade:
		i.add(connectionsRejected, "reason", string(e.Reason))
		i.add(authentications, "method", fact("method"), "result", "downgrade_refused")
	case csf.SessionBound:
		i.add(sessionsBound, "cluster", e.Cluster)
	case csf.SessionClosed, csf.SessionTerminated:
		i.add(sessionsEnded, "reason", string(e.Reason))
		if ms, ok := number(e.Facts["duration_ms"]); ok {
			i.histograms[sessionSeconds].Record(context.Background(), ms/1000)
		}
	case csf.ProtocolViolation:
		i.add(violations, "side", fact("side"), "type", fact("type"), "reason", string(e.Reason), "source", e.Source, "identity", e.Identity)
		if fact("side") == "backend" && e.Upstream != "" {
			i.add(upstreamViolations, "cluster", e.Cluster, "member", e.Upstream, "reason", string(e.Reason))
		}
	case csf.UpstreamFailed, csf.TLSUpstreamVerifyFailed:
		i.add(upstreamFailures, "cluster", e.Cluster, "reason", string(e.Reason))
	case csf.FailoverSwitched:
		i.add(failovers, "cluster", e.Cluster)
		if ms, ok := number(e.Facts["ms"]); ok {
			i.histograms[failoverSeconds].Record(context.Background(), ms/1000, with("cluster", e.Cluster))
		}
	case csf.FindingOpened:
		i.add(findings, "rule", fact("rule"), "severity", fact("severity"))
	case csf.ContainmentApplied:
		i.add(containments, "scope", fact("scope"))
	case csf.AlertSent:
		i.add(alerts, "result", "sent")
	case csf.AlertFailed:
		i.add(alerts, "result", "failed")
	case csf.AdminAction:
		i.add(apiCalls, "result", "served")
	case csf.AdminDenied:
		i.add(apiCalls, "result", "denied")
	}
}

func (i *Instruments) add(name string, labels ...string) {
	i.counters[name].Add(context.Background(), 1, with(labels...))
}

// with gives the labels, written as name, value, name, value; an empty value counts as other.
func with(labels ...string) metric.MeasurementOption {
	attributes := make([]attribute.KeyValue, 0, len(labels)/2)
	for n := 0; n+1 < len(labels); n += 2 {
		value := labels[n+1]
		if value == "" {
			value = other
		}
		attributes = append(attributes, attribute.String(labels[n], value))
	}
	return metric.WithAttributeSet(attribute.NewSet(attributes...))
}

// number reads a fact that is a number, whoever made it: the program or JSON.
func number(v any) (float64, bool) {
	switch n := v.(type) {
	case int:
		return float64(n), true
	case int64:
		return float64(n), true
	case uint64:
		return float64(n), true
	case float64:
		return n, true
	}
	return 0, false
}
