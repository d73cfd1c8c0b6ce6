package proxyproto

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net/netip"
	"os"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/csfproxy/csfproxy/csf"
)

func testTime() time.Time { return time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC) }

func prefixes(t testing.TB, texts ...string) []netip.Prefix {
	t.Helper()
	var out []netip.Prefix
	for _, s := range texts {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, p)
	}
	return out
}

func newSource(t testing.TB, change func(*Source)) *Source {
	t.Helper()
	s := Source{
		Name: "lb", Networks: prefixes(t, "10.4.0.0/28"), Owner: "network", ApprovedBy: "CHG-1",
		Expires: testTime().Add(time.Hour), ClientNetworks: prefixes(t, "0.0.0.0/0", "::/0"),
	}
	if change != nil {
		change(&s)
	}
	r, err := NewRegister([]Source{s})
	if err != nil {
		t.Fatal(err)
	}
	found, ok := r.Lookup(s.Networks[0].Addr())
	if !ok {
		t.Fatal("the source is not found by its own network")
	}
	return found
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// verdict is what a vector must give: accepted (source "" for local) or refused for a reason. rest is
// what must be left unread.
type verdict struct {
	source string
	local  bool
	reason csf.Reason
	rest   int
}

type vector struct {
	id      string
	input   []byte
	trusted bool
}

// ownVectors builds the cases of the catalogue that its file of vectors leaves out.
func ownVectors() []vector {
	const v4 = "\xc0\x00\x02\x0a\xc0\x00\x02\x01\xc3\x50\x15\x38"
	v6 := "\x20\x01\x0d\xb8" + strings.Repeat("\x00", 11) + "\x10" + "\x20\x01\x0d\xb8" + strings.Repeat("\x00", 11) + "\x01\xc3\x50\x15\x38"
	mapped := strings.Repeat("\x00", 10) + "\xff\xff\x7f\x00\x00\x01" + v6[16:]
	v2 := func(command, family byte, body string) string {
		return signature2 + string([]byte{command, family, byte(len(body) >> 8), byte(len(body))}) + body
	}
	tlv := func(t byte, value string) string {
		return string([]byte{t, byte(len(value) >> 8), byte(len(value))}) + value
	}
	startup := "\x00\x00\x00\x26\x00\x03\x00\x00user\x00vuser\x00database\x00postgres\x00\x00"
	var out []vector
	for _, v := range []struct{ id, input string }{
		{"PP-03", "PROXY UNKNOWN\r\n"},
		{"PP-06", "PROXY TCP4 192.0.2.10 192.0.2.1 50000 5432\r"},
		{"PP-09", "PROXY UNKNOWN " + strings.Repeat("ffff:", 7) + "ffff " + strings.Repeat("ffff:", 7) + "ffff 65535 65535\r\n"},
		{"PP-12", "PROXY TCP4 192.0.2.10 192.0.2.1 65536 5432\r\n"},
		{"PP-15", "PROXY TCP4 192.0.2.10 192.0.2.1 50000 5432 x\r\n"},
		{"PP-18", "proxy tcp4 192.0.2.10 192.0.2.1 50000 5432\r\n"},
		{"PP-21", "PROXY TCP4 192.0.2.10\x00 192.0.2.1 50000 5432\r\n"},
		{"PP-24", v2(0x21, 0x21, v6)},
		{"PP-27", v2(0x20, 0x11, "")},
		{"PP-30", v2(0x31, 0x11, v4)},
		{"PP-33", v2(0x21, 0x13, v4)},
		{"PP-36", v2(0x21, 0x31, strings.Repeat("a", 216))},
		{"PP-39", v2(0x21, 0x11, v4)[:24]},
		{"PP-42", v2(0x21, 0x11, v4+tlv(0x04, strings.Repeat("\x00", 505)))},
		{"PP-45", v2(0x21, 0x11, v4+tlv(0x02, "12345")) + "12345678"},
		{"PP-48", v2(0x21, 0x11, v4+tlv(0x03, "123"))},
		{"PP-51", v2(0x21, 0x11, v4+tlv(0x05, strings.Repeat("u", 129)))},
		{"PP-54", v2(0x21, 0x11, v4+tlv(0x20, "\x07\x00\x00"))},
		{"PP-57", v2(0x21, 0x11, v4+tlv(0x02, "a.io")+tlv(0x02, "b.io"))},
		{"PP-60", v2(0x21, 0x11, v4) + "PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n"},
		{"PP-69", v2(0x21, 0x11, "\xff\xff\xff\xff"+v4[4:])},
		{"PP-72", v2(0x21, 0x11, "\x0a\x00\x00\x01"+v4[4:])},
		{"PP-75", v2(0x21, 0x21, mapped)},
		{"PP-78", v2(0x21, 0x11, v4)},
		{"PP-81", v2(0x21, 0x11, v4) + "\x00\x00\x00\x08\x04\xd2\x16\x2f" + startup},
	} {
		out = append(out, vector{v.id, []byte(v.input), true})
	}
	return append(out,
		vector{"PP-63", []byte("PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n"), false},
		vector{"PP-66", []byte(startup), false})
}

// fileVectors reads the catalogue's file.
func fileVectors(t testing.TB) []vector {
	t.Helper()
	f, err := os.Open("testdata/proxyproto_vectors.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	var vectors []vector
	for lines.Scan() {
		var v struct {
			ID, Peer string
			Header   json.RawMessage
		}
		if err := json.Unmarshal(lines.Bytes(), &v); err != nil {
			t.Fatal(err)
		}
		var parts []string
		if json.Unmarshal(v.Header, &parts) != nil {
			var one string
			if err := json.Unmarshal(v.Header, &one); err != nil {
				t.Fatal(err)
			}
			parts = []string{one}
		}
		vectors = append(vectors, vector{v.ID, unhex(t, strings.Join(parts, "")), v.Peer == "trusted"})
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return vectors
}

// TestVectors runs every vector of the catalogue, at once and byte by byte.
func TestVectors(t *testing.T) {
	want := map[string]verdict{
		"PP-01": {source: "192.0.2.10:50000"},
		"PP-02": {source: "[2001:db8::10]:50000"},
		"PP-03": {local: true},
		"PP-04": {local: true},
		"PP-05": {reason: csf.ReasonProxyMalformed},
		"PP-06": {reason: csf.ReasonProxyMalformed},
		"PP-07": {reason: csf.ReasonProxyMalformed},
		"PP-08": {reason: csf.ReasonProxyOversized},
		"PP-09": {local: true},
		"PP-10": {reason: csf.ReasonProxyMalformed},
		"PP-11": {reason: csf.ReasonProxyMalformed},
		"PP-12": {reason: csf.ReasonProxyMalformed},
		"PP-13": {reason: csf.ReasonProxyMalformed},
		"PP-14": {reason: csf.ReasonProxyMalformed},
		"PP-15": {reason: csf.ReasonProxyMalformed},
		"PP-16": {reason: csf.ReasonProxyMalformed},
		"PP-17": {reason: csf.ReasonProxyMalformed},
		"PP-18": {reason: csf.ReasonProxyMissing},
		"PP-19": {reason: csf.ReasonProxyMalformed},
		"PP-20": {reason: csf.ReasonProxyClient},
		"PP-21": {reason: csf.ReasonProxyMalformed},
		"PP-22": {reason: csf.ReasonProxyMalformed},
		"PP-23": {source: "192.0.2.10:50000"},
		"PP-24": {source: "[2001:db8::10]:50000"},
		"PP-25": {local: true},
		"PP-26": {local: true},
		"PP-27": {local: true},
		"PP-28": {reason: csf.ReasonProxyMalformed},
		"PP-29": {reason: csf.ReasonProxyMalformed},
		"PP-30": {reason: csf.ReasonProxyMalformed},
		"PP-31": {reason: csf.ReasonProxyMalformed},
		"PP-32": {reason: csf.ReasonProxyMalformed},
		"PP-33": {reason: csf.ReasonProxyMalformed},
		"PP-34": {reason: csf.ReasonProxyMalformed},
		"PP-35": {reason: csf.ReasonProxyMalformed},
		"PP-36": {reason: csf.ReasonProxyMalformed},
		"PP-37": {reason: csf.ReasonProxyMalformed},
		"PP-38": {reason: csf.ReasonProxyMalformed},
		"PP-39": {reason: csf.ReasonProxyMalformed},
		"PP-40": {reason: csf.ReasonProxyOversized},
		"PP-41": {reason: csf.ReasonProxyOversized},
		"PP-42": {source: "192.0.2.10:50000"},
		"PP-43": {reason: csf.ReasonProxyMalformed},
		"PP-44": {reason: csf.ReasonProxyMalformed},
		"PP-45": {source: "192.0.2.10:50000", rest: 8},
		"PP-46": {source: "192.0.2.10:50000"},
		"PP-47": {reason: csf.ReasonProxyMalformed},
		"PP-48": {reason: csf.ReasonProxyMalformed},
		"PP-49": {reason: csf.ReasonProxyMalformed},
		"PP-50": {source: "192.0.2.10:50000"},
		"PP-51": {reason: csf.ReasonProxyMalformed},
		"PP-52": {source: "192.0.2.10:50000"},
		"PP-53": {source: "192.0.2.10:50000"},
		"PP-54": {reason: csf.ReasonProxyMalformed},
		"PP-55": {reason: csf.ReasonProxyMalformed},
		"PP-56": {reason: csf.ReasonProxyMalformed},
		"PP-57": {reason: csf.ReasonProxyMalformed},
		"PP-58": {source: "192.0.2.10:50000"},
		"PP-59": {source: "192.0.2.10:50000", rest: 34},
		"PP-60": {source: "192.0.2.10:50000", rest: 34},
		"PP-61": {local: true, rest: 28},
		"PP-62": {reason: csf.ReasonProxyMissing},
		"PP-63": {reason: csf.ReasonProxyUnregistered},
		"PP-64": {reason: csf.ReasonProxyUnregistered},
		"PP-65": {reason: csf.ReasonProxyUnregistered},
		"PP-66": {reason: csf.ReasonProxyUnregistered},
		"PP-67": {reason: csf.ReasonProxyClient},
		"PP-68": {reason: csf.ReasonProxyClient},
		"PP-69": {reason: csf.ReasonProxyClient},
		"PP-70": {reason: csf.ReasonProxyClient},
		"PP-71": {reason: csf.ReasonProxyClient},
		"PP-72": {reason: csf.ReasonProxyClient},
		"PP-73": {reason: csf.ReasonProxyClient},
		"PP-74": {reason: csf.ReasonProxyClient},
		"PP-75": {reason: csf.ReasonProxyClient},
		"PP-76": {source: "[2001:db8::10]:50000"},
		"PP-77": {source: "192.0.2.10:0"},
		"PP-78": {source: "192.0.2.10:50000"},
		"PP-79": {reason: csf.ReasonProxyMalformed},
		"PP-80": {reason: csf.ReasonProxyMalformed},
		"PP-81": {source: "192.0.2.10:50000", rest: 46},
		"PP-82": {reason: csf.ReasonProxyMissing},
	}
	fromFile := fileVectors(t)
	vectors, n := append(ownVectors(), fromFile...), len(fromFile)
	run := make(map[string]bool)
	for _, v := range vectors {
		run[v.id] = true
		w, ok := want[v.id]
		if !ok {
			t.Fatalf("%s has no expectation", v.id)
		}
		var src *Source
		if v.trusted {
			src = newSource(t, nil)
		}
		t.Run(v.id, func(t *testing.T) {
			whole := bytes.NewReader(v.input)
			expect(t, w, src, whole, whole)
			slow := bytes.NewReader(v.input)
			expect(t, w, src, iotest.OneByteReader(slow), slow)
		})
	}
	for id := range want {
		if !run[id] {
			t.Errorf("%s has no vector", id)
		}
	}
	if n < 55 {
		t.Errorf("only %d vectors", n)
	}
}

func expect(t *testing.T, w verdict, src *Source, conn io.Reader, rest *bytes.Reader) {
	t.Helper()
	h, err := Read(conn, src, testTime())
	if w.reason != "" {
		var e *Error
		if !errors.As(err, &e) || e.Reason != w.reason {
			t.Fatalf("got %+v, %v; want reason %s", h, err, w.reason)
		}
		if len(e.Raw) > MaxHeader {
			t.Errorf("%d bytes kept", len(e.Raw))
		}
		for _, c := range []byte(e.Detail) {
			if c < ' ' || c > '~' {
				t.Fatalf("detail %q has raw bytes", e.Detail)
			}
		}
		return
	}
	if err != nil {
		t.Fatalf("refused: %v", err)
	}
	if h.Local != w.local || !w.local && h.Source.String() != w.source {
		t.Errorf("local %v source %v, want %v %v", h.Local, h.Source, w.local, w.source)
	}
	if w.local && (h.Source.IsValid() || h.Destination.IsValid()) {
		t.Error("a local header has addresses")
	}
	if rest.Len() != w.rest {
		t.Errorf("%d bytes are left unread, want %d", rest.Len(), w.rest)
	}
	for _, tlv := range h.TLVs {
		for _, c := range []byte(tlv.Text) {
			if c < ' ' || c > '~' {
				t.Errorf("TLV %s has raw bytes: %q", tlv.Name, tlv.Text)
			}
		}
	}
}
