package app

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/detect"
	"github.com/csfproxy/csfproxy/proxy"
	"github.com/csfproxy/csfproxy/proxy/upstream"
	"github.com/csfproxy/csfproxy/respond"
)

// openDetection builds the rules, the containments and the alerts, and lets them see every event.
func (a *App) openDetection(ctx context.Context) error {
	cfg := a.cfg.Load()
	dir := filepath.Join(cfg.Node.DataDir, "respond")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	var err error
	a.contain, err = respond.New(respond.Config{
		Dir: dir, Exempt: cfg.Respond.Exempt, Recorder: a.records, Sessions: sessionEnder{a},
	})
	if err != nil {
		return err
	}
	r := &respond.Responder{Containments: a.contain, Sessions: sessionEnder{a}, Log: a.log}
	if len(cfg.Respond.Webhooks) > 0 {
		var receivers []respond.Receiver
		for _, w := range cfg.Respond.Webhooks {
			receivers = append(receivers, respond.Receiver{Name: w.Name, URL: w.URL.Value, Secret: []byte(w.Secret.Value)})
		}
		if r.Alerts, err = respond.NewAlerter(respond.AlertConfig{Node: cfg.Node.Name, Receivers: receivers, Recorder: a.records}); err != nil {
			return err
		}
		a.serve(ctx, "alerts", func(ctx context.Context) error { r.Alerts.Run(ctx); return nil })
	}
	if a.detect, err = detect.New(detect.Config{Rules: cfg.Rules, Recorder: a.records, Responder: r}); err != nil {
		return err
	}
	a.records.look(a.detect.Observe)
	a.serve(ctx, "detection", func(ctx context.Context) error { a.detect.Run(ctx); return nil })
	a.serve(ctx, "containments", func(ctx context.Context) error { a.contain.Run(ctx); return nil })
	return nil
}

// sessionEnder lets containments end live sessions.
type sessionEnder struct{ a *App }

// EndSessions ends the matching sessions and gives their number.
func (e sessionEnder) EndSessions(match func(respond.SessionView) bool, reason csf.Reason) int {
	if e.a.ingress == nil {
		return 0
	}
	return e.a.ingress.End(func(v proxy.View) bool {
		return match(respond.SessionView{ID: v.ID, Identity: v.Identity, Database: v.Database, Client: v.Client.Addr()})
	}, reason, "containment")
}

// gate lets containments refuse sessions.
type gate struct{ c *respond.Containments }

// Admit says whether the address and, when they are known, the identity and the database may come in.
func (g gate) Admit(client netip.Addr, identity, database string) (csf.Reason, string, bool) {
	reason, c, contained := g.c.Check(time.Now(), client, identity, database)
	return reason, c.Subject, !contained
}

// router gives clusters by name.
type router map[string]*upstream.Cluster

// Cluster gives the cluster of a name.
func (r router) Cluster(name string) (*upstream.Cluster, bool) {
	c, ok := r[name]
	return c, ok
}
