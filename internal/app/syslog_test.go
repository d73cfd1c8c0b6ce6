package app

import (
	"errors"
	"net"
	"strings"
	"testing"
)

// TestSyslogIsCounted sends the node's events to a syslog server, which gets them, and the metrics count them.
func TestSyslogIsCounted(t *testing.T) {
	server, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	n := startNode(t, setup{API: "127.0.0.1:0", Syslog: "udp://" + server.LocalAddr().String()})
	b := make([]byte, 64<<10)
	got, _, err := server.ReadFrom(b)
	if err != nil || !strings.Contains(string(b[:got]), n.setup.Name) {
		t.Fatalf("%q %v", b[:got], err)
	}
	eventually(t, "metrics", func() error {
		text := n.get("/metrics")
		if sent, dropped := metric(text, "csfproxy_syslog_sent_total"), metric(text, "csfproxy_syslog_dropped_total"); sent == "absent" || sent == "0" || dropped != "0" {
			return errors.New("sent " + sent + ", dropped " + dropped)
		}
		return nil
	})
}
