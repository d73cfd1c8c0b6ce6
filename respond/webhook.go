package respond

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/detect"
)

// Receiver is one that alerts are posted to. Its URL and secret are never shown.
type Receiver struct {
	// Name stands for the receiver in events.
	Name string
	URL  string
	// Secret signs the body: SignatureHeader holds "sha256=" and the HMAC-SHA-256, in hexadecimal, of the value of
	// TimestampHeader, a point and the body. Without one nothing is signed.
	Secret []byte
}

// The headers of an alert's request.
const (
	SignatureHeader = "X-Csfproxy-Signature"
	TimestampHeader = "X-Csfproxy-Timestamp"
	// DeliveryHeader is equal in all attempts for one alert.
	DeliveryHeader = "X-Csfproxy-Delivery"
)

// AlertConfig is what an Alerter needs. Zero values mean the defaults that stand with the fields.
type AlertConfig struct {
	Receivers []Receiver
	// Node is node.name, in the body.
	Node     string
	Recorder Recorder
	// Transport makes the requests; default: one of its own, without proxy settings of the environment.
	Transport http.RoundTripper
	Clock     func() time.Time
	// Jitter gives a number from 0 to 1 that spreads the waits; default random.
	Jitter func() float64
	// Queue is how many alerts may wait per receiver; default 256.
	Queue int
	// Attempts is how often one is tried; default 6. Wait is the time before the second attempt, which doubles each
	// time up to a minute; default 1 s. Timeout is of one attempt; default 10 s.
	Attempts      int
	Wait, Timeout time.Duration
}

// Alert is the body of a request.
type Alert struct {
	// Version is of this form.
	Version int            `json:"version"`
	Node    string         `json:"node"`
	Time    time.Time      `json:"time"`
	Finding detect.Finding `json:"finding"`
}

// Alerter posts findings to receivers.
type Alerter struct {
	cfg       AlertConfig
	client    *http.Client
	receivers []*receiver
}

type receiver struct {
	Receiver
	parsed *url.URL
	queue  chan Alert
}

// maxWait bounds the time between attempts.
const maxWait = time.Minute

// NewAlerter checks the receivers. Run must be running for alerts to leave.
func NewAlerter(cfg AlertConfig) (*Alerter, error) {
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	if cfg.Jitter == nil {
		cfg.Jitter = rand.Float64
	}
	if cfg.Queue <= 0 {
		cfg.Queue = 256
	}
	if cfg.Attempts <= 0 {
		cfg.Attempts = 6
	}
	if cfg.Wait <= 0 {
		cfg.Wait = time.Second
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = 10 * time.Second
	}
	if cfg.Transport == nil {
		cfg.Transport = &http.Transport{MaxIdleConnsPerHost: 1, IdleConnTimeout: 30 * time.Second}
	}
	a := &Alerter{cfg: cfg, client: &http.Client{
		Transport: cfg.Transport, Timeout: cfg.Timeout,
		// A redirect would carry the alert, and what the URL holds, to another place.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	for _, r := range cfg.Receivers {
		u, err := url.Parse(r.URL)
		if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
			return nil, fmt.Errorf("the receiver %q has no URL of the form https://host/path", r.Name)
		}
		a.receivers = append(a.receivers, &receiver{Receiver: r, parsed: u, queue: make(chan Alert, cfg.Queue)})
	}
	return a, nil
}

// Send hands a finding to each receiver's queue and does not wait. What does not fit has failed, by an event.
func (a *Alerter) Send(f detect.Finding) {
	alert := Alert{Version: 1, Node: a.cfg.Node, Time: a.cfg.Clock().UTC(), Finding: f}
	for _, r := range a.receivers {
		select {
		case r.queue <- alert:
		default:
			a.failed(r, alert, 0, "the queue of the receiver is full")
		}
	}
}

// Run posts alerts until the context ends; what has not left by then has failed, by an event.
func (a *Alerter) Run(ctx context.Context) {
	var wg sync.WaitGroup
	for _, r := range a.receivers {
		wg.Go(func() { a.serve(ctx, r) })
	}
	wg.Wait()
	a.client.CloseIdleConnections()
}

func (a *Alerter) serve(ctx context.Context, r *receiver) {
	for {
		select {
		case <-ctx.Done():
			for {
				select {
				case alert := <-r.queue:
					a.failed(r, alert, 0, "the node stopped before the alert left")
				default:
					return
				}
			}
		case alert := <-r.queue:
			a.deliver(ctx, r, alert)
		}
	}
}

// deliver tries until the receiver takes the alert, refuses it for good, or the attempts are used up.
func (a *Alerter) deliver(ctx context.Context, r *receiver, alert Alert) {
	body, err := json.Marshal(alert)
	if err != nil {
		a.failed(r, alert, 0, err.Error())
		return
	}
	wait := a.cfg.Wait
	for attempt := 1; ; attempt++ {
		again, err := a.post(ctx, r, alert, body)
		if err == nil {
			a.record(csf.AlertSent, alert, csf.Facts{
				"receiver": r.Name, "finding": alert.Finding.ID, "rule": alert.Finding.RuleID, "attempts": attempt,
				"latency_ms": a.cfg.Clock().Sub(alert.Time).Milliseconds(),
			})
			return
		}
		if !again || attempt >= a.cfg.Attempts || ctx.Err() != nil {
			a.failed(r, alert, attempt, r.scrub(err))
			return
		}
		t := time.NewTimer(wait + time.Duration(a.cfg.Jitter()*float64(wait)/2))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			a.failed(r, alert, attempt, r.scrub(err))
			return
		}
		wait = min(2*wait, maxWait)
	}
}

// post makes one attempt; again says whether another may succeed.
func (a *Alerter) post(ctx context.Context, r *receiver, alert Alert, body []byte) (again bool, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.URL, bytes.NewReader(body))
	if err != nil {
		return false, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "csfproxy")
	req.Header.Set(DeliveryHeader, alert.Finding.ID+"-"+strconv.Itoa(alert.Finding.Repeated))
	if len(r.Secret) > 0 {
		stamp := strconv.FormatInt(a.cfg.Clock().Unix(), 10)
		req.Header.Set(TimestampHeader, stamp)
		req.Header.Set(SignatureHeader, Sign(r.Secret, stamp, body))
	}
	resp, err := a.client.Do(req)
	if err != nil {
		return true, err
	}
	_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10)) // so that the connection can be used again
	err = errors.Join(err, resp.Body.Close())
	switch s := resp.StatusCode; {
	case s >= 200 && s < 300:
		return false, nil // taken, even if reading its answer failed
	case s >= 500 || s == http.StatusTooManyRequests || s == http.StatusRequestTimeout:
		return true, errors.Join(fmt.Errorf("the receiver answered %d", s), err)
	default:
		return false, fmt.Errorf("the receiver refused with %d", s)
	}
}

// Sign gives the value of SignatureHeader.
func Sign(secret []byte, timestamp string, body []byte) string {
	m := hmac.New(sha256.New, secret)
	m.Write([]byte(timestamp))
	m.Write([]byte{'.'})
	m.Write(body)
	return "sha256=" + hex.EncodeToString(m.Sum(nil))
}

func (a *Alerter) failed(r *receiver, alert Alert, attempts int, detail string) {
	a.record(csf.AlertFailed, alert, csf.Facts{
		"receiver": r.Name, "finding": alert.Finding.ID, "rule": alert.Finding.RuleID, "attempts": attempts, "detail": detail,
		"latency_ms": a.cfg.Clock().Sub(alert.Time).Milliseconds(),
	})
}

func (a *Alerter) record(k csf.Kind, alert Alert, facts csf.Facts) {
	if a.cfg.Recorder != nil {
		a.cfg.Recorder.Record(csf.Event{Time: a.cfg.Clock().UTC(), Kind: k, Identity: alert.Finding.Identity, Facts: facts})
	}
}

// scrub gives an error's text without the receiver's URL or any part of it that may be a secret.
func (r *receiver) scrub(err error) string {
	var ue *url.Error
	if errors.As(err, &ue) {
		err = ue.Err
	}
	text := err.Error()
	secrets := []string{r.URL, string(r.Secret), r.parsed.RequestURI(), strings.TrimPrefix(r.parsed.EscapedPath(), "/"), r.parsed.RawQuery}
	if p, ok := r.parsed.User.Password(); ok {
		secrets = append(secrets, p)
	}
	secrets = append(secrets, r.parsed.User.Username())
	for _, s := range secrets {
		if len(s) > 1 {
			text = strings.ReplaceAll(text, s, "[redacted]")
		}
	}
	return text
}
