package store

import (
	"bytes"
	"encoding/json"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"pgregory.net/rapid"

	"github.com/csfproxy/csfproxy/csf"
)

var testTime = time.Date(2026, 3, 1, 12, 30, 15, 123456000, time.UTC)

// addresses are comparable as they are.
var eventEqual = cmp.Options{cmpopts.EquateComparable(netip.AddrPort{}), cmpopts.EquateEmpty()}

func fullEvent() csf.Event {
	return csf.Event{Node: "edge-1", Time: testTime, Kind: csf.SessionBound, Reason: csf.ReasonKilled, Session: "0190163d-8694-739b-aea5-966c26f8ad91",
		Identity: "alice", Source: "lb-eu", Client: netip.MustParseAddrPort("203.0.113.7:5555"), Peer: netip.MustParseAddrPort("[2001:db8::1]:99"),
		Cluster: "orders", Upstream: "db1:5432", SelfTest: true, Block: []byte("block"), Facts: csf.Facts{
			"tls": true, "bytes_in": int64(1) << 60, "ratio": 0.5, "method": "scram-sha-256", "user": "alice-secret-name",
			"application_name": "line\nbreak \"quoted\" \\", "list": []any{"a", int64(2)}, "map": map[string]any{"x": int64(1)}}}
}

func payloadOf(e csf.Event, seq uint64) []byte {
	return encode(e, "edge-1", "0011", [saltSize]byte{1, 2, 3}).appendTo(nil, seq)
}

func TestPayloadRoundTrip(t *testing.T) {
	for name, e := range map[string]csf.Event{
		"everything": fullEvent(),
		"nothing":    {Node: "edge-1", Time: testTime, Kind: csf.NodeStarted},
		"open only":  {Node: "edge-1", Time: testTime, Kind: csf.NodeStarted, Facts: csf.Facts{"pid": int64(7)}},
		"body only":  {Node: "edge-1", Time: testTime, Kind: csf.NodeStarted, Facts: csf.Facts{"detail": "x"}},
	} {
		p := payloadOf(e, 42)
		if got := payloadSeq(p); got != 42 {
			t.Errorf("%s: number %d", name, got)
		}
		got, err := Decode(p)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		e.Seq = 42
		if diff := cmp.Diff(e, got, eventEqual); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		if again := payloadOf(e, 42); !bytes.Equal(p, again) {
			t.Errorf("%s: equal events have different bytes", name)
		}
	}
}

func TestHeaderHoldsNoPersonalData(t *testing.T) {
	p := payloadOf(fullEvent(), 1)
	parts, err := split(p)
	if err != nil {
		t.Fatal(err)
	}
	for _, personal := range []string{"alice", "203.0.113.7", "2001:db8", "quoted"} {
		if strings.Contains(string(parts.header), personal) {
			t.Errorf("the header has %q: %s", personal, parts.header)
		}
		if !strings.Contains(string(parts.body), personal) {
			t.Errorf("the body lacks %q: %s", personal, parts.body)
		}
	}
	var h header
	if err := json.Unmarshal(parts.header, &h); err != nil {
		t.Fatalf("the header is no JSON: %v", err)
	}
	for _, name := range []string{"identity", "client", "user"} {
		if !strings.Contains(strings.Join(h.Has, " "), name) {
			t.Errorf("the header does not say that %s is in the body: %v", name, h.Has)
		}
	}
}

func TestLeafOutlivesTheBody(t *testing.T) {
	p := payloadOf(fullEvent(), 9)
	leaf, err := LeafData(p)
	if err != nil {
		t.Fatal(err)
	}
	bare, err := Withhold(p)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(bare, []byte("alice")) || bytes.Contains(bare, []byte("block")) {
		t.Errorf("a withheld payload still has its body")
	}
	leaf2, err := LeafData(bare)
	if err != nil || !bytes.Equal(leaf, leaf2) {
		t.Errorf("the leaf changed by withholding the body: %v", err)
	}
	again, err := Withhold(bare)
	if err != nil || !bytes.Equal(bare, again) {
		t.Errorf("withholding twice: %v", err)
	}
	e, err := Decode(bare)
	if err != nil || e.Seq != 9 || e.Kind != csf.SessionBound || e.Identity != "" || e.Facts["tls"] != true {
		t.Errorf("a withheld payload decodes to %+v, %v", e, err)
	}
	for i := range p { // every byte is under the leaf
		q := bytes.Clone(p)
		q[i] ^= 1
		if other, err := LeafData(q); err == nil && bytes.Equal(leaf, other) && i != 1 {
			t.Fatalf("byte %d of the payload can change without the leaf", i)
		}
	}
}

func TestStrangeValues(t *testing.T) {
	e := csf.Event{Kind: csf.ConnRejected, Identity: "nul\x00 bad\xff tab\t", Time: testTime,
		Facts: csf.Facts{"detail": "nul\x00 and \\u0000 and \\\x00", "k\x00": "v"}}
	got, err := Decode(payloadOf(e, 1))
	if err != nil {
		t.Fatal(err)
	}
	if got.Identity != "nul\uFFFD bad\uFFFD tab\t" {
		t.Errorf("identity %q", got.Identity)
	}
	if got.Facts["detail"] != "nul\uFFFD and \\u0000 and \\\uFFFD" {
		t.Errorf("detail %q", got.Facts["detail"])
	}
	big := csf.Event{Kind: csf.ConnRejected, Time: testTime, Session: strings.Repeat("s", 3<<20), Facts: csf.Facts{"detail": strings.Repeat("x", 2<<20)}}
	p := payloadOf(big, 1)
	if len(p) > maxRecordPayload {
		t.Fatalf("a payload of %d bytes", len(p))
	}
	if got, err := Decode(p); err != nil || got.Facts["facts_error"] == nil {
		t.Errorf("an event that is too large: %v %v", got.Facts, err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(payloadOf(fullEvent(), 1))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, p []byte) {
		_, derr := Decode(p)
		leaf, lerr := LeafData(p)
		if derr == nil && (lerr != nil || len(leaf) == 0) {
			t.Fatalf("decodes, but has no leaf: %v", lerr)
		}
	})
}

// Facts are written by hand for speed; the bytes are those of encoding/json.
func TestFactsAreWrittenAsJSON(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		facts := csf.Facts{}
		for range rapid.IntRange(0, 30).Draw(rt, "n") {
			name := rapid.OneOf(rapid.SampledFrom([]string{"tls", "user", "list", "method", "detail"}), rapid.String()).Draw(rt, "name")
			facts[name] = rapid.OneOf(
				rapid.Map(rapid.String(), func(s string) any { return s }),
				rapid.Map(rapid.Int(), func(n int) any { return n }),
				rapid.Map(rapid.Int64(), func(n int64) any { return n }),
				rapid.Map(rapid.Uint64(), func(n uint64) any { return n }),
				rapid.Map(rapid.Float64(), func(n float64) any { return n }),
				rapid.Map(rapid.Bool(), func(b bool) any { return b }),
				rapid.Map(rapid.SliceOf(rapid.String()), func(l []string) any { return l }),
				rapid.Map(rapid.MapOf(rapid.String(), rapid.Int()), func(m map[string]int) any { return m }),
				rapid.SampledFrom([]any{nil, math.NaN(), math.Inf(1), "\x00", "a\x7f", "<b>&", "\xff", "\u2028"}),
			).Draw(rt, "value")
		}
		names := slices.Sorted(maps.Keys(facts))
		for _, open := range []bool{true, false} {
			part := csf.Facts{}
			for k, v := range facts {
				if (headerFacts[k] || isNumber(v)) == open {
					part[k] = v
				}
			}
			want := ""
			if len(part) > 0 {
				want = `,"facts":` + string(factsJSON(part))
			}
			if got := string(appendFacts(nil, facts, names, open)); got != want {
				rt.Fatalf("%s\nwant %s", got, want)
			}
		}
	})
}

// The quick way to decode facts gives what encoding/json gives, or leaves them to it.
func TestPlainFactsAreThoseOfJSON(t *testing.T) {
	slow := func(object []byte) (csf.Facts, error) {
		d := json.NewDecoder(bytes.NewReader(object))
		d.UseNumber()
		var f map[string]any
		if err := d.Decode(&f); err != nil {
			return nil, err
		}
		return csf.Facts(plainNumbers(f).(map[string]any)), nil
	}
	if f, ok := plainFacts([]byte(`{"tls":true,"user":"billing","port":-7,"none":null}`)); !ok || !cmp.Equal(f, csf.Facts{"tls": true, "user": "billing", "port": int64(-7), "none": nil}) {
		t.Errorf("plain facts: %v %v", f, ok)
	}
	for _, left := range []string{`{"a":1.5}`, `{"a":-0}`, `{"a":01}`, `{"a":1e3}`, `{"a":[1]}`, `{"a":{}}`, `{"a":"\u0041"}`, `{"a":"é"}`, `{"a\n":1}`, `{"a":tru}`, `{"a":1,}`, `{"a"}`, `{a:1}`, `[]`, ``,
		`{"a":99999999999999999999}`} {
		if f, ok := plainFacts([]byte(left)); ok {
			t.Errorf("%s is taken for plain: %v", left, f)
		}
	}
	rapid.Check(t, func(rt *rapid.T) {
		facts := csf.Facts{}
		for range rapid.IntRange(0, 8).Draw(rt, "n") {
			facts[rapid.OneOf(rapid.SampledFrom([]string{"tls", "user"}), rapid.String()).Draw(rt, "name")] = rapid.OneOf(
				rapid.Map(rapid.String(), func(s string) any { return s }),
				rapid.Map(rapid.Int64(), func(n int64) any { return n }),
				rapid.Map(rapid.Float64(), func(n float64) any { return n }),
				rapid.Map(rapid.Bool(), func(b bool) any { return b }),
				rapid.SampledFrom([]any{nil, "", "a b", []string{"x"}, 0}),
			).Draw(rt, "value")
		}
		object := factsJSON(facts)
		want, err := slow(object)
		if got, ok := plainFacts(object); ok && (err != nil || !cmp.Equal(got, want)) {
			rt.Fatalf("%s gives %v, want %v %v", object, got, want, err)
		}
	})
}
