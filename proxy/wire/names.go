package wire

// names keeps the Statement of each prepared statement or portal. Requests hold ids, not strings, so that a name is
// resolved in the order of the backend's answers without an allocation per request: a Parse that PostgreSQL refuses
// leaves its name as it was.
type names struct {
	ids   map[string]int32
	slots []slot
	free  int32 // the first slot to be used again, 0 for none; the next one is in its refs
	limit int32
}

type slot struct {
	name string
	refs int32 // outstanding requests that hold the id; of a free slot, the next free one
	live bool
	stmt Statement
}

const (
	unnamed     int32 = 0
	unknownName int32 = -1

	// maxTrackedName bounds a name that is kept; PostgreSQL truncates none, drivers use a dozen bytes.
	maxTrackedName = 256
)

// hold gives the id of a name and counts a reference; create makes one for a name not seen before, within the limit.
func (n *names) hold(name []byte, create bool) int32 {
	if len(name) == 0 {
		return unnamed
	}
	if id, ok := n.ids[string(name)]; ok {
		n.slots[id].refs++
		return id
	}
	if !create || len(n.ids) >= int(n.limit) || len(name) > maxTrackedName {
		return unknownName
	}
	if n.ids == nil {
		n.ids = make(map[string]int32)
	}
	n.zero()
	var id int32
	if n.free != 0 {
		id, n.free = n.free, n.slots[n.free].refs
	} else {
		id = int32(len(n.slots))
		n.slots = append(n.slots, slot{})
	}
	s := string(name)
	n.ids[s] = id
	n.slots[id] = slot{name: s, refs: 1}
	return id
}

// zero makes the slot of the unnamed statement.
func (n *names) zero() {
	if len(n.slots) == 0 {
		n.slots = append(n.slots, slot{})
	}
}

// release gives back a reference of hold.
func (n *names) release(id int32) {
	if id <= unnamed {
		return
	}
	n.slots[id].refs--
	n.collect(id)
}

func (n *names) collect(id int32) {
	if s := &n.slots[id]; s.refs == 0 && !s.live {
		delete(n.ids, s.name)
		*s = slot{refs: n.free}
		n.free = id
	}
}

func (n *names) set(id int32, stmt Statement) {
	if id == unknownName {
		return
	}
	n.zero()
	n.slots[id].stmt, n.slots[id].live = stmt, true
}

func (n *names) get(id int32) Statement {
	if id < 0 || int(id) >= len(n.slots) || !n.slots[id].live {
		return Statement{}
	}
	return n.slots[id].stmt
}

func (n *names) drop(id int32) {
	if id < 0 || int(id) >= len(n.slots) {
		return
	}
	n.slots[id].live, n.slots[id].stmt = false, Statement{}
	if id != unnamed {
		n.collect(id)
	}
}

// clear forgets every name.
func (n *names) clear() {
	n.drop(unnamed)
	if len(n.ids) == 0 {
		return
	}
	for id := range n.slots {
		if n.slots[id].live {
			n.drop(int32(id))
		}
	}
}
