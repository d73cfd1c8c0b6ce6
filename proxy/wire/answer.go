package wire

import "bytes"

// begin makes e the first request in line.
func (c *Conversation) begin(e *entry) {
	c.state = e.state
	c.progress = progress{}
}

// next takes the first request out of line.
func (c *Conversation) next() {
	c.drop()
	c.advance()
}

// drop takes the first request away and gives its names back.
func (c *Conversation) drop() {
	e := c.requests.at(0)
	c.statements.release(e.name)
	c.portals.release(e.portal)
	c.requests.pop()
}

// advance begins the request that is first in line now. Markers in front of it ended no COPY.
func (c *Conversation) advance() {
	for c.requests.n > 0 {
		e := c.requests.at(0)
		if e.kind != 'c' {
			c.begin(e)
			return
		}
		c.requests.pop()
	}
	c.state = stIdle
}

// define takes note of what a Parse, Bind or Close did.
func (c *Conversation) define() {
	e := c.requests.at(0)
	switch e.kind {
	case 'P':
		c.statements.set(e.name, e.stmt)
	case 'B':
		c.portals.set(e.portal, c.statements.get(e.name))
	case 'C':
		c.statements.drop(e.name)
		c.portals.drop(e.portal)
	}
}

// completed reads a CommandComplete. The statements that SQL's DEALLOCATE took away have names not known here; once
// PREPARE may have given one of them to another statement, none is certain any more.
func (c *Conversation) completed(body []byte) {
	c.progress.commands++
	tag := body[:len(body)-1]
	c.progress.rows += tagRows(tag)
	switch string(tag) {
	case "DEALLOCATE ALL", "DISCARD ALL":
		c.statements.clear()
		c.dealloc = false
	case "DEALLOCATE":
		c.dealloc = true
	case "PREPARE":
		if c.dealloc {
			c.statements.clear()
		}
	}
}

// tagRows reads the count at the end of a tag such as "SELECT 5" or "INSERT 0 5".
func tagRows(tag []byte) uint64 {
	i := bytes.LastIndexByte(tag, ' ')
	if i < 0 {
		return 0
	}
	var n uint64
	for _, d := range tag[i+1:] {
		if d < '0' || d > '9' || n > 1<<59 {
			return 0
		}
		n = n*10 + uint64(d-'0')
	}
	return n
}

// startCopy enters a COPY that the backend announced, or says why it cannot have been asked for.
func (c *Conversation) startCopy(t transition) string {
	e := c.requests.at(0)
	stmt := e.stmt
	if e.kind == 'E' {
		stmt = c.portals.get(e.portal)
	}
	switch t.action {
	case bCopyBoth:
		if !c.replication {
			return "CopyBothResponse outside a replication session"
		}
		c.copy = copyBoth
	default:
		if stmt.NoCopy {
			return "copy response to a statement that is no COPY"
		}
		if t.action == bCopyIn {
			c.copy = copyIn
		}
	}
	c.state = t.to
	if c.copy == copyNone {
		return ""
	}
	c.progress.copied = true
	// Syncs that are queued already are COPY IN's to ignore, up to the client's end of the data.
	for c.requests.n > 1 {
		switch e := c.requests.at(1); {
		case e.kind == 'S' && c.copy == copyIn:
			c.requests.removeSecond()
			c.uncertain++
			continue
		case e.kind == 'c':
			if e.count--; e.count == 0 {
				c.requests.removeSecond()
			}
			c.copy = copyNone
		}
		return ""
	}
	return ""
}

// copyEnded says whether the client has ended its COPY IN, which then completed and read every Sync before.
func (c *Conversation) copyEnded() bool {
	if c.state != stCopyBoth && c.state != stCopyBothDone && c.copy == copyIn {
		return false
	}
	c.copy, c.uncertain = copyNone, 0
	return true
}

// failCopy ends a COPY with an error: a Sync that PostgreSQL had not read yet will be answered.
func (c *Conversation) failCopy() {
	c.extraZ += c.uncertain
	c.copy, c.uncertain = copyNone, 0
}

func (c *Conversation) fail(sqlstate []byte) {
	p := &c.progress
	if p.failed {
		return
	}
	p.failed = true
	copy(p.sqlstate[:], sqlstate)
	if c.requests.n > 0 {
		if a := c.requests.at(0).answer; a != nil && a.done {
			p.refused = true
			copy(p.sqlstate[:], a.SQLSTATE)
		}
	}
}

// skip drops what PostgreSQL skips after an error in the extended protocol.
func (c *Conversation) skip(now int64) {
	e := c.requests.at(0)
	if e.kind == 'P' && e.name == unnamed {
		c.statements.drop(unnamed)
	}
	c.report(now, false, false)
	a := e.answer
	c.drop()
	for c.requests.n > 0 && c.requests.at(0).kind != 'S' {
		c.drop()
	}
	c.advance()
	if c.requests.n == 0 {
		c.state = stSkipping
	} else if first := c.requests.at(0); first.insert && first.answer == a {
		first.answer = nil
	}
}

// ready ends a Query, FunctionCall or Sync.
func (c *Conversation) ready(status byte, now int64) {
	e := c.requests.at(0)
	switch {
	case e.kind == 'Q':
		// A Query destroys the unnamed statement and portal.
		c.statements.drop(unnamed)
		c.portals.drop(unnamed)
		c.report(now, false, false)
	case e.kind == 'F' || c.progress.failed:
		c.report(now, false, false)
	}
	c.next()
	c.copy = copyNone
	c.setStatus(status)
}

func (c *Conversation) setStatus(status byte) {
	c.status = status
	if status == 'I' && len(c.portals.slots) > 0 {
		c.portals.clear() // portals end with their transaction
	}
}

// report hands the first request's Outcome to the Observer.
func (c *Conversation) report(now int64, suspended, lost bool) {
	if c.observer == nil {
		return
	}
	e, p := c.requests.at(0), &c.progress
	c.outcome = Outcome{Statement: c.statementOf(e), Protocol: e.as, Start: e.start, End: now, Rows: p.rows,
		Bytes: p.bytes, SQLSTATE: p.sqlstate, Failed: p.failed, Suspended: suspended, Refused: p.refused, Lost: lost,
		Commands: p.commands}
	if p.copied {
		c.outcome.BytesIn, c.copied = c.copied, 0
	}
	c.observer.StatementDone(&c.outcome)
}

// statementOf resolves a request that is first in line.
func (c *Conversation) statementOf(e *entry) Statement {
	switch e.kind {
	case 'E':
		return c.portals.get(e.portal)
	case 'B':
		return c.statements.get(e.name)
	}
	return e.stmt
}

// Abandon reports every statement that is outstanding as lost and failed, for an upstream that is gone or a session
// that is ended in the middle. sqlstate is theirs unless the backend's own FATAL came before. It tells whether one of
// them was a commit, whose outcome is unknown then: those are reported as 08007; after a FATAL none was carried out. What
// was refused never reached the backend and is reported as refused, and what stands behind it up to the Sync, which the
// backend skips, not at all. The Conversation is over.
func (c *Conversation) Abandon(now int64, sqlstate string) (commitUnknown bool) {
	fatal := c.state == stEnded
	if fatal {
		sqlstate = string(c.progress.sqlstate[:])
	}
	for c.requests.n > 0 {
		e := c.requests.at(0)
		if a := e.answer; a != nil && a.copyFail == "" && e.kind != 'S' && e.kind != 'c' && !c.progress.failed {
			p := &c.progress
			p.failed, p.refused = true, true
			copy(p.sqlstate[:], a.SQLSTATE)
			c.report(now, false, false)
			skips := e.kind != 'Q' && e.kind != 'F'
			c.next()
			for skips && c.requests.n > 0 && c.requests.at(0).kind != 'S' {
				c.next()
			}
			continue
		}
		switch e.kind {
		case 'P':
			c.statements.set(e.name, e.stmt)
		case 'B':
			c.portals.set(e.portal, c.statements.get(e.name))
		case 'Q', 'E', 'F':
			p := &c.progress
			if c.statementOf(e).Commit && !p.failed && !fatal {
				commitUnknown = true
				p.failed = true
				copy(p.sqlstate[:], "08007")
			}
			if !p.failed {
				p.failed = true
				copy(p.sqlstate[:], sqlstate)
			}
			c.report(now, false, true)
		}
		c.next()
	}
	c.finished, c.ended = StopTerminate, true
	return commitUnknown
}

// Owes says that answers are due which the backend gives without another message of the client: those of a Query or
// FunctionCall and those up to a Sync; after a Flush (flushed) those of every request. While a COPY waits for the
// client's data none is due. An answer of which a part has passed is due in any case.
func (c *Conversation) Owes(flushed bool) bool {
	switch {
	case c.backBody > 0:
		return true
	case c.state == stEnded || c.ended || c.copy != copyNone:
		return false
	case flushed:
		return c.requests.n > 0
	}
	for i := range c.requests.n {
		switch c.requests.at(i).kind {
		case 'Q', 'F', 'S':
			return true
		}
	}
	return false
}

// CommitOutstanding says whether a commit has gone to the backend and its completion has not come: the loss of the
// backend now is 08007, transaction_resolution_unknown. After a FATAL of the backend nothing was committed.
func (c *Conversation) CommitOutstanding() bool {
	if c.state == stEnded {
		return false
	}
	for i := range c.requests.n {
		if c.resolve(i).Commit && !(i == 0 && c.progress.failed) {
			return true
		}
	}
	return false
}

// resolve finds the statement of an outstanding Query or Execute, through the Bind and Parse that may be outstanding
// before it.
func (c *Conversation) resolve(i int) Statement {
	e := c.requests.at(i)
	switch {
	case e.answer != nil:
		return Statement{}
	case e.kind == 'Q' || e.kind == 'F':
		return e.stmt
	case e.kind != 'E':
		return Statement{}
	}
	for j := i - 1; j >= 0; j-- {
		bind := c.requests.at(j)
		if bind.kind != 'B' || bind.portal != e.portal {
			continue
		}
		for k := j - 1; k >= 0; k-- {
			if parse := c.requests.at(k); parse.kind == 'P' && parse.name == bind.name {
				return parse.stmt
			}
		}
		return c.statements.get(bind.name)
	}
	return c.portals.get(e.portal)
}
