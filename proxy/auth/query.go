package auth

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// Why a role has no verifier. The client must not learn which: it gets a MockVerifier's exchange.
var (
	// ErrNoVerifier: there is no such role, or it has no SCRAM-SHA-256 password.
	ErrNoVerifier = errors.New("auth: the role has no SCRAM-SHA-256 verifier")
	// ErrPasswordExpired: the role's VALID UNTIL is past.
	ErrPasswordExpired = errors.New("auth: the role's password has expired")
)

// maxCached bounds the roles in the cache; maxName is PostgreSQL's longest name (NAMEDATALEN - 1), beyond which it would
// cut the name and find another role.
const (
	maxCached = 10_000
	maxName   = 63
)

// Querier runs a query with parameters: *pgx.Conn or *pgxpool.Pool. The connection is the proxy's own;
// nothing of a client ever reaches it but the name, as a parameter.
type Querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// VerifierQuery reads verifiers from pg_authid and keeps them for a short time. It is safe for concurrent
// use and has one query running at a time.
type VerifierQuery struct {
	db  Querier
	ttl time.Duration
	now func() time.Time

	// turn holds one token: whoever has it may use db.
	turn chan struct{}

	mu    sync.Mutex
	cache map[string]cachedVerifier
}

type cachedVerifier struct {
	verifier Verifier
	until    time.Time
}

// NewVerifierQuery reads through db, whose role needs SELECT on pg_catalog.pg_authid. A changed
// password, a dropped role and an expiry count after ttl at the latest, or after Forget; 0 keeps nothing.
func NewVerifierQuery(db Querier, ttl time.Duration, now func() time.Time) *VerifierQuery {
	return &VerifierQuery{db: db, ttl: ttl, now: now, turn: make(chan struct{}, 1), cache: make(map[string]cachedVerifier)}
}

// Verifier gives the role's verifier, ErrNoVerifier or ErrPasswordExpired, or the failure of the query.
func (q *VerifierQuery) Verifier(ctx context.Context, user string) (Verifier, error) {
	if user == "" || len(user) > maxName || strings.IndexByte(user, 0) >= 0 {
		return Verifier{}, ErrNoVerifier
	}
	if v, ok := q.cached(user); ok {
		return v, nil
	}
	select {
	case q.turn <- struct{}{}:
		defer func() { <-q.turn }()
	case <-ctx.Done():
		return Verifier{}, fmt.Errorf("auth: waiting to read a verifier: %w", context.Cause(ctx))
	}
	// Whoever had the turn before may have read the same role.
	if v, ok := q.cached(user); ok {
		return v, nil
	}
	return q.read(ctx, user)
}

// Forget drops the role's verifier from the cache, after a failed login for example: the password may
// have been changed.
func (q *VerifierQuery) Forget(user string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.cache, user)
}

func (q *VerifierQuery) cached(user string) (Verifier, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	c, ok := q.cache[user]
	if !ok || !q.now().Before(c.until) {
		return Verifier{}, false
	}
	return c.verifier, true
}

// read asks the database. The expiry is compared there, by the clock that PostgreSQL itself would use.
func (q *VerifierQuery) read(ctx context.Context, user string) (Verifier, error) {
	const sql = `SELECT rolpassword, rolcanlogin,
		coalesce(rolvaliduntil < pg_catalog.now(), false),
		CASE WHEN pg_catalog.isfinite(rolvaliduntil) THEN extract(epoch FROM rolvaliduntil - pg_catalog.now())::float8 END
		FROM pg_catalog.pg_authid WHERE rolname = $1`
	var (
		password       *string
		login, expired bool
		left           *float64
	)
	err := q.db.QueryRow(ctx, sql, user).Scan(&password, &login, &expired, &left)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return Verifier{}, ErrNoVerifier
	case err != nil:
		return Verifier{}, fmt.Errorf("auth: reading a verifier: %w", err)
	case expired:
		return Verifier{}, ErrPasswordExpired
	case password == nil || !strings.HasPrefix(*password, mechanism+"$"):
		return Verifier{}, ErrNoVerifier
	}
	v, err := ParseVerifier(*password)
	if err != nil {
		return Verifier{}, err
	}
	v.NoLogin = !login
	keep := q.ttl
	if left != nil && *left < keep.Seconds() {
		keep = time.Duration(*left * float64(time.Second))
	}
	q.store(user, v, keep)
	return v, nil
}

func (q *VerifierQuery) store(user string, v Verifier, keep time.Duration) {
	if keep <= 0 {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	now := q.now()
	if len(q.cache) >= maxCached {
		for name, c := range q.cache {
			if !now.Before(c.until) {
				delete(q.cache, name)
			}
		}
	}
	if len(q.cache) < maxCached {
		q.cache[user] = cachedVerifier{v, now.Add(keep)}
	}
}
