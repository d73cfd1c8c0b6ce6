package app

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/csfproxy/csfproxy/internal/config"
	"github.com/csfproxy/csfproxy/proxy/auth"
	"github.com/csfproxy/csfproxy/proxy/upstream"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// verifierLife is how long a verifier that was read from the database counts without being read again: the time
// within which a changed password or a dropped role takes effect at the latest.
const verifierLife = 10 * time.Second

// verifiers reads the verifiers of users by each cluster's query_user, over the cluster's own dialling and TLS.
type verifiers struct {
	mu      sync.Mutex
	queries map[string]*verifierSource
}

type verifierSource struct {
	pool  *pgxpool.Pool
	query *auth.VerifierQuery
}

func newVerifiers(clusters []config.Cluster, route map[string]*upstream.Cluster) (*verifiers, error) {
	v := &verifiers{queries: map[string]*verifierSource{}}
	for _, c := range clusters {
		if c.Query.User == "" {
			continue
		}
		cluster := route[c.Name]
		cfg, err := pgxpool.ParseConfig("host=ingress.invalid sslmode=disable")
		if err != nil {
			return nil, err
		}
		cc := cfg.ConnConfig
		cc.User, cc.Password, cc.Database = c.Query.User, c.Query.Password.Value, c.Query.Database
		if cc.Database == "" {
			cc.Database = "postgres"
		}
		cc.RuntimeParams = map[string]string{"application_name": "csfproxy verifier"}
		// The cluster finds the primary, dials it and verifies its certificate; pgx only speaks over what it is given.
		cc.LookupFunc = func(context.Context, string) ([]string, error) { return []string{"127.0.0.1"}, nil }
		cc.DialFunc = func(ctx context.Context, _, _ string) (net.Conn, error) { return cluster.Dial(ctx) }
		cc.DefaultQueryExecMode = pgx.QueryExecModeExec
		cfg.MaxConns, cfg.MinConns, cfg.MaxConnIdleTime = 2, 0, time.Minute
		pool, err := pgxpool.NewWithConfig(context.Background(), cfg)
		if err != nil {
			return nil, fmt.Errorf("cluster %s: query_user: %w", c.Name, err)
		}
		v.queries[c.Name] = &verifierSource{pool, auth.NewVerifierQuery(pool, verifierLife, time.Now)}
		// Connections to a primary that was switched away from must not answer for the new one.
		cluster.OnSwitch(func(_, _ upstream.Route) { pool.Reset() })
	}
	return v, nil
}

func (v *verifiers) source(cluster string) (*verifierSource, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	s, ok := v.queries[cluster]
	return s, ok
}

// Verifier reads the user's verifier from the cluster's primary.
func (v *verifiers) Verifier(ctx context.Context, cluster, user string) (auth.Verifier, error) {
	s, ok := v.source(cluster)
	if !ok {
		return auth.Verifier{}, fmt.Errorf("cluster %s has no query_user", cluster)
	}
	return s.query.Verifier(ctx, user)
}

// Forget drops what is known of a user, after a failed login.
func (v *verifiers) Forget(cluster, user string) {
	if s, ok := v.source(cluster); ok {
		s.query.Forget(user)
	}
}

func (v *verifiers) close() {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, s := range v.queries {
		s.pool.Close()
	}
}
