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

// blockSums adds up the records of one block after the other; its maps are used again.
type blockSums struct {
	kinds    [256]int
	prints   map[uint64]int
	sessions sessionSet
	ranked   []printCount
}

type printCount struct {
	print uint64
	n     int
}

func newBlockSums() blockSums {
	return blockSums{prints: map[uint64]int{}, sessions: newSessionSet()}
}

// facts gives what encoded records add up to, and when the last of them ended. A record that says that a statement is
// about to begin counts as begun and in nothing else: the record of its end follows.
func (s *blockSums) facts(records []byte, kindName func(uint8) string) (csf.Facts, time.Time) {
	s.kinds = [256]int{}
	clear(s.prints)
	s.sessions.clear()
	var rec StatementRecord
	var begun int
	var errs, rows, bytes uint64
	var from, to int64
	n := len(records) / statementSize
	for i := range n {
		rec.get(records[i*statementSize:])
		end := rec.Start + int64(rec.Duration)
		if i == 0 || rec.Start < from {
			from = rec.Start
		}
		if i == 0 || end > to {
			to = end
		}
		s.sessions.add(rec.Session)
		if rec.Outcome == OutcomeBegun {
			begun++
			continue
		}
		s.kinds[rec.Kind]++
		s.prints[rec.Statement]++
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
		"statements": n - begun, "errors": errs, "rows": rows, "bytes": bytes, "sessions": len(s.sessions.keys), "kinds": byKind,
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
	s.ranked = s.ranked[:0]
	for p, n := range s.prints {
		s.ranked = append(s.ranked, printCount{p, n})
	}
	slices.SortFunc(s.ranked, func(a, b printCount) int { return cmp.Or(b.n-a.n, cmp.Compare(a.print, b.print)) })
	out := map[string]int{}
	for _, c := range s.ranked[:min(len(s.ranked), topFingerprints)] {
		out[fmt.Sprintf("%016x", c.print)] = c.n
	}
	return out
}
