package wire

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

// queue is a ring of entries that grows by doubling up to its limit and shrinks to nothing when a burst is over.
type queue struct {
	entries []entry
	first   int
	n       int
}

const (
	queueFirst = 4   // entries of the first ring: an extended-protocol batch without Describe
	queueKeep  = 128 // a larger ring is given back when it runs empty
)

func (q *queue) at(i int) *entry { return &q.entries[(q.first+i)&(len(q.entries)-1)] }

func (q *queue) push() *entry {
	if q.n == len(q.entries) {
		grown := make([]entry, max(queueFirst, 2*q.n))
		for i := range q.n {
			grown[i] = *q.at(i)
		}
		q.entries, q.first = grown, 0
	}
	q.n++
	e := q.at(q.n - 1)
	*e = entry{name: unknownName, portal: unknownName}
	return e
}

func (q *queue) pop() {
	// Pointers do not outlive their request.
	e := q.at(0)
	e.answer, e.stmt.Ref = nil, nil
	q.first = (q.first + 1) & (len(q.entries) - 1)
	if q.n--; q.n == 0 {
		q.first = 0
		if len(q.entries) > queueKeep {
			q.entries = nil
		}
	}
}

// removeSecond takes out the entry behind the first.
func (q *queue) removeSecond() {
	*q.at(1) = *q.at(0)
	q.pop()
}
