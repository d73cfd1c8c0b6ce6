package proxy

import "sync"

const (
	// pieceBytes is the size of a read: one TLS record (RFC 8446, 5.1) and most result sets.
	pieceBytes = 16 << 10
	// smallBytes is the size of the first read of a direction that must hold its buffer while it waits. Most
	// transactions fit.
	smallBytes = 2 << 10
)

var pieces = sync.Pool{New: func() any { b := make([]byte, pieceBytes); return &b }}

// buffer is where one direction reads. b[:held] was read and waits for more of its message. Nothing is kept of a
// direction that waits with nothing held, but for the small buffer of one that cannot wait without.
type buffer struct {
	small []byte
	piece *[]byte // borrowed from pieces; nil: none is
	b     []byte  // small, *piece, or larger than both
	held  int
	need  int // bytes that a message being judged whole needs
}

// space gives the room for the next read, never empty.
func (r *buffer) space() []byte {
	switch {
	case r.held < len(r.b):
	case r.piece == nil:
		r.borrow()
	default: // a message that is judged whole is larger than a piece: grow by what has come
		r.b = append(r.b, make([]byte, min(len(r.b), max(r.need-len(r.b), pieceBytes)))...)
	}
	return r.b[r.held:]
}

func (r *buffer) borrow() {
	r.piece = pieces.Get().(*[]byte)
	copy(*r.piece, r.b[:r.held])
	r.b = *r.piece
}

// took says that n bytes more were read and used of all dealt with; the rest is held. The next read gets a whole
// piece if this one filled its room.
func (r *buffer) took(n, used int) {
	filled := r.held+n == len(r.b)
	r.held = copy(r.b, r.b[used:r.held+n])
	switch {
	case r.held > 0:
	case r.piece != nil && len(r.b) > pieceBytes:
		r.b = *r.piece
	case r.piece == nil && len(r.b) > pieceBytes:
		r.rest()
	case r.piece == nil && filled:
		r.borrow()
	case r.small != nil && n <= smallBytes:
		r.rest()
	}
}

// hold begins with what was read before.
func (r *buffer) hold(b []byte) {
	if len(b) > 0 {
		r.b = append(make([]byte, 0, max(len(b), pieceBytes)), b...)
		r.b = r.b[:cap(r.b)]
		r.held = len(b)
	}
}

// rest gives the borrowed piece back if nothing is held. It is called before a wait.
func (r *buffer) rest() {
	if r.held == 0 {
		r.release()
	}
}

// release gives the borrowed piece back, whatever is held.
func (r *buffer) release() {
	if r.piece != nil {
		pieces.Put(r.piece)
		r.piece = nil
	}
	r.b, r.held = r.small, 0
}
