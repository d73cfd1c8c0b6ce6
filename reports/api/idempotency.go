package api

import (
	"crypto/sha256"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
)

const (
	keyLifetime = 24 * time.Hour
	maxKeys     = 1024
)

// keys remembers, for the life of the process, which Idempotency-Key started which run, so that a caller who did not
// see the answer may ask again. Beyond that life the journal of runs knows the key.
type keys struct {
	mu   sync.Mutex
	seen map[string]*keyed
}

type keyed struct {
	request [sha256.Size]byte
	at      time.Time
	done    bool
	run     Run
}

func newKeys() *keys { return &keys{seen: map[string]*keyed{}} }

// once starts a run unless the person's key has started one already. An empty key always starts. A key with another
// request is refused with 422, one whose first call has not ended yet with 409; a start that failed frees its key.
func (k *keys) once(person, key, request string, now time.Time, start func() (Run, error)) (Run, error) {
	if key == "" {
		return start()
	}
	name, sum := person+"\x00"+key, sha256.Sum256([]byte(request))
	k.mu.Lock()
	if e := k.seen[name]; e != nil && now.Sub(e.at) < keyLifetime {
		defer k.mu.Unlock()
		switch {
		case e.request != sum:
			return Run{}, huma.NewError(http.StatusUnprocessableEntity, "the idempotency key was used for another request")
		case !e.done:
			return Run{}, fmt.Errorf("%w: the first call with this idempotency key has not ended", ErrConflict)
		}
		return e.run, nil
	}
	if len(k.seen) >= maxKeys {
		k.forget(now)
	}
	e := &keyed{request: sum, at: now}
	k.seen[name] = e
	k.mu.Unlock()

	started := false
	defer func() { // also when start panics
		k.mu.Lock()
		defer k.mu.Unlock()
		if e.done = started; !started {
			delete(k.seen, name)
		}
	}()
	run, err := start()
	if err != nil {
		return Run{}, err
	}
	k.mu.Lock()
	e.run, started = run, true
	k.mu.Unlock()
	return run, nil
}

// forget drops what is too old, or else the oldest.
func (k *keys) forget(now time.Time) {
	oldest := ""
	for name, e := range k.seen {
		if now.Sub(e.at) >= keyLifetime {
			delete(k.seen, name)
			continue
		}
		if e.done && (oldest == "" || e.at.Before(k.seen[oldest].at)) {
			oldest = name
		}
	}
	if len(k.seen) >= maxKeys {
		delete(k.seen, oldest)
	}
}
