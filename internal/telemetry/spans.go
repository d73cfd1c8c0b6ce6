package telemetry

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/csfproxy/csfproxy/csf"
)

// Span makes a trace span of an event that ends something with a duration: a session, a runbook, a switch of the
// primary, a self-test. Spans are made when the thing has ended, so that tracing costs the living nothing. Without a
// collector it does nothing.
func (t *Telemetry) Span(e csf.Event) {
	if t.tracers == nil {
		return
	}
	name, field := "", ""
	switch e.Kind {
	case csf.SessionClosed, csf.SessionTerminated:
		name, field = "session", "duration_ms"
	case csf.RunbookFinished:
		name, field = "runbook", "ms"
	case csf.FailoverSwitched:
		name, field = "failover", "ms"
	case csf.SelfTestRun:
		name, field = "selftest", "duration_ms"
	default:
		return
	}
	ms, _ := integer(e.Facts[field])
	took := time.Duration(ms) * time.Millisecond
	attrs := []attribute.KeyValue{attribute.String("csfproxy.kind", string(e.Kind)), attribute.Int64("csfproxy.seq", int64(e.Seq))}
	for key, value := range map[string]string{
		"session.id": e.Session, "enduser.id": e.Identity, "csfproxy.reason": string(e.Reason), "csfproxy.source": e.Source, "csfproxy.cluster": e.Cluster,
		"server.address": e.Upstream,
	} {
		if value != "" {
			attrs = append(attrs, attribute.String(key, value))
		}
	}
	if e.Client.IsValid() {
		attrs = append(attrs, attribute.String("client.address", e.Client.Addr().String()))
	}
	for key, value := range e.Facts {
		switch v := value.(type) {
		case string:
			attrs = append(attrs, attribute.String("csfproxy."+key, v))
		case bool:
			attrs = append(attrs, attribute.Bool("csfproxy."+key, v))
		default:
			if n, ok := integer(v); ok {
				attrs = append(attrs, attribute.Int64("csfproxy."+key, n))
			}
		}
	}
	kind := trace.SpanKindInternal
	if name == "session" {
		kind = trace.SpanKindServer
		attrs = append(attrs, attribute.String("db.system.name", "postgresql"))
	}
	_, span := t.Tracer().Start(context.Background(), name, trace.WithTimestamp(e.Time.Add(-took)), trace.WithSpanKind(kind), trace.WithAttributes(attrs...))
	if e.Kind == csf.SessionTerminated || e.Facts["result"] == "fail" || e.Facts["result"] == "failed" {
		span.SetStatus(codes.Error, string(e.Reason))
	}
	span.End(trace.WithTimestamp(e.Time))
}

func integer(v any) (int64, bool) {
	switch n := v.(type) {
	case int:
		return int64(n), true
	case int64:
		return n, true
	case uint64:
		return int64(n), true
	case uint32:
		return int64(n), true
	case float64:
		return int64(n), true
	}
	return 0, false
}
