package wire

// Term is a name of a table and what it stands for.
type Term struct{ Name, Doc string }

// Rule is one entry of an automaton's table: what a message does in a state, and the state that comes next.
type Rule struct{ State, Message, Action, Next string }

// Automaton is one side's table as it is in force, for documents and tests: each pair of a state and a message has
// exactly one Rule, in the order of States and Messages.
type Automaton struct {
	States, Messages, Actions []Term
	Rules                     []Rule
}

// FrontendAutomaton gives the table of the client's messages, its states in the order of a connection.
func FrontendAutomaton() Automaton {
	a := Automaton{Messages: frontMessages[:], Actions: frontActions[:]}
	for _, s := range []frontState{fsPlain, fsPlainNoSSL, fsPlainNoGSS, fsPlainNoBoth, fsEncrypted, fsLogin, fsReady, fsSkipping, fsCopyIn, fsCopyBoth, fsEnded} {
		a.States = append(a.States, frontStates[s])
		for m := range frontMessageCount {
			cell := frontendTable[s][m]
			a.Rules = append(a.Rules, Rule{frontStates[s].Name, frontMessages[m].Name, frontActions[cell.action].Name, frontStates[cell.next].Name})
		}
	}
	return a
}

// BackendAutomaton gives the table of the upstream's messages, the states of the login first. "next" stands for the state
// of the next request in line, or idle; "skip" for the first request from the next Sync on, or skipping.
func BackendAutomaton() Automaton {
	a := Automaton{Messages: backendMessages[:], Actions: backendActions[:]}
	for i := range stateCount {
		s := (i + stStartup) % stateCount
		a.States = append(a.States, backendStates[s])
		for m := range messageCount {
			t := backendTable[s][m]
			next := stateTerm(t.to)
			if t.action == bRefuse {
				next = backendStates[stEnded].Name
			}
			a.Rules = append(a.Rules, Rule{backendStates[s].Name, backendMessages[m].Name, backendActions[t.action].Name, next})
		}
	}
	return a
}
