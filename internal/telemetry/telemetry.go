package telemetry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	promexporter "go.opentelemetry.io/otel/exporters/prometheus"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

const scope = "github.com/csfproxy/csfproxy"

// Options is what New needs.
type Options struct {
	// OTLP is the endpoint of traces (http or https); "" switches them off.
	OTLP string
	// Node, Version and Commit name what is running.
	Node, Version, Commit string
	// Readings are the numbers that others hold.
	Readings Readings
}

// Readings are read at each scrape. A nil function leaves its metrics out. Each must return at once.
type Readings struct {
	Sessions     func() int
	Containments func() int
	Spool        func() SpoolReading
	StoreUp      func() bool
	// Syslog gives the numbers of events sent and dropped.
	Syslog func() (sent, dropped uint64)
}

// SpoolReading is the state of the spool.
type SpoolReading struct {
	LastSeq, SyncedSeq, StoredSeq uint64
	Bytes, Queue                  int64
}

// Telemetry holds the instruments and the exporters.
type Telemetry struct {
	// Instruments is what the program counts with.
	Instruments *Instruments

	registry *prometheus.Registry
	meters   *sdkmetric.MeterProvider
	tracers  *sdktrace.TracerProvider // nil: off
}

// New builds the instruments on a registry of their own. It reaches out to nothing: a collector that is away costs
// traces, not the start.
func New(ctx context.Context, o Options) (*Telemetry, error) {
	t := &Telemetry{registry: prometheus.NewRegistry()}
	for _, c := range []prometheus.Collector{collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{})} {
		if err := t.registry.Register(c); err != nil {
			return nil, fmt.Errorf("telemetry: %w", err)
		}
	}
	exporter, err := promexporter.New(promexporter.WithRegisterer(t.registry), promexporter.WithoutScopeInfo(), promexporter.WithoutTargetInfo())
	if err != nil {
		return nil, fmt.Errorf("telemetry: %w", err)
	}
	res := resource.NewSchemaless(attribute.String("service.name", "csfproxy"),
		attribute.String("service.version", o.Version), attribute.String("service.instance.id", o.Node))
	t.meters = sdkmetric.NewMeterProvider(sdkmetric.WithReader(exporter), sdkmetric.WithResource(res), sdkmetric.WithCardinalityLimit(500))
	if t.Instruments, err = newInstruments(t.meters.Meter(scope), o, runtime.Version()); err != nil {
		return nil, errors.Join(fmt.Errorf("telemetry: %w", err), t.meters.Shutdown(ctx))
	}
	if o.OTLP == "" {
		return t, nil
	}
	if err := CheckOTLP(o.OTLP); err != nil {
		return nil, errors.Join(err, t.meters.Shutdown(ctx))
	}
	spans, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(tracesURL(o.OTLP)))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("telemetry.otlp: %w", err), t.meters.Shutdown(ctx))
	}
	t.tracers = sdktrace.NewTracerProvider(sdktrace.WithBatcher(spans), sdktrace.WithResource(res))
	return t, nil
}

// CheckOTLP says whether the endpoint can be one.
func CheckOTLP(endpoint string) error {
	u, err := url.Parse(endpoint)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return fmt.Errorf("telemetry.otlp: %q is no endpoint: write http://collector:4318 or https://…", endpoint)
	}
	return nil
}

// tracesURL gives the path of the OTLP specification (OTLP/HTTP, "OTLP/HTTP Request") to an endpoint without one.
func tracesURL(endpoint string) string {
	if u, err := url.Parse(endpoint); err == nil && (u.Path == "" || u.Path == "/") {
		u.Path = "/v1/traces"
		return u.String()
	}
	return endpoint
}

// Handler serves the metrics in Prometheus form.
func (t *Telemetry) Handler() http.Handler {
	return promhttp.HandlerFor(t.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4, EnableOpenMetrics: true})
}

// Tracer makes spans; they go nowhere when there is no OTLP endpoint.
func (t *Telemetry) Tracer() trace.Tracer {
	if t.tracers == nil {
		return noop.NewTracerProvider().Tracer(scope)
	}
	return t.tracers.Tracer(scope)
}

// Shutdown sends what is left of the traces until ctx ends, and ends the exporters' goroutines.
func (t *Telemetry) Shutdown(ctx context.Context) error {
	err := t.meters.Shutdown(ctx)
	if t.tracers != nil {
		err = errors.Join(err, t.tracers.Shutdown(ctx))
	}
	return err
}
