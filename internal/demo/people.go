package demo

import (
	"context"
	"crypto/hmac"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/csfproxy/csfproxy/internal/client"
	"github.com/csfproxy/csfproxy/reports/api"
	"github.com/csfproxy/csfproxy/respond"
	"github.com/jackc/pgx/v5"
)

// onCall is the receiver of alerts: it takes those whose signature is right.
type onCall struct {
	secret string
	server *http.Server
	addr   string

	mu     sync.Mutex
	alerts []string
	forged int
}

func startOnCall(secret string) (*onCall, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	o := &onCall{secret: secret, addr: ln.Addr().String()}
	o.server = &http.Server{Handler: o, ReadHeaderTimeout: 5 * time.Second}
	go o.server.Serve(ln)
	return o, nil
}

// ServeHTTP takes an alert.
func (o *onCall) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	want := respond.Sign([]byte(o.secret), r.Header.Get(respond.TimestampHeader), body)
	o.mu.Lock()
	defer o.mu.Unlock()
	if !hmac.Equal([]byte(want), []byte(r.Header.Get(respond.SignatureHeader))) {
		o.forged++
		w.WriteHeader(http.StatusForbidden)
		return
	}
	o.alerts = append(o.alerts, string(body))
}

func (o *onCall) taken(part string) (n int, found bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, a := range o.alerts {
		found = found || strings.Contains(a, part)
	}
	return len(o.alerts), found && o.forged == 0
}

// alerted waits for the alert about the password guessing.
func (s *show) alerted(ctx context.Context) (string, bool) {
	ctx, cancel := short(ctx)
	defer cancel()
	for ctx.Err() == nil {
		if n, ok := s.estate.onCall.taken("auth.brute_force"); ok {
			return fmt.Sprintf("%d alerts received, each with a right signature", n), true
		}
		time.Sleep(5 * time.Millisecond)
	}
	return "the alert did not arrive", false
}

// killed lets an auditor and an operator try to end a session through the REST API.
func (s *show) killed(ctx context.Context) (string, bool) {
	ctx, cancel := short(ctx)
	defer cancel()
	c, err := pgx.Connect(ctx, s.estate.url("migrations", s.estate.apps))
	if err != nil {
		return err.Error(), false
	}
	defer c.Close(context.WithoutCancel(ctx))
	auditor, err := s.caller(api.RoleAuditor)
	if err != nil {
		return err.Error(), false
	}
	operator, err := s.caller(api.RoleOperator)
	if err != nil {
		return err.Error(), false
	}
	live, err := client.All[api.Session](ctx, auditor, "/v1/sessions", nil, 1000)
	if err != nil {
		return err.Error(), false
	}
	id := ""
	for _, v := range live {
		if v.Identity == "migrations" {
			id = v.ID
		}
	}
	denied := auditor.Do(ctx, http.MethodDelete, "/v1/sessions/"+id, nil, nil, nil)
	if err := operator.Do(ctx, http.MethodDelete, "/v1/sessions/"+id, nil, nil, nil); err != nil {
		return err.Error(), false
	}
	_, ended := c.Exec(ctx, "SELECT 1")
	status := "no answer"
	if p, ok := denied.(*client.Problem); ok {
		status = fmt.Sprint(p.Status)
	}
	return fmt.Sprintf("%d sessions listed; the auditor got %s, the operator's call ended the session: %s", len(live), status, sqlState(ended)),
		status == "403" && strings.HasPrefix(sqlState(ended), "57P01")
}

// caller gives a client of the node's API with the first token of the role.
func (s *show) caller(role api.Role) (*client.Client, error) {
	token, err := s.node.Token(role)
	if err != nil {
		return nil, err
	}
	return client.New(client.Options{Address: s.node.APIAddr(), Token: token})
}
