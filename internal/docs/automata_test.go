package docs

import (
	"fmt"
	"strings"
	"testing"

	"github.com/csfproxy/csfproxy/proxy/wire"
)

func frontendAutomaton(*testing.T) string { return automaton(wire.FrontendAutomaton()) }

func backendAutomaton(*testing.T) string { return automaton(wire.BackendAutomaton()) }

// automaton writes one side's table: each state's rules, those with the same effect together, and the terms.
func automaton(a wire.Automaton) string {
	violation := map[string]bool{}
	for _, t := range a.Actions {
		violation[t.Name] = strings.HasPrefix(t.Doc, "Violation")
	}
	var b strings.Builder
	b.WriteString("| state | what passes: message *action* → next state | violations |\n|---|---|---|\n")
	n := len(a.Messages)
	for i, state := range a.States {
		var order []string
		messages := map[string][]string{}
		for _, r := range a.Rules[i*n : (i+1)*n] {
			key := fmt.Sprintf("*%s* → %s", r.Action, r.Next)
			if violation[r.Action] {
				key = "!" + r.Action
			}
			if messages[key] == nil {
				order = append(order, key)
			}
			messages[key] = append(messages[key], r.Message)
		}
		var passes, refused []string
		for _, key := range order {
			if action, ok := strings.CutPrefix(key, "!"); ok {
				refused = append(refused, fmt.Sprintf("%s *%s*", codes(messages[key]), action))
			} else {
				passes = append(passes, codes(messages[key])+" "+key)
			}
		}
		if len(passes) == 0 {
			passes = []string{"nothing"}
		}
		fmt.Fprintf(&b, "| **%s** | %s | %s |\n", state.Name, strings.Join(passes, "<br>"), strings.Join(refused, "<br>"))
	}
	for _, list := range []struct {
		title string
		terms []wire.Term
	}{{"state", a.States}, {"message", a.Messages}, {"action", a.Actions}} {
		fmt.Fprintf(&b, "\n| %s | what it stands for |\n|---|---|\n", list.title)
		for _, t := range list.terms {
			fmt.Fprintf(&b, "| `%s` | %s |\n", t.Name, cell(t.Doc))
		}
	}
	return b.String()
}
