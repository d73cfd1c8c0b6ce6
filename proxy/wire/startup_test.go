package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/google/go-cmp/cmp"
)

func startupBody(pairs ...string) []byte {
	var b []byte
	for _, p := range pairs {
		b = appendString(b, p)
	}
	return append(b, 0)
}

func TestParseStartup(t *testing.T) {
	long := strings.Repeat("x", 64)
	tests := []struct {
		name   string
		body   []byte
		want   Startup
		reason csf.Reason
		code   string
		key    string
	}{
		{name: "plain", body: startupBody("user", "u", "database", "d", "application_name", "psql", "search_path", "a, b"),
			want: Startup{User: "u", Database: "d", Parameters: []Parameter{{"application_name", "psql"}, {"search_path", "a, b"}}}},
		{name: "database is the user", body: startupBody("user", "u"), want: Startup{User: "u", Database: "u"}},
		{name: "empty database is the user", body: startupBody("database", "", "user", "u"), want: Startup{User: "u", Database: "u"}},
		{name: "protocol options", body: startupBody("user", "u", "_pq_.b", "1", "_pq_.a", ""),
			want: Startup{User: "u", Database: "u", ProtocolOptions: []Parameter{{"_pq_.b", "1"}, {"_pq_.a", ""}}}},
		{name: "replication", body: startupBody("user", "u", "replication", "Tr"), want: Startup{User: "u", Database: "u", Replication: ReplicationPhysical}},
		{name: "replication database", body: startupBody("user", "u", "replication", "database"), want: Startup{User: "u", Database: "u", Replication: ReplicationLogical}},
		{name: "replication off", body: startupBody("user", "u", "replication", "off"), want: Startup{User: "u", Database: "u"}},
		{name: "replication o", body: startupBody("user", "u", "replication", "o"), reason: csf.ReasonStartupParameter, code: "22023", key: "replication"},
		{name: "replication empty", body: startupBody("user", "u", "replication", ""), reason: csf.ReasonStartupParameter, code: "22023", key: "replication"},
		{name: "options", body: startupBody("user", "u", "options", `-c a=1 --b-c=x\ y`),
			want: Startup{User: "u", Database: "u", Options: `-c a=1 --b-c=x\ y`, Settings: []Parameter{{"a", "1"}, {"b_c", "x y"}}}},
		{name: "bad options", body: startupBody("user", "u", "options", "-c"), reason: csf.ReasonStartupParameter, code: "22023", key: "-c"},
		{name: "63 bytes", body: startupBody("user", long[:63]), want: Startup{User: long[:63], Database: long[:63]}},
		{name: "user of 64 bytes", body: startupBody("user", long), reason: csf.ReasonStartupName, code: "28000", key: "user"},
		{name: "database of 64 bytes", body: startupBody("user", "u", "database", long), reason: csf.ReasonStartupName, code: "28000", key: "database"},
		{name: "duplicate user", body: startupBody("user", "a", "user", "b"), reason: csf.ReasonStartupDuplicate, code: "08P01", key: "user"},
		{name: "duplicate setting in another case", body: startupBody("user", "a", "Search_Path", "x", "search_path", "y"), reason: csf.ReasonStartupDuplicate, code: "08P01", key: "search_path"},
		{name: "USER is a setting", body: startupBody("USER", "admin", "user", "u"), want: Startup{User: "u", Database: "u", Parameters: []Parameter{{"USER", "admin"}}}},
		{name: "no user", body: startupBody("database", "d"), reason: csf.ReasonStartupUser, code: "28000", key: "user"},
		{name: "nothing", body: nil, reason: csf.ReasonStartupMalformed, code: "08P01"},
		{name: "terminator only", body: []byte{0}, reason: csf.ReasonStartupUser, code: "28000", key: "user"},
		{name: "no terminator", body: []byte("user\x00u\x00"), reason: csf.ReasonStartupMalformed, code: "08P01"},
		{name: "name without value", body: []byte("user\x00u\x00a\x00\x00")[:9], reason: csf.ReasonStartupMalformed, code: "08P01"},
		{name: "bytes after the terminator", body: append(startupBody("user", "u"), "a\x00b\x00"...), reason: csf.ReasonStartupMalformed, code: "08P01"},
		{name: "last byte is no terminator", body: []byte("user\x00u\x00\x00x"), reason: csf.ReasonStartupMalformed, code: "08P01"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, v := ParseStartup(tt.body)
			if tt.reason == "" {
				if v != nil {
					t.Fatal(v)
				}
				if d := cmp.Diff(tt.want, got); d != "" {
					t.Error(d)
				}
				return
			}
			if v == nil || v.Reason != tt.reason || v.SQLSTATE() != tt.code || v.Key != tt.key || v.Reaction != Fatal {
				t.Errorf("violation %+v", v)
			}
		})
	}
}

func TestParseOptions(t *testing.T) {
	tests := []struct {
		in   string
		want []Parameter
		code string
	}{
		{in: ""},
		{in: "  \t\n "},
		{in: "-c a=b", want: []Parameter{{"a", "b"}}},
		{in: "-ca=b --c-d=e=f -c  g=", want: []Parameter{{"a", "b"}, {"c_d", "e=f"}, {"g", ""}}},
		{in: `-c search_path=a\ b\\c\`, want: []Parameter{{"search_path", `a b\c`}}},
		{in: `-c\ a=b`, want: []Parameter{{" a", "b"}}},
		{in: "-c --x=y", want: []Parameter{{"__x", "y"}}},
		{in: "--", want: nil},
		{in: "-c", code: "22023"},
		{in: "-c=", code: "22023"},
		{in: "-c =v", code: "22023"},
		{in: "-c name", code: "22023"},
		{in: "--=v", code: "22023"},
		{in: "--name", code: "22023"},
		{in: "word", code: "42601"},
		{in: "-- word", code: "42601"},
		{in: "-", code: "42601"},
		{in: "-d 5", code: "42501"},
		{in: "-Fc a=b", code: "42501"},
		{in: "-c a=b -S 100", code: "42501"},
	}
	for _, tt := range tests {
		got, v := ParseOptions(tt.in)
		switch {
		case tt.code == "" && (v != nil || !slices.Equal(got, tt.want)):
			t.Errorf("%q: %q, %v; want %q", tt.in, got, v, tt.want)
		case tt.code != "" && (v == nil || v.SQLSTATE() != tt.code):
			t.Errorf("%q: %q, %v; want %s", tt.in, got, v, tt.code)
		}
	}
}

// TestOptionsAgainstPostgreSQL: what ParseOptions reads is what PostgreSQL sets.
func TestOptionsAgainstPostgreSQL(t *testing.T) {
	for _, in := range []string{`-c application_name=a\ b`, `--application-name=x\\y`, `-capplication_name=q=r`,
		`-c application_name=1  --application_name=2\`, `-c geqo=off -c application_name=\-\c`} {
		want, v := ParseOptions(in)
		if v != nil {
			t.Fatal(v)
		}
		conn := login(t, Parameter{"options", in})
		conn.Write(cat(mQuery("show application_name"), AppendTerminate(nil)))
		b, _ := io.ReadAll(conn)
		if value := want[len(want)-1].Value; !bytes.Contains(b, append(binary.BigEndian.AppendUint32(nil, uint32(len(value))), value...)) {
			t.Errorf("%q: %q is not %q", in, b, value)
		}
	}
}

func TestStartupHeader(t *testing.T) {
	tests := []struct {
		name   string
		bytes  string
		limit  int
		kind   StartupKind
		reason csf.Reason
	}{
		{"startup 3.0", "0000000900030000", 0, StartupMessage, ""},
		{"startup 3.2", "0000000900030002", 0, StartupMessage, ""},
		{"GREASE", "000000090003270f", 0, StartupMessage, ""},
		{"longest", "0000271400030000", 0, StartupMessage, ""},
		{"too long", "0000271500030000", 0, 0, csf.ReasonStartupTooLarge},
		{"over the listener's limit", "0000006500030000", 100, 0, csf.ReasonStartupTooLarge},
		{"limit above PostgreSQL's", "0000271500030000", 1 << 30, 0, csf.ReasonStartupTooLarge},
		{"SSLRequest", "0000000804d2162f", 0, StartupSSL, ""},
		{"SSLRequest with four more bytes", "0000000c04d2162f", 0, 0, csf.ReasonStartupTooLarge},
		{"GSSENCRequest", "0000000804d21630", 0, StartupGSSENC, ""},
		{"CancelRequest", "0000001004d2162e", 0, StartupCancel, ""},
		{"CancelRequest of 3.2", "0000010c04d2162e", 0, StartupCancel, ""},
		{"CancelRequest too long", "0000010d04d2162e", 0, 0, csf.ReasonCancelMalformed},
		{"CancelRequest too short", "0000000f04d2162e", 0, 0, csf.ReasonCancelMalformed},
		{"2.0", "0000000900020000", 0, 0, csf.ReasonStartupVersion},
		{"HTTP", "474554202f204854", 0, 0, csf.ReasonForeignProtocol},
		{"HTTP/2", "505249202a204854", 0, 0, csf.ReasonForeignProtocol},
		{"SSH", "5353482d322e302d", 0, 0, csf.ReasonForeignProtocol},
		{"Redis", "2a310d0a24340d0a", 0, 0, csf.ReasonForeignProtocol},
		{"memcached text", "73746174730d0a00", 0, 0, csf.ReasonForeignProtocol},
		{"memcached binary", "800b000000000000", 0, 0, csf.ReasonStartupTooLarge},
		{"TLS", "16030100c8010000", 0, 0, csf.ReasonForeignProtocol},
		{"SSLv2", "802e010002001500", 0, 0, csf.ReasonForeignProtocol},
		{"SMB", "00000085ff534d42", 0, 0, csf.ReasonForeignProtocol},
		{"SMB2", "00000085fe534d42", 0, 0, csf.ReasonForeignProtocol},
		{"RDP", "030000130ee00000", 0, 0, csf.ReasonForeignProtocol},
		{"TDS", "1201002f00000100", 0, 0, csf.ReasonForeignProtocol},
		{"password first", "7000000861626300", 0, 0, csf.ReasonStartupTooLarge},
	}
	for _, tt := range tests {
		h, v := ParseStartupHeader([8]byte(unhex(t, tt.bytes)), tt.limit)
		if tt.reason == "" && (v != nil || h.Kind != tt.kind || h.Length != int(binary.BigEndian.Uint32(unhex(t, tt.bytes)))) {
			t.Errorf("%s: %+v, %v", tt.name, h, v)
		}
		if tt.reason != "" && (v == nil || v.Reason != tt.reason || (v.Reaction == Silent) != (tt.reason != csf.ReasonStartupVersion)) {
			t.Errorf("%s: %+v, %+v", tt.name, h, v)
		}
	}
	for n, ok := range map[int]bool{7: false, 8: true, 9: false} {
		if _, v := ParseCancelRequest(make([]byte, n), true); (v == nil) != ok {
			t.Errorf("old CancelRequest of %d bytes: %v", n, v)
		}
	}
	if r, v := ParseCancelRequest(unhex(t, "0000000701020304ff"), false); v != nil || r.PID != 7 || len(r.Key) != 5 {
		t.Errorf("%+v, %v", r, v)
	}
}

// countingReader records how far a reader was read.
type countingReader struct {
	r io.Reader
	n int
}

func (c *countingReader) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.n += n
	return n, err
}

func TestReadFrame(t *testing.T) {
	large := msg('S', strings.Repeat("x", 100000))
	for _, frame := range [][]byte{mSync, rReady('I'), large} {
		for _, one := range []bool{false, true} {
			in := &countingReader{r: bytes.NewReader(cat(frame, []byte("rest")))}
			var r io.Reader = in
			if one {
				r = iotest.OneByteReader(r)
			}
			typ, body, err := ReadFrame(r, Backend, make([]byte, 0, 16), MaxMessage)
			if err != nil || typ != frame[0] || !bytes.Equal(body, frame[5:]) || in.n != len(frame) {
				t.Errorf("%c: %d bytes of body, read %d of %d: %v", typ, len(body), in.n, len(frame), err)
			}
			for _, n := range []int{1, 4, len(frame) - 1} {
				if n < len(frame) {
					if _, _, err := ReadFrame(bytes.NewReader(frame[:n]), Backend, nil, MaxMessage); !errors.Is(err, io.ErrUnexpectedEOF) {
						t.Errorf("cut at %d: %v", n, err)
					}
				}
			}
		}
	}
	if _, _, err := ReadFrame(bytes.NewReader(nil), Frontend, nil, 10); err != io.EOF {
		t.Error(err)
	}
	for _, header := range []string{"5300000003", "53ffffffff", "537fffffff", "5300000010"} {
		_, _, err := ReadFrame(bytes.NewReader(unhex(t, header)), Frontend, nil, 11)
		if v, ok := errors.AsType[*Violation](err); !ok || v.Reason != csf.ReasonFrameLength {
			t.Errorf("%s: %v", header, err)
		}
	}
	// A length of 1 GiB costs what has arrived.
	n := testing.AllocsPerRun(1, func() {
		ReadFrame(io.MultiReader(bytes.NewReader(unhex(t, "533ffffffe")), bytes.NewReader(make([]byte, 9000))), Frontend, nil, MaxMessage)
	})
	if n > 20 {
		t.Errorf("%v allocations", n)
	}
}

// TestMessagesRoundTrip: what the builders write is what the parsers read.
func TestMessagesRoundTrip(t *testing.T) {
	sent := []Parameter{{"_pq_.x", "1"}}
	e, v := ParseErrorResponse(AppendErrorResponse(nil, SeverityFatal, "28P01", "m\x00hidden", "d", "h")[5:])
	if v != nil || string(e.Severity) != "FATAL" || !e.Fatal() || string(e.SQLSTATE) != "28P01" || string(e.Message) != "m" || string(e.Detail) != "d" || string(e.Hint) != "h" {
		t.Errorf("%q %v", e, v)
	}
	if e, v := ParseErrorResponse(AppendErrorResponse(nil, SeverityError, "bad", strings.Repeat("x", 9999), "", "")[5:]); v != nil || string(e.SQLSTATE) != "XX000" || len(e.Message) != maxErrorField {
		t.Errorf("%s %v", e.SQLSTATE, v)
	}
	if a, v := ParseAuthentication(must(AppendAuthenticationSASL(nil, "A", "B"))[5:]); v != nil || a.Code != authSASL || !slices.Equal(a.Mechanisms, []string{"A", "B"}) {
		t.Errorf("%+v %v", a, v)
	}
	if a, v := ParseAuthentication(must(AppendAuthenticationSASLContinue(nil, []byte("r=")))[5:]); v != nil || a.Code != authSASLContinue || string(a.Data) != "r=" {
		t.Errorf("%+v %v", a, v)
	}
	if a, v := ParseAuthentication(must(AppendAuthenticationSASLFinal(nil, []byte("v=")))[5:]); v != nil || a.Code != authSASLFinal {
		t.Errorf("%+v %v", a, v)
	}
	if a, v := ParseAuthentication(AppendAuthenticationMD5Password(nil, [4]byte{1, 2, 3, 4})[5:]); v != nil || a.Salt[3] != 4 {
		t.Errorf("%+v %v", a, v)
	}
	for _, b := range [][]byte{AppendAuthenticationOk(nil), AppendAuthenticationCleartextPassword(nil)} {
		if _, v := ParseAuthentication(b[5:]); v != nil {
			t.Error(v)
		}
	}
	if pid, key, v := ParseBackendKeyData(must(AppendBackendKeyData(nil, 77, make([]byte, 32)))[5:], Version32); v != nil || pid != 77 || len(key) != 32 {
		t.Error(pid, key, v)
	}
	if _, _, v := ParseBackendKeyData(must(AppendBackendKeyData(nil, 77, make([]byte, 5)))[5:], Version30); v == nil {
		t.Error("a key of five bytes in protocol 3.0")
	}
	if n, value, v := ParseParameterStatus(must(AppendParameterStatus(nil, "a", "b"))[5:]); v != nil || string(n) != "a" || string(value) != "b" {
		t.Error(v)
	}
	b := must(AppendNegotiateProtocolVersion(nil, Version30, sent))[5:]
	if version, options, v := ParseNegotiateProtocolVersion(b, Version32, sent); v != nil || version != Version30 || !slices.Equal(options, []string{"_pq_.x"}) {
		t.Error(version, options, v)
	}
	if _, _, v := ParseNegotiateProtocolVersion(b, Version32, nil); v == nil {
		t.Error("an option that was not sent")
	}
	raw := must(AppendStartupMessage(nil, Version32, []Parameter{{"user", "u"}, {"x", "y"}}))
	kind, s, v, complete := startupVerdict(raw)
	if kind != StartupMessage || v != nil || !complete || s.User != "u" || len(s.Parameters) != 1 {
		t.Error(kind, s, v)
	}
	cancel := must(AppendCancelRequest(nil, 9, []byte{1, 2, 3, 4}))
	if kind, _, v, complete := startupVerdict(cancel); kind != StartupCancel || v != nil || !complete {
		t.Error(kind, v)
	}
	if kind, _, _, _ := startupVerdict(AppendSSLRequest(nil)); kind != StartupSSL {
		t.Error(kind)
	}
	for _, m := range [][]byte{must(AppendQuery(nil, "q")), must(AppendParse(nil, "a", "b", 23, 25)), must(AppendFunctionCall(nil, 3, []byte("x"), nil)), must(AppendCopyFail(nil, "x"))} {
		if bad := checkFrontendBody(m[0], m[5:]); bad != "" || int(binary.BigEndian.Uint32(m[1:])) != len(m)-1 {
			t.Errorf("%q: %s", m, bad)
		}
	}
	if got := must(AppendSASLInitialResponse(nil, "M", nil)); !bytes.Equal(got, msg('p', "M", []byte{255, 255, 255, 255})) {
		t.Errorf("%q", got)
	}
	if got := must(AppendSASLInitialResponse(nil, "M", []byte("ab"))); !bytes.Equal(got, msg('p', "M", 0, 2, []byte("ab"))) {
		t.Errorf("%q", got)
	}
	if got := must(AppendSASLResponse(nil, []byte("ab"))); !bytes.Equal(got, msg('p', []byte("ab"))) {
		t.Errorf("%q", got)
	}
	if got := must(AppendPasswordMessage(nil, "pw")); !bytes.Equal(got, msg('p', "pw")) {
		t.Errorf("%q", got)
	}
	if got := string(AppendErrorV2(nil, "no")); got != "Eno\x00" {
		t.Errorf("%q", got)
	}
}

// TestEncodersRefuse: NUL in any string, and sizes whose length word would wrap.
func TestEncodersRefuse(t *testing.T) {
	nul := "x\x00user\x00postgres"
	refused := map[string]error{}
	for _, p := range []Parameter{{"user", nul}, {nul, "x"}, {"", "x"}, {"user", strings.Repeat("x", MaxStartup)}} {
		_, refused["startup "+p.Name[:min(4, len(p.Name))]] = AppendStartupMessage(nil, Version30, []Parameter{p})
	}
	_, refused["startup twice"] = AppendStartupMessage(nil, Version30, []Parameter{{"a", "1"}, {"a", "2"}})
	_, refused["query"] = AppendQuery(nil, nul)
	_, refused["parse name"] = AppendParse(nil, nul, "x")
	_, refused["parse text"] = AppendParse(nil, "", nul)
	_, refused["parse types"] = AppendParse(nil, "", "", make([]uint32, 65536)...)
	_, refused["function"] = AppendFunctionCall(nil, 1, make([][]byte, 65536)...)
	_, refused["password"] = AppendPasswordMessage(nil, nul)
	_, refused["mechanism"] = AppendSASLInitialResponse(nil, nul, nil)
	_, refused["mechanisms"] = AppendAuthenticationSASL(nil, "a", nul)
	_, refused["parameter"] = AppendParameterStatus(nil, "a", nul)
	_, refused["copy fail"] = AppendCopyFail(nil, nul)
	_, refused["negotiate"] = AppendNegotiateProtocolVersion(nil, Version30, []Parameter{{nul, ""}})
	_, refused["short key"] = AppendCancelRequest(nil, 1, make([]byte, 3))
	_, refused["long key"] = AppendBackendKeyData(nil, 1, make([]byte, 257))
	for name, err := range refused {
		if err == nil {
			t.Errorf("%s was built", name)
		}
	}
	for _, sizes := range [][]int{{MaxMessage - 3}, {MaxMessage, MaxMessage, MaxMessage, MaxMessage}, {1<<31 - 1, 1<<31 - 1, 6}} {
		if !errors.Is(checkBody(sizes...), ErrTooLarge) {
			t.Errorf("%d was accepted", sizes)
		}
	}
	if checkBody(MaxMessage-4) != nil {
		t.Error("the greatest message was refused")
	}
}
