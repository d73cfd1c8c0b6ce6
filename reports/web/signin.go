package web

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"net/http"
	"sync"
	"time"

	"github.com/csfproxy/csfproxy/reports/api"
)

const (
	signInLife = 8 * time.Hour
	signInIdle = 30 * time.Minute
	maxSignIns = 256
	// maxTold bounds the parts of one sign-in whose last event is remembered.
	maxTold = 256
)

// signIn is one person at one browser.
type signIn struct {
	id     string
	token  string // asked of the register at each request
	form   string // the token of its forms
	person api.Person
	began  time.Time
	used   time.Time
	// told says when the parts of a page that the page reads by itself last left an event.
	told map[string]time.Time
}

// signIns are the people at their browsers, by the value of their cookie.
type signIns struct {
	mu   sync.Mutex
	byID map[string]*signIn
}

func random() string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // it ends the program rather than fail
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// start begins one and gives the value of its cookie. Beyond the limit the one that was idle longest ends.
func (s *signIns) start(token string, p api.Person, now time.Time) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	oldest := ""
	for id, x := range s.byID {
		if x.over(now) {
			delete(s.byID, id)
		} else if oldest == "" || x.used.Before(s.byID[oldest].used) {
			oldest = id
		}
	}
	if len(s.byID) >= maxSignIns {
		delete(s.byID, oldest)
	}
	id := random()
	s.byID[id] = &signIn{id: id, token: token, form: random(), person: p, began: now, used: now, told: map[string]time.Time{}}
	return id
}

func (x *signIn) over(now time.Time) bool {
	return now.Sub(x.began) > signInLife || now.Sub(x.used) > signInIdle
}

// use gives the sign-in of a cookie and, for a request of a person, notes that it is in use. The copy is the caller's.
func (s *signIns) use(id string, now time.Time, person bool) (signIn, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.byID[id]
	if x == nil {
		return signIn{}, false
	}
	if x.over(now) {
		delete(s.byID, id)
		return signIn{}, false
	}
	if person {
		x.used = now
	}
	return *x, true
}

// due says whether a read of the object that nobody asked for by hand is to leave an event, and notes that it did.
func (s *signIns) due(id, object string, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.byID[id]
	if x == nil {
		return true
	}
	if last, ok := x.told[object]; ok && now.Sub(last) < recordEvery {
		return false
	}
	if len(x.told) >= maxTold {
		clear(x.told)
	}
	x.told[object] = now
	return true
}

func (s *signIns) end(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.byID, id)
}

// formMatches says whether the form came from a page of this sign-in.
func (x signIn) formMatches(r *http.Request) bool {
	return subtle.ConstantTimeCompare([]byte(r.PostFormValue("form_token")), []byte(x.form)) == 1
}

// cookieName has the prefix that keeps other hosts and plaintext from setting it (RFC 6265bis, section 4.1.3) where
// there is TLS.
func (d *Dashboard) cookieName() string {
	if d.tls {
		return "__Host-csfproxy"
	}
	return "csfproxy"
}

func (d *Dashboard) setCookie(w http.ResponseWriter, value string) {
	c := &http.Cookie{Name: d.cookieName(), Value: value, Path: "/", HttpOnly: true, Secure: d.tls, SameSite: http.SameSiteStrictMode}
	if value == "" {
		c.MaxAge = -1
	}
	http.SetCookie(w, c)
}
