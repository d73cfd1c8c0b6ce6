package app

import (
	"net/netip"
	"testing"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/detect"
	"github.com/csfproxy/csfproxy/proxy"
	"github.com/csfproxy/csfproxy/respond"
)

// Each kind of containment keeps new sessions out, and nobody else's.
func TestGate(t *testing.T) {
	c, err := respond.New(respond.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	for _, scope := range []respond.Scope{respond.Source(netip.MustParseAddr("192.0.2.7")), respond.Identity("rogue"), {Kind: respond.ScopeDatabase, Name: "ledger"}} {
		if _, err := c.Apply(respond.Request{Scope: scope, By: "test", Reason: "test", For: time.Hour}); err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct {
		client, identity, database string
		admitted                   bool
	}{
		{"192.0.2.7", "", "", false},
		{"192.0.2.8", "", "", true},
		{"192.0.2.8", "rogue", "shop", false},
		{"192.0.2.8", "orders", "ledger", false},
		{"192.0.2.8", "orders", "shop", true},
	} {
		reason, _, ok := gate{c}.Admit(netip.MustParseAddr(tc.client), tc.identity, tc.database)
		if ok != tc.admitted || !ok && reason != csf.ReasonContained {
			t.Errorf("%s %q %q: admitted %v (%s), want %v", tc.client, tc.identity, tc.database, ok, reason, tc.admitted)
		}
	}
}

// The session's encoding reaches the lexer: in SJIS the byte 0x5c may be half of a character, and the text then reads
// differently from what it does in UTF8.
func TestInspectorPassesEncoding(t *testing.T) {
	engine, err := detect.New(detect.Config{Rules: []string{"builtin"}})
	if err != nil {
		t.Fatal(err)
	}
	// 0x95 0x5c is one character of SJIS. Read as UTF8 with backslash escapes, 0x5c would take the quote behind it.
	sql := []byte("SELECT E'\x95\x5c'; COPY t TO PROGRAM 'sh'; --'")
	in := proxy.StatementInput{SQL: sql, Protocol: 'Q', StandardStrings: true, Session: &proxy.SessionFacts{Identity: "orders"}}
	for encoding, want := range map[string]proxy.Action{"SJIS": proxy.Refuse, "UTF8": proxy.Allow} {
		in.Encoding = encoding
		if v := (inspector{engine}).Inspect(in); v.Action != want {
			t.Errorf("%s: action %v by %s, want %v", encoding, v.Action, v.Rule, want)
		}
	}
}
