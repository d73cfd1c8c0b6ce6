package api

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/csfproxy/csfproxy/csf"
)

// Why a call is refused before it reaches its handler.
var (
	// ErrNoToken: the call carries no bearer token (401).
	ErrNoToken = errors.New("a bearer token is needed")
	// ErrTokenUnknown: the token is not in the register (401).
	ErrTokenUnknown = errors.New("the token is not known")
	// ErrTokenRate: too many wrong tokens came from the address (429).
	ErrTokenRate = errors.New("too many wrong tokens from this address")
	// ErrRole: the person's role does not permit the call (403).
	ErrRole = errors.New("the role does not permit this")
)

// Guard says who calls and records the calls. The API and the dashboard share one, so that wrong tokens count
// together.
type Guard struct {
	tokens   *Tokens
	failures *failures
	recorder Recorder
	now      func() time.Time
	log      *slog.Logger
}

// NewGuard makes the guard of a listener. recorder may be nil where nothing is recorded; now is time.Now and log
// slog.Default() when they are nil.
func NewGuard(tokens *Tokens, recorder Recorder, now func() time.Time, log *slog.Logger) *Guard {
	if now == nil {
		now = time.Now
	}
	if log == nil {
		log = slog.Default()
	}
	return &Guard{tokens: tokens, failures: newFailures(), recorder: recorder, now: now, log: log}
}

// Check gives the holder of a token that came with r. On ErrTokenRate, tell says whether this refusal is to be
// recorded: one for each run of them, so that guessing does not fill the log.
//
// A token that cannot be guessed is never refused for the guessing of others at its address: killing a session must
// stay possible then. A short one is.
func (g *Guard) Check(r *http.Request, token string) (p Person, tell bool, err error) {
	addr := peerOf(r).Addr()
	p, strong, ok := g.tokens.Lookup(token)
	switch {
	case token == "":
		err = ErrNoToken
	case !ok:
		err = ErrTokenUnknown
	case !strong && g.failures.limited(addr, g.now()):
		return Person{}, false, ErrTokenRate
	default:
		return p, true, nil
	}
	if limited, first := g.failures.failed(addr, g.now()); limited {
		return Person{}, first, ErrTokenRate
	}
	return Person{}, true, err
}

// Bearer gives the token of the Authorization header, "" when there is none (RFC 6750, section 2.1).
func Bearer(r *http.Request) string { return bearer(r.Header.Get("Authorization")) }

func bearer(authorization string) string {
	scheme, token, _ := strings.Cut(authorization, " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}

// Record puts the call into the log of events. When the log takes nothing, the act stands all the same (killing and
// containing work without a store) and the process log has the call.
func (g *Guard) Record(ctx context.Context, c Call) {
	if g.recorder == nil {
		return
	}
	// A caller who hangs up does not take the record of the call away.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	e := c.Event()
	e.Time = g.now().UTC()
	if err := g.recorder.Record(ctx, e); err != nil {
		g.log.LogAttrs(ctx, slog.LevelError, "a call of the API has no event", slog.Any("error", err),
			slog.String("kind", string(e.Kind)), slog.String("facts", string(csf.Facts(e.Facts).JSON())))
	}
}

// reasonOf gives the fact "reason" of a refused call.
func reasonOf(err error) string {
	switch {
	case errors.Is(err, ErrRole):
		return "role"
	case errors.Is(err, ErrTokenRate):
		return "rate"
	}
	return "token"
}
