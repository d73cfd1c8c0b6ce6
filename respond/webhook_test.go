package respond

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/detect"
)

// transport answers requests by a function, without a network, so that time can be simulated.
type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func answer(status int) (*http.Response, error) {
	return &http.Response{StatusCode: status, Header: http.Header{"Location": {"https://elsewhere.example/"}}, Body: io.NopCloser(strings.NewReader("x"))}, nil
}

// canary stands in every secret; it may appear in no event.
const canary = "Kx9canary"

func receiverOf(name string) Receiver {
	return Receiver{Name: name, URL: "https://user" + canary + ":pass" + canary + "@hook.example/services/" + canary + "?token=" + canary, Secret: []byte("secret" + canary)}
}

func TestAlerts(t *testing.T) {
	timeout := errors.New("dial tcp: i/o timeout")
	tests := []struct {
		name     string
		answers  []any // a status or an error for each attempt
		kind     csf.Kind
		attempts int
		latency  int64 // milliseconds
		detail   string
	}{
		{"taken", []any{204}, csf.AlertSent, 1, 0, ""},
		{"taken after failures", []any{503, timeout, 429, 200}, csf.AlertSent, 4, 7000, ""},
		{"refused", []any{404}, csf.AlertFailed, 1, 0, "refused with 404"},
		{"redirected", []any{302}, csf.AlertFailed, 1, 0, "refused with 302"},
		{"never taken", []any{500, 500, 500, 500, 500, 500}, csf.AlertFailed, 6, 31000, "answered 500"},
		{"secret in the error", []any{fmt.Errorf("cannot reach /services/%s?token=%s as user%s:pass%s", canary, canary, canary, canary), 404}, csf.AlertFailed, 2, 1000, "404"},
		{"secret in the last error", []any{500, 500, 500, 500, 500, fmt.Errorf("cannot reach /services/%s?token=%s as user%s:pass%s", canary, canary, canary, canary)}, csf.AlertFailed, 6, 31000, "[redacted]"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, n := &sink{}, 0
				a, err := NewAlerter(AlertConfig{Receivers: []Receiver{receiverOf("soc")}, Node: "edge-1", Recorder: s, Jitter: func() float64 { return 0 },
					Transport: transport(func(*http.Request) (*http.Response, error) {
						n++
						switch v := tt.answers[n-1].(type) {
						case error:
							return nil, v
						default:
							return answer(v.(int))
						}
					})})
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithCancel(context.Background())
				done := make(chan struct{})
				go func() { defer close(done); a.Run(ctx) }()
				a.Send(detect.Finding{ID: "f1", RuleID: "r"})
				time.Sleep(5 * time.Minute)
				synctest.Wait()
				cancel()
				<-done
				if n != len(tt.answers) || len(s.events) != 1 {
					t.Fatalf("%d attempts, events %v", n, s.events)
				}
				e := s.events[0]
				if e.Kind != tt.kind || e.Facts["attempts"] != tt.attempts || e.Facts["latency_ms"] != tt.latency || e.Facts["receiver"] != "soc" || e.Facts["finding"] != "f1" {
					t.Errorf("%s %v", e.Kind, e.Facts)
				}
				if d, _ := e.Facts["detail"].(string); !strings.Contains(d, tt.detail) {
					t.Errorf("detail %q, want %q", d, tt.detail)
				}
				if b := e.Facts.JSON(); bytes.Contains(b, []byte(canary)) {
					t.Errorf("a secret is in the event: %s", b)
				}
			})
		})
	}
}

// TestAlertQueue: a receiver that does not answer delays neither the caller nor another receiver, and each alert ends
// in one event, even at the stop.
func TestAlertQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sink{}
		a, err := NewAlerter(AlertConfig{Receivers: []Receiver{{Name: "slow", URL: "https://slow.example/"}, {Name: "fast", URL: "https://fast.example/"}}, Queue: 4, Recorder: s,
			Transport: transport(func(r *http.Request) (*http.Response, error) {
				if r.URL.Host == "slow.example" {
					<-r.Context().Done()
					return nil, r.Context().Err()
				}
				return answer(200)
			})})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() { defer close(done); a.Run(ctx) }()
		for i := range 10 {
			a.Send(detect.Finding{ID: fmt.Sprint(i)})
			synctest.Wait()
		}
		cancel()
		<-done
		got := map[string]int{}
		for _, e := range s.events {
			got[string(e.Kind)+" "+e.Facts["receiver"].(string)]++
		}
		if got["alert.sent fast"] != 10 || got["alert.failed slow"] != 10 || len(got) != 2 {
			t.Errorf("events: %v", got)
		}
	})
}

// TestSignature posts over a real connection and checks what the receiver sees.
func TestSignature(t *testing.T) {
	secret := []byte("s3cret")
	var mu sync.Mutex
	var body []byte
	var header http.Header
	taken := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		body, _ = io.ReadAll(r.Body)
		header = r.Header
		close(taken)
	}))
	defer srv.Close()
	a, err := NewAlerter(AlertConfig{Receivers: []Receiver{{Name: "soc", URL: srv.URL, Secret: secret}}, Node: "edge-1"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); a.Run(ctx) }()
	a.Send(detect.Finding{ID: "f1", RuleID: "r", Title: "T", Severity: detect.SeverityHigh})
	<-taken
	cancel()
	<-done
	mu.Lock()
	defer mu.Unlock()
	if got, want := header.Get(SignatureHeader), Sign(secret, header.Get(TimestampHeader), body); got != want || !strings.HasPrefix(got, "sha256=") {
		t.Errorf("signature %q, want %q", got, want)
	}
	if header.Get(SignatureHeader) == Sign([]byte("other"), header.Get(TimestampHeader), body) {
		t.Error("the signature does not depend on the secret")
	}
	var alert Alert
	if err := json.Unmarshal(body, &alert); err != nil || alert.Node != "edge-1" || alert.Finding.ID != "f1" || alert.Version != 1 {
		t.Errorf("%v %s", err, body)
	}
}

func TestReceiverURLs(t *testing.T) {
	for _, u := range []string{"", "hook.example", "ftp://" + canary + "@hook.example/", "https://", "https://" + canary + "\x7f/"} {
		_, err := NewAlerter(AlertConfig{Receivers: []Receiver{{Name: "soc", URL: u}}})
		if err == nil || strings.Contains(err.Error(), canary) {
			t.Errorf("%q: %v", u, err)
		}
	}
}

func TestResponder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, live := &sink{}, &sessions{live: []SessionView{{ID: "1", Identity: "app"}, {ID: "2", Identity: "app"}}}
		c, err := New(Config{Recorder: s, Sessions: live, Exempt: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}})
		if err != nil {
			t.Fatal(err)
		}
		sent := 0
		a, err := NewAlerter(AlertConfig{Receivers: []Receiver{{Name: "soc", URL: "https://hook.example/"}}, Recorder: s,
			Transport: transport(func(*http.Request) (*http.Response, error) { sent++; return answer(200) })})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() { defer close(done); a.Run(ctx) }()
		var log bytes.Buffer
		r := &Responder{Containments: c, Sessions: live, Alerts: a, Log: slog.New(slog.NewTextHandler(&log, nil))}

		f := detect.Finding{ID: "f", RuleID: "auth.guessing_source", Title: "T", Client: addr("192.0.2.1"), Last: time.Now(),
			Responses: []detect.Response{{Action: detect.ActionRefuse}, {Action: detect.ActionContainSource, For: time.Minute}, {Action: detect.ActionAlert}}}
		for i := range 101 {
			f.Repeated = i
			r.Respond(ctx, f)
		}
		synctest.Wait()
		if sent != 3 { // the first, the 10th and the 100th
			t.Errorf("%d alerts", sent)
		}
		if n := len(s.of(csf.ContainmentApplied)); n != 1 {
			t.Errorf("%d containments of one source", n)
		}
		time.Sleep(31 * time.Second)
		r.Respond(ctx, f)
		if n := len(s.of(csf.ContainmentApplied)); n != 2 {
			t.Errorf("%d containments after half its time", n)
		}
		synctest.Wait()
		if _, e, found := c.Check(time.Now(), addr("192.0.2.1"), "", ""); !found || e.Finding != "f" || e.By != "rule auth.guessing_source" || len(c.List()) != 1 {
			t.Errorf("source: %v %+v", found, e)
		}
		r.Respond(ctx, detect.Finding{Session: "1", Responses: []detect.Response{{Action: detect.ActionEndSession}}})
		if len(live.live) != 1 || live.reasons[0] != csf.ReasonKilled {
			t.Errorf("sessions: %+v %v", live.live, live.reasons)
		}
		r.Respond(ctx, detect.Finding{Identity: "app", Responses: []detect.Response{{Action: detect.ActionContainIdentity, For: time.Minute}}})
		if len(live.live) != 0 {
			t.Errorf("sessions: %+v", live.live)
		}
		r.Respond(ctx, detect.Finding{Client: addr("10.1.1.1"), Responses: []detect.Response{{Action: detect.ActionContainSource, For: time.Minute}}})
		if _, _, found := c.Check(time.Now(), addr("10.1.1.1"), "", ""); found || !strings.Contains(log.String(), "exempt") {
			t.Errorf("an exempt source: %v, log %q", found, log.String())
		}
		for _, action := range []detect.ResponseAction{detect.ActionContainSource, detect.ActionContainIdentity, detect.ActionEndSession} { // of nobody
			r.Respond(ctx, detect.Finding{Responses: []detect.Response{{Action: action, For: time.Minute}}})
		}
		if len(c.List()) != 2 {
			t.Errorf("in force: %+v", c.List())
		}
		cancel()
		<-done
	})
}
