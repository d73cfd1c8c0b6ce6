package app

import (
	"fmt"
	"regexp"
	"strconv"
	"testing"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/store"
)

// TestPgbench runs pgbench in each of its protocols and holds the number of its statements against the records.
func TestPgbench(t *testing.T) {
	n := startNode(t, setup{})
	db := createDatabase(t, "bench")
	through := n.legs()[1]
	output(t, program(t.Context(), t, through, "app", db, "pgbench", "-i", "-q", "-s", "1"))
	// The builtin script tpcb-like: BEGIN, three UPDATEs, SELECT, INSERT, END.
	const statementsEach = 7
	before := map[string]bool{}
	for _, e := range n.every(csf.Of(csf.SessionBound)) {
		before[e.Session] = true
	}
	for _, tc := range []struct {
		name string
		args []string
	}{
		{"simple", []string{"-M", "simple", "-c", "4", "-j", "2"}},
		{"extended", []string{"-M", "extended", "-c", "4", "-j", "2"}},
		{"prepared", []string{"-M", "prepared", "-c", "4", "-j", "2"}},
		{"simple, connection each", []string{"-M", "simple", "-c", "4", "-j", "2", "-C"}},
		{"prepared, connection each", []string{"-M", "prepared", "-c", "2", "-j", "2", "-C"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			out := output(t, program(t.Context(), t, through, "app", db, "pgbench", append(tc.args, "-n", "-t", "25")...))
			done := number(t, out, `number of transactions actually processed: (\d+)`)
			if failed := number(t, out, `number of failed transactions: (\d+)`); failed != 0 || done == 0 {
				t.Fatalf("%d transactions, %d failed:\n%s", done, failed, out)
			}
			mine := map[string]bool{}
			for _, e := range n.every(csf.Of(csf.SessionBound)) {
				if !before[e.Session] {
					before[e.Session], mine[e.Session] = true, true
				}
			}
			kinds := map[string]int{}
			total := 0
			for _, r := range n.statements() {
				if !mine[r.SessionID()] {
					continue
				}
				kinds[statementKind(r.Kind)]++
				if r.Outcome != store.OutcomeOK {
					t.Errorf("a statement of outcome %d", r.Outcome)
				}
				total++
			}
			// pgbench's first connection asks for its tables' partitions before the run: a select or two beside the script.
			extra := total - done*statementsEach
			if kinds["update"] != 3*done || kinds["insert"] != done || kinds["tcl"] != 2*done || extra < 0 || extra > 3 {
				t.Errorf("%d transactions; records: %v", done, kinds)
			}
		})
	}
}

// statements gives every stored statement record of the node.
func (n *node) statements() []store.StatementRecord {
	n.t.Helper()
	var out []store.StatementRecord
	// A block is closed after 50 ms at the latest; the sessions' ends, which stand behind it, are what is waited for.
	eventually(n.t, "the blocks", func() error { return n.flushed() })
	for _, e := range n.every(csf.Of(csf.QueryObserved)) {
		list, err := store.DecodeBlock(e.Block)
		if err != nil {
			n.t.Fatal(err)
		}
		if integer(n.t, e.Facts["statements"]) != len(list) {
			n.t.Errorf("a block says %v statements and holds %d", e.Facts["statements"], len(list))
		}
		out = append(out, list...)
	}
	return out
}

func number(t *testing.T, out, pattern string) int {
	t.Helper()
	m := regexp.MustCompile(pattern).FindStringSubmatch(out)
	if m == nil {
		t.Fatalf("no %q in:\n%s", pattern, out)
	}
	n, err := strconv.Atoi(m[1])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// flushed says whether every statement of the sessions is in a block.
func (n *node) flushed() error {
	recorded := int(n.records.statements.Stats().Records)
	said := 0
	for _, v := range n.ingress.Sessions() {
		said += int(v.Statements)
	}
	for _, e := range n.every(csf.Of(csf.SessionClosed, csf.SessionTerminated)) {
		said += integer(n.t, e.Facts["statements"])
	}
	if recorded != said {
		return fmt.Errorf("%d statements are in blocks, the sessions counted %d", recorded, said)
	}
	return nil
}

// integer reads a number of an event's facts, in memory or as the store gives it.
func integer(t *testing.T, v any) int {
	t.Helper()
	n, err := strconv.ParseFloat(fmt.Sprint(v), 64)
	if err != nil {
		t.Fatalf("%v is no number", v)
	}
	return int(n)
}
