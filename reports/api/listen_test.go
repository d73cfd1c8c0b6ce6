package api_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/internal/pki"
	"github.com/csfproxy/csfproxy/reports/api"
)

func TestCheckAddress(t *testing.T) {
	for _, tt := range []struct {
		address   string
		tls       bool
		local, ok bool
	}{
		{"127.0.0.1:8432", false, true, true}, {"[::1]:8432", false, true, true}, {"localhost:8432", false, true, true}, {"127.1.2.3:1", false, true, true},
		{"0.0.0.0:8432", false, false, false}, {":8432", false, false, false}, {"10.0.0.1:8432", false, false, false}, {"[::]:8432", false, false, false},
		{"db.example:8432", false, false, false}, {"localhost.example:8432", false, false, false}, {"127.0.0.1", false, false, false},
		{"0.0.0.0:8432", true, false, true}, {"127.0.0.1:8432", true, true, true},
	} {
		if local, err := api.CheckAddress(tt.address, tt.tls); local != tt.local && err == nil || (err == nil) != tt.ok {
			t.Errorf("%s, TLS %v: local %v, %v", tt.address, tt.tls, local, err)
		}
	}
}

// serve starts the node's listener and ends it with the test.
func (n *node) serve(t *testing.T, cert, key string) *api.Listener {
	t.Helper()
	l, err := n.Listen("127.0.0.1:0", cert, key)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- l.Serve() }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := l.Close(ctx); err != nil {
			t.Errorf("close: %v", err)
		}
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return l
}

func TestStream(t *testing.T) {
	n := start(t, true)
	l := n.serve(t, "", "")
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	open := func(query string) (*bufio.Reader, func()) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+l.Addr().String()+"/v1/events/stream"+query, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+n.tokens[api.RoleAuditor])
		answer, err := (&http.Client{Transport: transport}).Do(r)
		if err != nil {
			t.Fatal(err)
		}
		if answer.StatusCode != 200 || answer.Header.Get("Content-Type") != "text/event-stream" {
			t.Fatalf("%d %v", answer.StatusCode, answer.Header)
		}
		lines := bufio.NewReader(answer.Body)
		if line, err := lines.ReadString('\n'); err != nil || line != ": csfproxy\n" { // the subscription stands
			t.Fatalf("%q, %v", line, err)
		}
		return lines, func() { answer.Body.Close() }
	}
	all, closeAll := open("")
	defer closeAll()
	failed, closeFailed := open("?kind=auth.failed&identity=billing")
	defer closeFailed()
	if events := n.estate.Recorded(); len(events) != 2 || events[0].Facts["action"] != "GET /v1/events/stream" {
		t.Errorf("a stream that is open has no event yet: %v", events)
	}
	for seq := uint64(1); seq <= 3; seq++ {
		e := csf.Event{Seq: seq, Node: "edge-1", Kind: csf.ConnAccepted}
		if seq == 2 {
			e.Kind, e.Identity = csf.AuthFailed, "billing"
		}
		n.services.Stream.Publish(e)
	}
	expect := func(r *bufio.Reader, seqs ...uint64) {
		t.Helper()
		for _, seq := range seqs {
			var id, data string
			for data == "" {
				line, err := r.ReadString('\n')
				if err != nil {
					t.Fatal(err)
				}
				if v, ok := strings.CutPrefix(line, "id: "); ok {
					id = strings.TrimSpace(v)
				} else if v, ok := strings.CutPrefix(line, "data: "); ok {
					data = v
				}
			}
			var e api.Event
			if err := json.Unmarshal([]byte(data), &e); err != nil || e.Seq != seq || id != fmt.Sprintf("edge-1:%d", seq) || len(e.CSF) == 0 {
				t.Errorf("id %s, event %s; want %d", id, data, seq)
			}
		}
	}
	expect(all, 1, 2, 3)
	expect(failed, 2)
	if len(n.estate.Recorded()) != 2 {
		t.Errorf("a stream has %d events", len(n.estate.Recorded()))
	}
	// The cleanup closes the listener while the streams are open; it must not wait for them.
}

func TestFanoutNeverWaits(t *testing.T) {
	f := api.NewFanout()
	all := func(csf.Event) bool { return true }
	slow, err := f.Subscribe(all)
	if err != nil {
		t.Fatal(err)
	}
	const events = 5000
	for range events {
		f.Publish(csf.Event{})
	}
	if got := len(slow.C) + int(slow.Lost()); got != events || slow.Lost() != 0 {
		t.Errorf("%d of %d events kept or counted", got, events)
	}
	open := 1
	for ; open < 1000; open++ {
		if _, err = f.Subscribe(all); err != nil {
			break
		}
	}
	if open != 32 {
		t.Errorf("%d subscriptions", open)
	}
	slow.Close()
	slow.Close()
	if _, err := f.Subscribe(all); err != nil {
		t.Errorf("no room after a close: %v", err)
	}
}

func TestTLSAndItsReload(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert"), filepath.Join(dir, "key")
	first := certificate(t, cert, key)
	n := start(t, false)
	l := n.serve(t, cert, key)
	served := func() *big.Int {
		t.Helper()
		conn, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{InsecureSkipVerify: true}) // the serial number is what is looked at
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].SerialNumber
	}
	if got := served(); got.Cmp(first) != 0 {
		t.Errorf("serves %v", got)
	}
	write(t, cert, "nonsense", 0o600)
	if err := l.Reload(); err == nil || served().Cmp(first) != 0 {
		t.Errorf("reload of nonsense: %v", err)
	}
	second := certificate(t, cert, key)
	if err := l.Reload(); err != nil || served().Cmp(second) != 0 {
		t.Errorf("reload: %v", err)
	}
	if _, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS11}); err == nil {
		t.Error("TLS 1.1 was taken")
	}
	if _, err := n.Listen("0.0.0.0:0", "", ""); err == nil {
		t.Error("plaintext on every address")
	}
	if _, err := n.Listen("127.0.0.1:0", filepath.Join(dir, "none"), key); err == nil {
		t.Error("a certificate that is not there")
	}
}

func certificate(t *testing.T, cert, key string) *big.Int {
	t.Helper()
	pair, err := pki.SelfSigned("api")
	if err != nil {
		t.Fatal(err)
	}
	if err := pair.Write(cert, key); err != nil {
		t.Fatal(err)
	}
	return pair.Leaf.SerialNumber
}

func TestHeadersAreBounded(t *testing.T) {
	n := start(t, true)
	l := n.serve(t, "", "")
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := fmt.Fprintf(conn, "GET /healthz HTTP/1.1\r\nHost: x\r\nX: %s\r\n\r\n", strings.Repeat("x", 64<<10)); err != nil {
		t.Fatal(err)
	}
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil || answer.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("%v, %v", answer, err)
	}
	if answer != nil {
		answer.Body.Close()
	}
}

func TestAPanicStaysInItsCall(t *testing.T) {
	n := start(t, false)
	services := n.services
	services.Metrics = http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("inside") })
	s, err := api.New(api.Options{Services: services, Guard: n.Guard(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	n.Server = s
	w := n.call("GET", "/metrics", n.tokens[api.RoleAuditor], "")
	if p := problem(t, w, 500); strings.Contains(fmt.Sprint(p["detail"]), "inside") {
		t.Errorf("the caller is told %v", p["detail"])
	}
	if w := n.call("GET", "/healthz", "", ""); w.Code != 200 {
		t.Errorf("after a panic: %d", w.Code)
	}
}
