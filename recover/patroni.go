package recovery

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Bounds of Patroni's REST API.
const (
	patroniTimeout = 3 * time.Second
	patroniAnswer  = 1 << 20
	patroniPoll    = 500 * time.Millisecond
	// A failover by Patroni waits for its cycle (loop_wait, 10 s unless set).
	patroniSwitch = 60 * time.Second
)

// leader is what Patroni said last.
type leader struct {
	// known says that an API answered.
	known bool
	// member is the configured member that leads; "" when Patroni names none, or one that is not configured.
	member string
}

// patroni speaks Patroni's REST API (Patroni documentation, "Patroni REST API"). The failover is Patroni's: this
// client follows its leader and asks it to fail over.
type patroni struct {
	urls   []string
	client *http.Client
}

func newPatroni(urls []string) (*patroni, error) {
	if len(urls) == 0 {
		return nil, errors.New("failover.patroni needs the address of at least one REST API")
	}
	p := &patroni{client: &http.Client{
		Timeout:       patroniSwitch,
		Transport:     &http.Transport{DisableKeepAlives: true, Proxy: nil},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	for _, u := range urls {
		parsed, err := url.Parse(u)
		if err != nil || parsed.Host == "" || parsed.Scheme != "http" && parsed.Scheme != "https" {
			return nil, errors.New("failover.patroni: each entry must be an http or https address") // it may hold a password
		}
		p.urls = append(p.urls, strings.TrimRight(u, "/"))
	}
	return p, nil
}

// patroniMember is one entry of GET /cluster.
type patroniMember struct {
	Name  string `json:"name"`
	Role  string `json:"role"`
	State string `json:"state"`
	Host  string `json:"host"`
	Port  int    `json:"port"`
	// Lag is a number of bytes, or the word "unknown".
	Lag json.RawMessage `json:"lag"`
}

func (m patroniMember) address() string { return net.JoinHostPort(m.Host, strconv.Itoa(m.Port)) }

// lag gives the bytes, or a number beyond every limit when unknown.
func (m patroniMember) lag() int64 {
	n, err := strconv.ParseInt(string(m.Lag), 10, 64)
	if err != nil {
		return 1<<63 - 1
	}
	return n
}

// leads says whether the member holds the leader lock of a cluster that takes writes ("master" until Patroni 4).
func (m patroniMember) leads() bool {
	return (m.Role == "leader" || m.Role == "master") && m.State == "running"
}

// cluster asks the APIs one after the other for the members.
func (p *patroni) cluster(ctx context.Context) ([]patroniMember, error) {
	var errs []error
	for _, u := range p.urls {
		var answer struct {
			Members []patroniMember `json:"members"`
		}
		one, cancel := context.WithTimeout(ctx, patroniTimeout)
		body, status, err := p.call(one, http.MethodGet, u+"/cluster", nil)
		cancel()
		if err == nil && status != http.StatusOK {
			err = fmt.Errorf("status %d", status)
		}
		if err == nil {
			err = json.Unmarshal(body, &answer)
		}
		if err == nil {
			return answer.Members, nil
		}
		errs = append(errs, err)
	}
	return nil, fmt.Errorf("asking Patroni: it cannot be asked: %w", errors.Join(errs...))
}

// leader maps Patroni's leader to a configured member. Two leaders in one answer are none.
func (p *patroni) leader(ctx context.Context, configured []string) leader {
	members, err := p.cluster(ctx)
	if err != nil {
		return leader{}
	}
	l := leader{known: true}
	leading := 0
	for _, m := range members {
		if !m.leads() {
			continue
		}
		leading++
		for _, c := range configured {
			if c == m.address() {
				l.member = c
			}
		}
	}
	if leading > 1 {
		l.member = ""
	}
	return l
}

// replace asks Patroni to put another member into the leader's place: POST /switchover while there is a leader, POST
// /failover otherwise. It gives the address of the candidate.
func (p *patroni) replace(ctx context.Context, from string, dryRun bool) (string, error) {
	members, err := p.cluster(ctx)
	if err != nil {
		return "", err
	}
	var candidate *patroniMember
	request := map[string]string{}
	path := "/failover"
	for i, m := range members {
		switch {
		case m.leads():
			path, request["leader"] = "/switchover", m.Name
			if m.address() != from {
				return m.address(), nil // it has happened already
			}
		case m.address() == from || m.State != "running" && m.State != "streaming":
		case m.Role != "replica" && m.Role != "sync_standby" && m.Role != "quorum_standby":
		case candidate == nil || m.Role != "replica" && candidate.Role == "replica" || m.Role == candidate.Role && m.lag() < candidate.lag():
			candidate = &members[i]
		}
	}
	if candidate == nil {
		return "", errors.New("by Patroni's list there is no replica that could take over")
	}
	request["candidate"] = candidate.Name
	if dryRun {
		return candidate.address(), nil
	}
	body, err := json.Marshal(request)
	if err != nil {
		return "", err
	}
	var errs []error
	for _, u := range p.urls {
		_, status, err := p.call(ctx, http.MethodPost, u+path, body)
		switch {
		case err != nil:
			errs = append(errs, err)
		case status == http.StatusOK || status == http.StatusAccepted:
			return candidate.address(), nil
		default:
			errs = append(errs, fmt.Errorf("POST %s: status %d", path, status))
		}
	}
	return "", fmt.Errorf("asking Patroni: it did not fail over: %w", errors.Join(errs...))
}

// call makes one bounded request. Errors do not carry the address, which may hold a password.
func (p *patroni) call(ctx context.Context, method, address string, body []byte) ([]byte, int, error) {
	req, err := http.NewRequestWithContext(ctx, method, address, bytes.NewReader(body))
	if err != nil {
		return nil, 0, errors.New("invalid address")
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := p.client.Do(req)
	if err != nil {
		if u, ok := errors.AsType[*url.Error](err); ok {
			err = u.Err
		}
		return nil, 0, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, patroniAnswer))
	if err != nil {
		return nil, 0, err
	}
	return b, resp.StatusCode, nil
}

// watchPatroni keeps what Patroni says of its leader.
func (c *cluster) watchPatroni(ctx context.Context) {
	tick := time.NewTicker(max(c.interval, patroniPoll))
	defer tick.Stop()
	for {
		l := c.patroni.leader(ctx, c.up.Members())
		if ctx.Err() != nil {
			return
		}
		c.mu.Lock()
		c.leader = l
		c.mu.Unlock()
		c.nudge()
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// ask has Patroni replace the leader, and waits until it names another one.
func (x *execution) ask(ctx context.Context) (string, error) {
	p := x.cluster.patroni
	candidate, err := p.replace(ctx, x.plan.From, x.dry())
	if err != nil {
		return "", err
	}
	if x.dry() {
		x.plan.To = candidate
		return "would ask Patroni for " + candidate, nil
	}
	err = pollUntil(ctx, patroniPoll/5, func() (bool, error) {
		l := p.leader(ctx, x.cluster.up.Members())
		if l.member == "" || l.member == x.plan.From {
			return false, errors.New("by Patroni's list there is no new leader yet")
		}
		x.plan.To = l.member
		return true, nil
	})
	if err != nil {
		return "", err
	}
	return "Patroni names " + x.plan.To + " the leader", nil
}
