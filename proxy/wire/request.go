package wire

import "sync"

// entry is one outstanding request: a message of the client that the backend has yet to answer, or a marker for the
// end of COPY data.
type entry struct {
	kind   byte  // 'Q', 'P', 'B', 'D', 'E', 'C', 'S', 'F'; 'c' is a marker
	as     byte  // the type that the client sent, where a substitute of another kind went to the backend
	state  state // of the backend automaton when this entry is first in line
	insert bool  // a Sync whose ReadyForQuery needs answer before it, should nothing have carried it yet
	name   int32 // prepared statement (Parse, Bind, Close)
	portal int32 // portal (Bind, Execute, Close)
	count  int32 // markers: how many in a row
	start  int64
	answer *answer
	stmt   Statement
}

// answer is what the client gets instead of the backend's ErrorResponse.
type answer struct {
	Denial
	done bool
	// copyFail is the text of the CopyFail that went to the backend, for an answer to nothing but the error which quotes it.
	copyFail string
}

// queue is a ring of entries that grows up to its limit. It has a ring only while requests are outstanding: of the two
// usual sizes they are lent, so that a session that waits holds none and one that works allocates none.
type queue struct {
	entries []entry
	first   int32
	n       int
}

const (
	ringSmall = 8   // entries of the first ring: a batch of the extended protocol
	ringLarge = 128 // the second one's: a pipeline; a larger one is the queue's own
)

var (
	smallRings = sync.Pool{New: func() any { return new([ringSmall]entry) }}
	largeRings = sync.Pool{New: func() any { return new([ringLarge]entry) }}
)

func (q *queue) at(i int) *entry { return &q.entries[(int(q.first)+i)&(len(q.entries)-1)] }

// lend gives a ring of the next size. What it holds means nothing.
func (q *queue) lend() []entry {
	switch len(q.entries) {
	case 0:
		return smallRings.Get().(*[ringSmall]entry)[:]
	case ringSmall:
		return largeRings.Get().(*[ringLarge]entry)[:]
	}
	return make([]entry, 2*len(q.entries))
}

// giveBack parts with the ring, in which no pointer may be left.
func (q *queue) giveBack() {
	switch len(q.entries) {
	case ringSmall:
		smallRings.Put((*[ringSmall]entry)(q.entries))
	case ringLarge:
		largeRings.Put((*[ringLarge]entry)(q.entries))
	}
	q.entries, q.first = nil, 0
}

func (q *queue) push() *entry {
	if q.n == len(q.entries) {
		grown, n := q.lend(), q.n
		for i := range n {
			grown[i] = *q.at(i)
			*q.at(i) = entry{}
		}
		q.giveBack()
		q.entries = grown
	}
	q.n++
	e := q.at(q.n - 1)
	*e = entry{name: unknownName, portal: unknownName}
	return e
}

func (q *queue) pop() {
	q.at(0).answer = nil // pointers do not outlive their request
	q.first = (q.first + 1) & int32(len(q.entries)-1)
	if q.n--; q.n == 0 {
		q.giveBack()
	}
}

// removeSecond takes out the entry behind the first.
func (q *queue) removeSecond() {
	*q.at(1) = *q.at(0)
	q.pop()
}
