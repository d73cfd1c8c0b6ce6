package selftest

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/jackc/pgx/v5/pgproto3"
)

// malformedFrame sends messages that no state of the protocol allows to a session that is logged in.
func malformedFrame(ctx context.Context, t Target) Outcome {
	a := attack(ctx, t)
	for _, c := range []struct {
		name string
		head []byte // type and length
	}{
		{"of an unknown type", []byte{'~', 0, 0, 0, 0}},
		{"with a length below 4", []byte{'Q', 0, 0, 0, 3}},
		{"that belongs into the login (PasswordMessage)", []byte{'p', 0, 0, 0, 0}},
	} {
		s, err := a.in(User)
		if err != nil {
			return void("%v", err)
		}
		defer s.Close()
		mark := marker()
		frame := append(bytes.Clone(c.head), mark...)
		if c.head[4] == 0 {
			frame[4] = byte(4 + len(mark))
		}
		r := s.askRaw(frame)
		// The fake server records a message before it reacts, and the ingress passes its reaction on: what it
		// received is known once the session has ended.
		if a.Fixture.Upstream.Saw([]byte(mark)) || a.Fixture.Upstream.Saw(c.head) {
			return fail("a message %s reached the server behind", c.name)
		}
		if !r.closed && !r.ready {
			return fail("a message %s was neither refused nor forwarded", c.name)
		}
		if _, ok := a.recorded(s.port, csf.ProtocolViolation); !ok {
			return fail("a message %s was refused, which is not on record", c.name)
		}
	}
	return pass("messages of an unknown type, with an impossible length and out of their state were refused, recorded and not forwarded")
}

// statementDeny runs a statement of a denied class by the simple and by the extended protocol, and checks that
// the session is left as PostgreSQL leaves it after an error.
func statementDeny(ctx context.Context, t Target) Outcome {
	a := attack(ctx, t)
	s, err := a.in(User)
	if err != nil {
		return void("%v", err)
	}
	defer s.Close()
	mark := marker()
	sql := "CREATE TABLE " + mark + " (a int)"
	for _, c := range []struct {
		name     string
		messages []pgproto3.FrontendMessage
	}{
		{"simple", []pgproto3.FrontendMessage{&pgproto3.Query{String: sql}}},
		{"extended", extended(sql)},
	} {
		r := s.ask(c.messages...)
		switch {
		case a.Fixture.Upstream.Saw([]byte(mark)):
			return fail("a denied statement reached the server behind by the %s protocol", c.name)
		case r.closed || !r.ready || r.status != 'I':
			return fail("after a denied statement by the %s protocol the session is not ready (closed %t, status %q)", c.name, r.closed, r.status)
		case len(r.sqlstates) != 1 || r.sqlstates[0] != "42501":
			return fail("a denied statement by the %s protocol was answered with SQLSTATE %q in place of 42501", c.name, r.sqlstates)
		}
		if r := s.ask(&pgproto3.Query{String: "SELECT 1"}); r.rows != 1 || !r.ready {
			return fail("after a denied statement by the %s protocol the session cannot go on", c.name)
		}
	}
	if _, ok := a.recorded(s.port, csf.QueryBlocked); !ok {
		return fail("a denied statement was refused, which is not on record")
	}
	return pass("a denied statement was refused with 42501 by both protocols, recorded, never forwarded, and the session went on")
}

// extended runs a statement by Parse, Bind, Describe, Execute and Sync.
func extended(sql string, parameters ...string) []pgproto3.FrontendMessage {
	b := &pgproto3.Bind{}
	for _, p := range parameters {
		b.Parameters = append(b.Parameters, []byte(p))
	}
	return []pgproto3.FrontendMessage{&pgproto3.Parse{Query: sql}, b, &pgproto3.Describe{ObjectType: 'P'}, &pgproto3.Execute{}, &pgproto3.Sync{}}
}

// redactionCanary puts secret words where statements, parameters and passwords have them, and looks for them in
// everything that was recorded.
func redactionCanary(ctx context.Context, t Target) Outcome {
	a := attack(ctx, t)
	s, err := a.in(User)
	if err != nil {
		return void("%v", err)
	}
	defer s.Close()
	canary := marker()
	// The denied statement is sure to get an event of its own, with its text. The others must leave nothing of
	// the kind; what the fake server calls a syntax error is recorded as an error of the statement.
	s.ask(&pgproto3.Query{String: "CREATE TABLE t AS SELECT '" + canary + "', $q$" + canary + "$q$ /* " + canary + " */"})
	s.ask(&pgproto3.Query{String: "SELECT '" + canary + "', E'" + canary + "'"})
	s.ask(&pgproto3.Query{String: "FETCH '" + canary + "'"})
	s.ask(extended("SELECT $1", canary)...)
	s.ask(extended("SELECT '" + canary + "'")...)
	if r := s.ask(&pgproto3.Query{String: "SELECT 1"}); r.rows != 1 {
		return void("the session of the canary did not go on")
	}
	s.ask(&pgproto3.Terminate{})
	if wrong, err := a.login(User, Database, canary); err != nil {
		return void("%v", err)
	} else if wrong.Close(); wrong.ready {
		return fail("a wrong password was accepted")
	}
	if _, ok := a.recorded(s.port, csf.QueryBlocked); !ok {
		return void("the denied statement with the canary has no record, so that nothing can be said of its text")
	}
	a.recorded(s.port, csf.SessionClosed)
	if !a.Fixture.Upstream.Saw([]byte(canary)) {
		return void("the statements with the canary did not reach the server behind")
	}
	n := 0
	for _, e := range a.Events(a.ctx, a.began, "") {
		n++
		text, err := json.Marshal(e)
		if err != nil {
			return void("an event cannot be read: %v", err)
		}
		if strings.Contains(string(text), canary) || bytes.Contains(e.Block, []byte(canary)) {
			return fail("a %s event holds a literal, parameter or password", e.Kind)
		}
	}
	return pass("no literal, comment, parameter or password is in the %d events of the test", n)
}
