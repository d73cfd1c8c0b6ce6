package app

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/reports/api"
	"github.com/csfproxy/csfproxy/reports/web"
)

// openAPI opens the REST API and the dashboard on one listener.
func (a *App) openAPI(ctx context.Context) error {
	cfg := a.cfg.Load()
	if cfg.API.Address == "off" {
		return nil
	}
	file := cfg.API.Tokens
	var err error
	if file == "" {
		if a.tokenDir, err = api.GenerateTokens(cfg.Node.DataDir); err != nil {
			return err
		}
		file = a.tokenDir.Register
	}
	if a.tokens, err = api.LoadTokens(file); err != nil {
		return err
	}
	a.reader = a.tokens.AddSelfTest(api.RoleAuditor)
	withTLS := cfg.API.TLS.Cert != ""
	local, err := api.CheckAddress(cfg.API.Address, withTLS)
	if err != nil {
		return err
	}
	services := a.services()
	a.serve(ctx, "reports", a.shelf.Run)
	guard := api.NewGuard(a.tokens, services.Recorder, time.Now, a.log)
	dashboard, err := web.New(web.Options{Services: services, Guard: guard, TLS: withTLS, Log: a.log})
	if err != nil {
		return err
	}
	srv, err := api.New(api.Options{Services: services, Guard: guard, Dashboard: dashboard, Local: local, TLS: withTLS, Log: a.log})
	if err != nil {
		return err
	}
	if a.http, err = srv.Listen(cfg.API.Address, cfg.API.TLS.Cert, cfg.API.TLS.Key); err != nil {
		return err
	}
	a.serve(ctx, "API", func(ctx context.Context) error {
		stop := context.AfterFunc(ctx, func() {
			end, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
			defer cancel()
			if err := a.http.Close(end); err != nil {
				a.log.Info("calls of the API were cut off", "error", err)
			}
		})
		defer stop()
		return a.http.Serve()
	})
	return nil
}

// services are the real things behind the API's interfaces.
func (a *App) services() api.Services {
	var metrics http.Handler
	if a.cfg.Load().Telemetry.Prometheus {
		metrics = a.telemetry.Handler()
	}
	a.shelf = newReportShelf(a, filepath.Join(a.cfg.Load().Node.DataDir, "reports"))
	return api.Services{
		Coverage: coverage{a}, Controls: coverage{a}, Events: eventReader{a}, Finder: eventReader{a}, Load: &a.load, Findings: findings{a}, Sessions: sessions{a}, Containments: containments{a},
		Registers: registers{a}, Upstreams: upstreams{a}, Runbooks: runbooks{a}, SelfTests: selfTests{a}, Reports: a.shelf, Proofs: proofs{a}, Holds: holds{a}, Erasures: erasures{a}, Custody: custody{a}, Health: health{a},
		Recorder: apiRecorder{a.records}, Stream: a.records.stream, Metrics: metrics,
		Version: api.Version{Version: a.opt.Version, Commit: commit(), Go: runtime.Version(), Node: a.cfg.Load().Node.Name,
			Mapping: csf.BuiltinMapping().Version, StartedAt: a.started.UTC().Format(time.RFC3339)},
	}
}

// Addr gives the address that the named listener is bound to.
func (a *App) Addr(listener string) string {
	if addr := a.ingress.Addr(listener); addr != nil {
		return addr.String()
	}
	return ""
}

// APIAddr gives the address of the API and dashboard, "off" when there is none.
func (a *App) APIAddr() string {
	if a.http == nil {
		return "off"
	}
	return a.http.Addr().String()
}

// Token gives the first token of a role, as long as its file lies in the data directory.
func (a *App) Token(role api.Role) (string, error) {
	b, err := os.ReadFile(a.tokenDir.Plain[role])
	if err != nil {
		return "", fmt.Errorf("token of %s: %w", role, err)
	}
	return strings.TrimSpace(string(b)), nil
}

// Recent gives the newest events that are kept in memory, oldest first, those of self-tests included.
func (a *App) Recent(since time.Time, kinds ...csf.Kind) []csf.Event {
	return a.records.recent.since(since, kinds...)
}

// health says how the parts of the node are.
type health struct{ a *App }

// Components gives what others have measured already.
func (h health) Components(context.Context) []api.Component {
	a := h.a
	st := a.records.spool.Stats()
	spool := api.Component{Name: "spool", Status: api.StatusOK, Detail: fmt.Sprintf("%d of %d bytes, %d records", st.Bytes, st.MaxBytes, st.LastSeq)}
	switch {
	case st.Err != nil:
		spool.Status, spool.Detail = api.StatusFailed, st.Err.Error()
	case st.Full || st.Refusing:
		spool.Status = api.StatusFailed
		if a.cfg.Load().Audit.WhenUnavailable == "allow" {
			spool.Status = api.StatusDegraded
		}
	}
	out := []api.Component{spool, a.keeper.component(), a.translog.component()}
	for _, l := range a.cfg.Load().Listeners {
		c := api.Component{Name: "listener " + l.Name, Status: api.StatusOK, Detail: a.Addr(l.Name)}
		if _, _, err := net.SplitHostPort(c.Detail); err != nil {
			c.Status = api.StatusFailed
		}
		out = append(out, c)
	}
	for _, s := range a.recovery.Statuses() {
		c := api.Component{Name: "cluster " + s.Cluster, Status: api.StatusOK, Detail: "primary " + s.Routing.Primary}
		switch {
		case s.Routing.Primary == "" || s.Fault != "":
			c.Status, c.Detail = api.StatusFailed, strings.TrimSpace("no primary "+s.Fault+" "+s.Topology.Detail)
		case s.Routing.Paused:
			c.Status, c.Detail = api.StatusDegraded, "paused"
		case s.Topology.Problem != "":
			c.Status, c.Detail = api.StatusDegraded, string(s.Topology.Problem)+" "+s.Topology.Detail
		}
		out = append(out, c)
	}
	return out
}
