package store

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/csfproxy/csfproxy/csf"
)

// topFingerprints is how many statements a block's event names.
const topFingerprints = 16

// blockSums adds up the records of one block after the other; its memory is used again.
type blockSums struct {
	kinds      [256]int
	statements []printCount // in the order of the block's statements
}

type printCount struct {
	print uint64
	n     int
}

// facts packs encoded records and gives what they add up to, and when the last of them ended. A record that says that a
// statement is about to begin counts as begun and in nothing else: the record of its end follows.
func (s *blockSums) facts(records []byte, p *blockPacker, kindName func(uint8) string) (csf.Facts, time.Time) {
	s.kinds = [256]int{}
	s.statements = s.statements[:0]
	p.reset()
	var rec StatementRecord
	var begun int
	var errs, rows, bytes uint64
	var from, to int64
	n := len(records) / statementSize
	for i := range n {
		rec.get(records[i*statementSize:])
		statement := p.add(&rec)
		if statement == len(s.statements) {
			s.statements = append(s.statements, printCount{rec.Statement, 0})
		}
		end := rec.Start + int64(rec.Duration)
		if i == 0 || rec.Start < from {
			from = rec.Start
		}
		if i == 0 || end > to {
			to = end
		}
		if rec.Outcome == OutcomeBegun {
			begun++
			continue
		}
		s.kinds[rec.Kind]++
		s.statements[statement].n++
		rows += rec.Rows
		bytes += rec.Bytes
		if rec.Outcome != OutcomeOK {
			errs++
		}
	}
	byKind := map[string]int{}
	for k, c := range s.kinds {
		if c > 0 {
			byKind[kindName(uint8(k))] += c
		}
	}
	f := csf.Facts{
		"statements": n - begun, "errors": errs, "rows": rows, "bytes": bytes, "sessions": len(p.sessions.list), "kinds": byKind,
		"from": time.UnixMicro(from).UTC().Format(time.RFC3339Nano), "to": time.UnixMicro(to).UTC().Format(time.RFC3339Nano),
		"fingerprints": s.top(),
	}
	if begun > 0 {
		f["begun"] = begun
	}
	return f, time.UnixMicro(to).UTC()
}

// top gives the most frequent statements by fingerprint, in hexadecimal.
func (s *blockSums) top() map[string]int {
	slices.SortFunc(s.statements, func(a, b printCount) int { return cmp.Or(b.n-a.n, cmp.Compare(a.print, b.print)) })
	out := map[string]int{}
	for _, c := range s.statements[:min(len(s.statements), topFingerprints)] {
		if c.n > 0 { // some have only begun
			out[fmt.Sprintf("%016x", c.print)] = c.n
		}
	}
	return out
}
