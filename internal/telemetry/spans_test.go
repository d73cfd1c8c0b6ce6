package telemetry

import (
	"testing"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/csfproxy/csfproxy/csf"
)

func TestSpansOfEvents(t *testing.T) {
	spans := tracetest.NewSpanRecorder()
	tel := &Telemetry{tracers: sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))}
	end := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for _, e := range []csf.Event{
		{Time: end, Kind: csf.SessionTerminated, Reason: csf.ReasonKilled, Session: "s1", Identity: "orders", Facts: csf.Facts{"duration_ms": int64(1500), "statements": int64(7)}},
		{Time: end, Kind: csf.FailoverSwitched, Cluster: "shop", Facts: csf.Facts{"ms": int64(200)}},
		{Time: end, Kind: csf.ConnAccepted},
	} {
		tel.Span(e)
	}
	ended := spans.Ended()
	if len(ended) != 2 {
		t.Fatalf("%d spans of two things that have a duration", len(ended))
	}
	s := ended[0]
	if s.Name() != "session" || !s.StartTime().Equal(end.Add(-1500*time.Millisecond)) || !s.EndTime().Equal(end) {
		t.Errorf("%s from %s to %s", s.Name(), s.StartTime(), s.EndTime())
	}
	attrs := map[string]string{}
	for _, a := range s.Attributes() {
		attrs[string(a.Key)] = a.Value.String()
	}
	for key, want := range map[string]string{"session.id": "s1", "enduser.id": "orders", "csfproxy.reason": "killed", "csfproxy.statements": "7"} {
		if attrs[key] != want {
			t.Errorf("attribute %s is %q, want %q", key, attrs[key], want)
		}
	}
	(&Telemetry{}).Span(csf.Event{Kind: csf.SessionClosed}) // without a collector nothing happens
}
