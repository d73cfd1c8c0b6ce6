package proxy

import (
	"iter"
	"sync"
)

// roster holds sessions. It is divided, so that whoever walks through it needs memory for a part only.
type roster [rosterParts]struct {
	sync.Mutex
	sessions map[*Session]struct{}
}

const rosterParts = 32

func (r *roster) add(s *Session) {
	p := &r[s.id[15]%rosterParts]
	p.Lock()
	defer p.Unlock()
	if p.sessions == nil {
		p.sessions = map[*Session]struct{}{}
	}
	p.sessions[s] = struct{}{}
}

func (r *roster) remove(s *Session) {
	p := &r[s.id[15]%rosterParts]
	p.Lock()
	defer p.Unlock()
	delete(p.sessions, s)
}

// all gives each session that is there from the first step to the last. No lock is held meanwhile: who is given one may
// wait, end it, and ask for all again.
func (r *roster) all() iter.Seq[*Session] {
	return func(yield func(*Session) bool) {
		var part []*Session
		for i := range r {
			part = part[:0]
			r[i].Lock()
			for s := range r[i].sessions {
				part = append(part, s)
			}
			r[i].Unlock()
			for _, s := range part {
				if !yield(s) {
					return
				}
			}
		}
	}
}
