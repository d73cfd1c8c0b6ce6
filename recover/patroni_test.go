package recovery

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/internal/config"
)

// patroniServer speaks Patroni's REST API over a world.
type patroniServer struct {
	*httptest.Server
	w     *world
	mu    sync.Mutex
	calls []string
	mute  bool
}

func newPatroniServer(t *testing.T, w *world) *patroniServer {
	s := &patroniServer{w: w}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /cluster", s.cluster)
	mux.HandleFunc("POST /failover", s.replace)
	mux.HandleFunc("POST /switchover", s.replace)
	s.Server = httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s
}

func (s *patroniServer) cluster(rw http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	mute := s.mute
	s.mu.Unlock()
	if mute {
		rw.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	var members []string
	for _, name := range worldMembers {
		m := s.w.servers[name]
		role, state, lag := "replica", "streaming", "0"
		switch {
		case !m.alive:
			state, lag = "stopped", `"unknown"`
		case m.role == RolePrimary:
			role, state = "leader", "running"
		case m.lsn < 1000:
			lag = fmt.Sprint(uint64(1000 - m.lsn))
		}
		host := strings.TrimSuffix(name, ":1")
		members = append(members, fmt.Sprintf(`{"name": "pg-%s", "role": %q, "state": %q, "api_url": "http://%s:8008/patroni", "host": %q, "port": 1, "timeline": %d, "lag": %s}`,
			host, role, state, host, host, m.timeline, lag))
	}
	fmt.Fprintf(rw, `{"members": [%s], "scope": "orders"}`, strings.Join(members, ","))
}

func (s *patroniServer) replace(rw http.ResponseWriter, r *http.Request) {
	var body struct{ Leader, Candidate string }
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil || body.Candidate == "" {
		rw.WriteHeader(http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	s.calls = append(s.calls, fmt.Sprintf("%s leader=%s candidate=%s", r.URL.Path, body.Leader, body.Candidate))
	s.mu.Unlock()
	if body.Leader != "" { // Patroni demotes the leader before it promotes the candidate
		s.w.set(strings.TrimPrefix(body.Leader, "pg-")+":1", func(m *server) { m.role = RoleStandby })
	}
	_ = s.w.Promote(r.Context(), strings.TrimPrefix(body.Candidate, "pg-")+":1")
	fmt.Fprint(rw, "Successfully switched over")
}

func TestPatroni(t *testing.T) {
	w := newWorld()
	api := newPatroniServer(t, w)
	rec := &recorder{}
	cfg := config.Failover{Manager: "patroni", Patroni: []string{"http://127.0.0.1:1", api.URL + "/"}}
	e, up := w.engine(t, t.TempDir(), cfg, rec)
	start(t, e)
	eventually(t, "the leader is followed", routedTo(up, "a:1"))

	run, err := e.Start(t.Context(), "switchover", "orders", TriggerAPI, "dba", true, "")
	if err != nil {
		t.Fatal(err)
	}
	if run, err = e.Wait(t.Context(), run.ID); err != nil || run.State != StateDone || len(api.calls) != 0 {
		t.Fatalf("dry run %+v %v, calls %v", run, err, api.calls)
	}

	if run, err = e.Start(t.Context(), "switchover", "orders", TriggerAPI, "dba", false, ""); err != nil {
		t.Fatal(err)
	}
	if run, err = e.Wait(t.Context(), run.ID); err != nil || run.State != StateDone || run.To != "c:1" {
		t.Fatalf("switchover %+v %v", run, err)
	}
	if r, ok := up.Primary(); !ok || r.Address != "c:1" || r.Term != 2 {
		t.Errorf("route %v", r)
	}

	// The new leader dies while Patroni has not noticed: the runbook asks for a failover.
	w.set("b:1", func(s *server) { s.timeline, s.follows = 2, "c:1" })
	w.set("a:1", func(s *server) { s.timeline, s.follows, s.lsn = 2, "c:1", 900 })
	w.set("c:1", func(s *server) { s.alive = false })
	eventually(t, "lost", func() bool { lost, _ := Lost("c:1", e.clusters[0].observations(), 3); return lost })
	if run, err = e.Start(t.Context(), "failover", "orders", TriggerCLI, "dba", false, ""); err != nil {
		t.Fatal(err)
	}
	if run, err = e.Wait(t.Context(), run.ID); err != nil || run.State != StateDone || run.To != "b:1" {
		t.Fatalf("failover %+v %v", run, err)
	}
	api.mu.Lock()
	calls := strings.Join(api.calls, "; ")
	api.mu.Unlock()
	if want := "/switchover leader=pg-a candidate=pg-c; /failover leader= candidate=pg-b"; calls != want {
		t.Errorf("calls %q, want %q", calls, want)
	}
	if n := len(rec.of(csf.FailoverSwitched)); n != 2 {
		t.Errorf("%d switches recorded", n)
	}
	for _, m := range up.State().Members {
		if m.Bad != "" {
			t.Errorf("%s is marked although Patroni may choose it again: %s", m.Address, m.Bad)
		}
	}

	// Patroni switches by itself: the route follows under a new term.
	w.set("b:1", func(s *server) { s.role = RoleStandby })
	w.set("a:1", func(s *server) { s.role, s.timeline = RolePrimary, 4 })
	eventually(t, "Patroni's own switch is followed", routedTo(up, "a:1"))
	if r, _ := up.Primary(); r.Term != 4 {
		t.Errorf("term %d", r.Term)
	}

	// Its API is silent: the primary stays as long as it says that it is one.
	api.mu.Lock()
	api.mute = true
	api.mu.Unlock()
	eventually(t, "Patroni is silent", func() bool {
		c := e.clusters[0]
		c.mu.Lock()
		defer c.mu.Unlock()
		return !c.leader.known
	})
	if !routedTo(up, "a:1")() {
		t.Error("the route was withdrawn from a primary that answers")
	}
	w.set("a:1", func(s *server) { s.role = RoleStandby })
	eventually(t, "the route is withdrawn", func() bool { _, ok := up.Primary(); return !ok })
}

func TestPatroniRefusesAddresses(t *testing.T) {
	for _, urls := range [][]string{nil, {"db1:8008"}, {"ftp://db1"}, {"http://"}} {
		if _, err := newPatroni(urls); err == nil {
			t.Errorf("%q was accepted", urls)
		}
	}
}
