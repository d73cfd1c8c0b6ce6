package sqltext

import (
	"bufio"
	"encoding/json"
	"os"
	"testing"
	"fmt"
)
func TestDump(t *testing.T) {
	f, _ := os.Open("testdata/sql_cases.jsonl")
	s := bufio.NewScanner(f)
	for s.Scan() {
		var c struct{ ID, SQL, Why, Verdict string }
		json.Unmarshal(s.Bytes(), &c)
		x := Analyze([]byte(c.SQL), true)
		fmt.Printf("%s %q\n    %d %v [%v] fn=%v cls=%v | %s\n", c.ID, c.SQL, x.Statements, x.Each[:min(x.Statements,16)], x.Flags, x.Functions.Names(), x.Classes.Names(), c.Verdict)
	}
}
