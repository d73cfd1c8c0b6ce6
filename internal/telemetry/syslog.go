package telemetry

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/csfproxy/csfproxy/csf"
)

const (
	// syslogQueue is how many events wait for the server; further ones are dropped and counted.
	syslogQueue = 4096
	// syslogBytes is the largest message: of a datagram (RFC 5426, section 3.2, with IPv4's 65535 less the headers).
	syslogBytes   = 65000
	syslogWrite   = 5 * time.Second
	syslogBackoff = 30 * time.Second
	// facilityAudit is "log audit" (RFC 5424, table 1).
	facilityAudit = 13
)

// Syslog sends events to a syslog server in the form of RFC 5424 with the event as JSON: a copy for a SIEM, not the
// log of record. What does not get through is dropped and counted.
type Syslog struct {
	network, address string
	tls              *tls.Config
	host             string
	queue            chan csf.Event
	sent, dropped    atomic.Uint64
	end              context.CancelFunc
	done             sync.WaitGroup
}

// StartSyslog starts the writer to target (udp://, tcp:// or tls:// host:port; the port left out is 514, for TLS
// 6514) under the name of the node. It does not wait for the server. config is for tls and may be nil.
func StartSyslog(target, node string, config *tls.Config) (*Syslog, error) {
	network, address, err := ParseSyslog(target)
	if err != nil {
		return nil, err
	}
	ctx, end := context.WithCancel(context.Background())
	s := &Syslog{network: network, address: address, host: headerField(node, 255), queue: make(chan csf.Event, syslogQueue), end: end}
	if network == "tls" {
		if s.tls = config.Clone(); s.tls == nil {
			s.tls = &tls.Config{MinVersion: tls.VersionTLS12}
		}
		if s.tls.ServerName == "" {
			s.tls.ServerName, _, _ = net.SplitHostPort(address)
		}
	}
	s.done.Go(func() { s.run(ctx) })
	return s, nil
}

// ParseSyslog reads a target.
func ParseSyslog(target string) (network, address string, err error) {
	u, err := url.Parse(target)
	if err != nil || u.Hostname() == "" || u.Path != "" {
		return "", "", fmt.Errorf("telemetry.syslog: %q is no address: write udp://host:514, tcp://host:514 or tls://host:6514", target)
	}
	port := u.Port()
	switch u.Scheme {
	case "udp", "tcp":
		if port == "" {
			port = "514"
		}
	case "tls":
		if port == "" {
			port = "6514" // RFC 5425, section 4.1
		}
	default:
		return "", "", fmt.Errorf("telemetry.syslog: %q: use udp, tcp or tls", target)
	}
	return u.Scheme, net.JoinHostPort(u.Hostname(), port), nil
}

// Send queues the event. It does not block.
func (s *Syslog) Send(e csf.Event) {
	select {
	case s.queue <- e:
	default:
		s.dropped.Add(1)
	}
}

// Counts gives the numbers of events sent and dropped.
func (s *Syslog) Counts() (sent, dropped uint64) { return s.sent.Load(), s.dropped.Load() }

// Close ends the writer; what still waits is dropped and counted.
func (s *Syslog) Close() {
	s.end()
	s.done.Wait()
	for {
		select {
		case <-s.queue:
			s.dropped.Add(1)
		default:
			return
		}
	}
}

// run owns the connection.
func (s *Syslog) run(ctx context.Context) {
	var conn net.Conn
	defer func() {
		if conn != nil {
			conn.Close()
		}
	}()
	for {
		var e csf.Event
		select {
		case <-ctx.Done():
			return
		case e = <-s.queue:
		}
		message := frame(s.network, Format(e, s.host))
		for wait := 250 * time.Millisecond; ; wait = min(2*wait, syslogBackoff) {
			var err error
			if conn == nil {
				conn, err = s.dial(ctx)
			}
			if err == nil {
				if err = write(conn, message); err == nil {
					s.sent.Add(1)
					break
				}
				conn.Close()
				conn = nil
				if s.network == "udp" { // refused by the host: the next datagram may be welcome
					s.dropped.Add(1)
					break
				}
			}
			select {
			case <-ctx.Done():
				s.dropped.Add(1)
				return
			case <-time.After(wait):
			}
		}
	}
}

func (s *Syslog) dial(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, syslogWrite)
	defer cancel()
	if s.network == "tls" {
		return (&tls.Dialer{Config: s.tls}).DialContext(ctx, "tcp", s.address)
	}
	return (&net.Dialer{}).DialContext(ctx, s.network, s.address)
}

func write(conn net.Conn, message []byte) error {
	if err := conn.SetWriteDeadline(time.Now().Add(syslogWrite)); err != nil {
		return err
	}
	_, err := conn.Write(message)
	return err
}

// frame makes a message fit for the transport: octet counting on streams (RFC 5425, section 4.3; RFC 6587, 3.4.1).
func frame(network string, message []byte) []byte {
	if network == "udp" {
		return message
	}
	return append([]byte(strconv.Itoa(len(message))+" "), message...)
}

// Format renders an event as a message of RFC 5424: facility 13 (log audit), a severity by kind, the node as
// hostname, the kind as MSGID and the event as JSON. Facts that would make the message too long are left out and
// named.
func Format(e csf.Event, host string) []byte {
	body, err := json.Marshal(e)
	if err != nil || len(body) > syslogBytes-1000 {
		e.Facts = csf.Facts{"facts_left_out": "too large for syslog"}
		if body, err = json.Marshal(e); err != nil {
			body = []byte("{}")
		}
	}
	return fmt.Appendf(nil, "<%d>1 %s %s csfproxy - %s - %s", facilityAudit*8+severity(e),
		e.Time.UTC().Format("2006-01-02T15:04:05.000000Z"), headerField(host, 255), headerField(string(e.Kind), 32), body)
}

// severity gives RFC 5424's severity (table 2): 2 critical to 6 informational.
func severity(e csf.Event) int {
	const critical, failure, warning, notice, informational = 2, 3, 4, 5, 6
	switch e.Kind {
	case csf.FindingOpened:
		switch e.Facts["severity"] {
		case "critical":
			return critical
		case "high":
			return failure
		}
		return warning
	case csf.LogGapDetected, csf.LogSinkFailed, csf.HealthDown:
		return failure
	case csf.ContainmentApplied, csf.QueryBlocked, csf.ProtocolViolation, csf.AuthDowngrade:
		return warning
	}
	if e.Reason != "" {
		return notice
	}
	return informational
}

// headerField makes a field of the header: printable ASCII without spaces, "-" when there is nothing.
func headerField(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' {
			return -1
		}
		return r
	}, s)
	if s == "" {
		return "-"
	}
	return s[:min(len(s), most)]
}
