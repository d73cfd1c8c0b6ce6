package telemetry

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net"
	"net/http/httptest"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/csfproxy/csfproxy/csf"
)

var when = time.Date(2026, 3, 1, 12, 0, 0, 5000, time.FixedZone("CET", 3600))

func TestFormat(t *testing.T) {
	tests := []struct {
		name, host string
		event      csf.Event
		want       string // of the header
	}{
		{"plain", "edge-1", csf.Event{Kind: csf.ConnAccepted, Time: when}, "<110>1 2026-03-01T11:00:00.000005Z edge-1 csfproxy - conn.accepted - "},
		{"refused", "edge-1", csf.Event{Kind: csf.ConnRejected, Reason: csf.ReasonTooMany, Time: when}, "<109>1 2026-03-01T11:00:00.000005Z edge-1 csfproxy - conn.rejected - "},
		{"critical finding", "e", csf.Event{Kind: csf.FindingOpened, Time: when, Facts: csf.Facts{"severity": "critical"}}, "<106>1 2026-03-01T11:00:00.000005Z e csfproxy - finding.opened - "},
		{"a host with spaces and control bytes", "a b\r\n<1>é", csf.Event{Kind: csf.ConnAccepted, Time: when}, "<110>1 2026-03-01T11:00:00.000005Z ab<1> csfproxy - conn.accepted - "},
		{"no host", "", csf.Event{Kind: csf.ConnAccepted, Time: when}, "<110>1 2026-03-01T11:00:00.000005Z - csfproxy - conn.accepted - "},
		{"facts with line ends", "e", csf.Event{Kind: csf.ConnAccepted, Time: when, Facts: csf.Facts{"detail": "a\n<1>1 b"}}, "<110>1 2026-03-01T11:00:00.000005Z e csfproxy - conn.accepted - "},
		{"facts too large", "e", csf.Event{Kind: csf.ConnAccepted, Time: when, Facts: csf.Facts{"detail": strings.Repeat("x", 1<<20)}}, "<110>1 2026-03-01T11:00:00.000005Z e csfproxy - conn.accepted - "},
		{"facts that JSON cannot hold", "e", csf.Event{Kind: csf.ConnAccepted, Time: when, Facts: csf.Facts{"detail": func() {}}}, "<110>1 2026-03-01T11:00:00.000005Z e csfproxy - conn.accepted - "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := string(Format(tt.event, tt.host))
			body, ok := strings.CutPrefix(got, tt.want)
			if !ok {
				t.Fatalf("got  %.120s\nwant %s", got, tt.want)
			}
			if strings.ContainsAny(got, "\r\n") || len(got) > syslogBytes {
				t.Errorf("not one message: %d bytes", len(got))
			}
			var e csf.Event
			if err := json.Unmarshal([]byte(body), &e); err != nil || e.Kind != tt.event.Kind {
				t.Errorf("body %.80s: %v", body, err)
			}
		})
	}
}

func TestParseSyslog(t *testing.T) {
	for target, want := range map[string]string{
		"udp://siem": "udp siem:514", "tcp://10.0.0.1:601": "tcp 10.0.0.1:601", "tls://siem.example": "tls siem.example:6514", "udp://[::1]:5514": "udp [::1]:5514",
		"siem:514": "", "http://siem": "", "tls://": "", "tcp://siem/path": "",
	} {
		network, address, err := ParseSyslog(target)
		if got := network + " " + address; want != "" && (err != nil || got != want) || want == "" && err == nil {
			t.Errorf("%s: %s, %v; want %q", target, got, err, want)
		}
	}
}

func TestSyslogOverEachTransport(t *testing.T) {
	certificate := httptest.NewUnstartedServer(nil)
	certificate.StartTLS()
	defer certificate.Close()
	pool := x509.NewCertPool()
	pool.AddCert(certificate.Certificate())

	for _, network := range []string{"udp", "tcp", "tls"} {
		t.Run(network, func(t *testing.T) {
			var address string
			messages := make(chan string, 10)
			if network == "udp" {
				conn, err := net.ListenPacket("udp", "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				address = conn.LocalAddr().String()
				go func() {
					buffer := make([]byte, syslogBytes)
					for {
						n, _, err := conn.ReadFrom(buffer)
						if err != nil {
							return
						}
						messages <- string(buffer[:n])
					}
				}()
			} else {
				l, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				if network == "tls" {
					l = tls.NewListener(l, &tls.Config{Certificates: certificate.TLS.Certificates})
				}
				defer l.Close()
				address = l.Addr().String()
				go readCounted(l, messages)
			}
			s, err := StartSyslog(network+"://"+address, "edge-1", &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			pattern := regexp.MustCompile(`^<\d+>1 \S+ edge-1 csfproxy - conn\.accepted - \{.*"seq":(\d+).*\}$`)
			for seq := range uint64(3) {
				s.Send(csf.Event{Kind: csf.ConnAccepted, Seq: seq, Time: when})
				select {
				case m := <-messages:
					if got := pattern.FindStringSubmatch(m); got == nil || got[1] != strconv.FormatUint(seq, 10) {
						t.Errorf("message %q", m)
					}
				case <-time.After(10 * time.Second):
					t.Fatal("no message came")
				}
			}
		})
	}
}

// readCounted reads octet-counted messages from one connection after the other.
func readCounted(l net.Listener, messages chan<- string) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		r := bufio.NewReader(conn)
		for {
			count, err := r.ReadString(' ')
			if err != nil {
				break
			}
			n, err := strconv.Atoi(strings.TrimSpace(count))
			if err != nil {
				break
			}
			body := make([]byte, n)
			if _, err := io.ReadFull(r, body); err != nil {
				break
			}
			messages <- string(body)
		}
		conn.Close()
	}
}

func TestSyslogDropsAndCountsWhenTheServerIsAway(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close() // nobody listens there now
	s, err := StartSyslog("tcp://"+address, "edge-1", nil)
	if err != nil {
		t.Fatal(err)
	}
	const events = syslogQueue + 100
	for range events {
		s.Send(csf.Event{Kind: csf.ConnAccepted, Time: when}) // must not block
	}
	if _, dropped := s.Counts(); dropped < 99 {
		t.Errorf("%d dropped while the queue is full", dropped)
	}
	s.Close()
	if sent, dropped := s.Counts(); sent != 0 || dropped != events {
		t.Errorf("%d sent, %d dropped of %d", sent, dropped, events)
	}
}
