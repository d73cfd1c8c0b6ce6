// Package telemetry turns what the ingress does into metrics for Prometheus, traces for an OTLP collector and
// events for a syslog server.
//
// It guarantees that the metrics are those of the table Metrics and no others of the product, that their labels
// have few values whatever clients send, that counting on the path of a statement is one atomic addition, and that
// neither a slow collector nor a dead syslog server holds up a session: what cannot be sent in time is dropped and
// counted, because the log of record is the spool.
//
// It starts the goroutines of the OpenTelemetry trace exporter when an OTLP endpoint is given, and one for a syslog
// writer; Telemetry.Shutdown and Syslog.Close end them and wait. It listens nowhere.
package telemetry
