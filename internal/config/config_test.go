package config

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/internal/pki"
	"github.com/google/go-cmp/cmp"
)

// today is the day on which the files of testdata are read.
var today = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

const testVerifier = "SCRAM-SHA-256$4096:c2FsdHNhbHRzYWx0c2FsdA==$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBA="

// machine is the machine that the files of testdata are checked on: what its files and its environment hold.
func machine(t *testing.T) Options {
	t.Helper()
	files := fstest.MapFS{
		"garbage.pem":    {Data: []byte("not a certificate"), Mode: 0o600},
		"empty.secret":   {Data: []byte("\n"), Mode: 0o600},
		"private.secret": {Data: []byte("0123456789abcdef0123456789abcdef\n"), Mode: 0o600},
		"exposed.secret": {Data: []byte("postgres://u:hunter2@127.0.0.1/events\n"), Mode: 0o644},
		"store.url":      {Data: []byte("postgres://u:hunter2@db/events?sslmode=verify-full\n"), Mode: 0o600},
	}
	pair := func(name string, from, to time.Time) {
		certPEM, keyPEM := certificate(t, from, to)
		files[name+".crt"] = &fstest.MapFile{Data: certPEM, Mode: 0o644}
		files[name+".key"] = &fstest.MapFile{Data: keyPEM, Mode: 0o600}
	}
	pair("server", today.AddDate(0, -1, 0), today.AddDate(1, 0, 0))
	pair("other", today.AddDate(0, -1, 0), today.AddDate(1, 0, 0))
	pair("expired", today.AddDate(-1, 0, 0), today.AddDate(0, 0, -1))
	pair("future", today.AddDate(0, 0, 1), today.AddDate(1, 0, 0))
	pair("soon", today.AddDate(-1, 0, 0), today.AddDate(0, 0, 7))
	files["exposed.key"] = &fstest.MapFile{Data: files["soon.key"].Data, Mode: 0o644}
	env := map[string]string{"CSFPROXY_SECRET": "hunter2", "CSFPROXY_VERIFIER": testVerifier}
	return Options{
		Now: func() time.Time { return today },
		Env: func(name string) (string, bool) { v, ok := env[name]; return v, ok },
		ReadFile: func(p string) ([]byte, error) {
			if p == "unreadable.key" {
				return nil, &fs.PathError{Op: "open", Path: p, Err: fs.ErrPermission}
			}
			return files.ReadFile(p)
		},
		Stat: files.Stat,
		Glob: files.Glob,
	}
}

func certificate(t *testing.T, from, to time.Time) (certPEM, keyPEM []byte) {
	t.Helper()
	pair, err := pki.SelfSigned("edge-1", pki.Within(from, to))
	if err != nil {
		t.Fatal(err)
	}
	if certPEM, keyPEM, err = pair.PEM(); err != nil {
		t.Fatal(err)
	}
	return certPEM, keyPEM
}

// golden compares with a text file, or writes it when UPDATE_GOLDEN is set.
func golden(t *testing.T, path, got string) {
	t.Helper()
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

func testdata(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join("testdata", dir, "*.yaml"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no files: %v", err)
	}
	files := map[string][]byte{}
	for _, p := range paths {
		data, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		files[p] = data
	}
	return files
}

// TestRefused checks that each defect is found, named with file, line and key, and answered with what to do.
func TestRefused(t *testing.T) {
	for path, data := range testdata(t, "refused") {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".yaml"), func(t *testing.T) {
			cfg, err := Parse("csfproxy.yaml", data, machine(t))
			if err == nil {
				t.Fatal("accepted")
			}
			if cfg != nil {
				t.Error("a refused file gives a Config")
			}
			golden(t, strings.TrimSuffix(path, ".yaml")+".txt", err.Error()+"\n")
			problems, last := Problems(err), 0
			if len(problems) == 0 {
				t.Fatalf("no Problem in %T", err)
			}
			for _, p := range problems {
				if p.Line < max(last, 1) || p.Line > strings.Count(string(data), "\n")+1 {
					t.Errorf("line %d after %d: %v", p.Line, last, p)
				}
				last = p.Line
				if p.Fix == "" || p.Message == "" {
					t.Errorf("nothing to do about it: %v", p)
				}
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the error holds a secret: %v", err)
			}
		})
	}
}

// TestAccepted checks the standing findings of files that are valid.
func TestAccepted(t *testing.T) {
	for path, data := range testdata(t, "accepted") {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".yaml"), func(t *testing.T) {
			cfg, err := Parse("csfproxy.yaml", data, machine(t))
			if err != nil {
				t.Fatal(err)
			}
			var got strings.Builder
			for _, f := range cfg.Findings {
				fmt.Fprintf(&got, "%d: %s: %s\n", f.Line, f.Key, f.Message)
			}
			golden(t, strings.TrimSuffix(path, ".yaml")+".txt", got.String())
			if named := strings.Contains(path, "finding_"); named != (len(cfg.Findings) > 0) {
				t.Errorf("findings: %v", cfg.Findings)
			}
			if strings.Contains(got.String(), "hunter2") {
				t.Error("a finding holds a secret")
			}
		})
	}
}

// TestExample holds the example to its promise: it is accepted where nothing that it could name exists.
func TestExample(t *testing.T) {
	none := Options{
		Now:      func() time.Time { return today },
		Env:      func(string) (string, bool) { return "", false },
		ReadFile: func(p string) ([]byte, error) { return nil, &fs.PathError{Op: "open", Path: p, Err: fs.ErrNotExist} },
	}
	cfg, err := Parse("example.yaml", Example(), none)
	if err != nil {
		t.Fatal(err)
	}
	if len(cfg.Findings) > 0 {
		t.Errorf("findings: %v", cfg.Findings)
	}
	for _, k := range Keys() {
		if name := k.Path[strings.LastIndexByte(k.Path, '.')+1:]; !strings.Contains(string(Example()), name+":") {
			t.Errorf("the example does not show %s", k.Path)
		}
	}
}

// TestDefaults compares the minimal file with what types.go promises.
func TestDefaults(t *testing.T) {
	data, err := os.ReadFile("testdata/accepted/minimal.yaml")
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := Parse("/etc/csfproxy/csfproxy.yaml", data, machine(t))
	if err != nil {
		t.Fatal(err)
	}
	no := false
	want := Limits{Connections: 5000, PerSource: 200, StartupPending: 50, StartupTimeout: Duration(10 * time.Second), StartupBytes: 10000,
		MessageBytes: 64 << 20, StatementBytes: 16 << 20, IdleTimeout: Duration(30 * time.Minute), WriteTimeout: Duration(time.Minute)}
	if diff := cmp.Diff(want, cfg.Listeners[0].Limits); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(Failover{Manager: "none", Database: "postgres", Automatic: &no, Interval: Duration(200 * time.Millisecond), Failures: 3, MaxLag: 16 << 20}, cfg.Clusters[0].Failover); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(Audit{Statements: "all", Parameters: "redact", WhenUnavailable: "refuse", Durability: "batch", SpoolBytes: 1 << 30}, cfg.Audit); diff != "" {
		t.Error(diff)
	}
	for _, c := range []struct{ key, got, want string }{
		{"node.data_dir", cfg.Node.DataDir, "/var/lib/csfproxy"},
		{"listeners[].tls.mode", cfg.Listeners[0].TLS.Mode, TLSOff},
		{"listeners[].tls.min_version", cfg.Listeners[0].TLS.MinVersion, "1.2"},
		{"listeners[].tls.client_cert", cfg.Listeners[0].TLS.ClientCert, "none"},
		{"listeners[].cancel", cfg.Listeners[0].Cancel, "plaintext"},
		{"listeners[].proxy_protocol.mode", cfg.Listeners[0].Proxy.Mode, "off"},
		{"listeners[].proxy_protocol.timeout", cfg.Listeners[0].Proxy.Timeout.String(), "3s"},
		{"clusters[].tls.mode", cfg.Clusters[0].TLS.Mode, "disable"},
		{"clusters[].connect_timeout", cfg.Clusters[0].Connect.String(), "5s"},
		{"identities[].risk", cfg.Identities[0].Risk, "medium"},
		{"identities[].auth.methods", strings.Join(cfg.Identities[0].Auth.Methods, " "), "scram-sha-256"},
		{"identities[].auth.upstream", cfg.Identities[0].Auth.Upstream, "passthrough"},
		{"identities[].expires", cfg.Identities[0].Expires.Format(time.RFC3339Nano), "2027-01-31T23:59:59.999999999Z"},
		{"rules", strings.Join(cfg.Rules, " "), "builtin"},
		{"runbooks", strings.Join(cfg.Runbooks, " "), "builtin"},
		{"csf.mapping", cfg.CSF.Mapping, "builtin"},
		{"store.retention", cfg.Store.Retention.String(), "400d"},
		{"api.address", cfg.API.Address, "127.0.0.1:8432"},
		{"telemetry.prometheus", fmt.Sprint(cfg.Telemetry.Prometheus), "true"},
		{"selftest.every", cfg.SelfTest.Every.D().String(), "1h0m0s"},
		{"file", cfg.File, "/etc/csfproxy/csfproxy.yaml"},
	} {
		if c.got != c.want {
			t.Errorf("%s: %q, want %q", c.key, c.got, c.want)
		}
	}
	if len(cfg.Hash) != 64 {
		t.Errorf("hash %q", cfg.Hash)
	}
}

// TestResolved checks references, relative paths and the forms of networks.
func TestResolved(t *testing.T) {
	files := testdata(t, "accepted")
	cfg, err := Parse("csfproxy.yaml", files["testdata/accepted/references.yaml"], machine(t))
	if err != nil {
		t.Fatal(err)
	}
	if got := cfg.Store.URL; got.Ref != "file:store.url" || got.Value != "postgres://u:hunter2@db/events?sslmode=verify-full" {
		t.Errorf("store.url: %q %q", got.Ref, got.Value)
	}
	if got := cfg.Identities[0].Auth.Verifier; got.Ref != "env:CSFPROXY_VERIFIER" || got.Value != testVerifier {
		t.Errorf("verifier: %q", got.Ref)
	}
	printed := fmt.Sprintf("%v %+v %#v", cfg, cfg, cfg)
	if b, err := json.Marshal(cfg); err != nil || strings.Contains(string(b)+printed, "hunter2") {
		t.Errorf("printing the configuration shows a secret (%v)", err)
	}

	cfg, err = Parse("csfproxy.yaml", files["testdata/accepted/mapped_and_bare_networks.yaml"], machine(t))
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(cfg.Listeners[0].Allow); got != "[127.0.0.0/8 10.0.0.1/32 10.0.0.2/32 2001:db8::1/128]" {
		t.Errorf("allow: %s", got)
	}

	cfg, err = Parse("csfproxy.yaml", files["testdata/accepted/proxy_source_nested.yaml"], machine(t))
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(cfg.Listeners[0].Proxy.Sources[2].ClientNetworks); got != "[::ffff:10.0.0.0/104]" {
		t.Errorf("client_networks: %s", got)
	}

	dir := t.TempDir()
	certPEM, keyPEM := certificate(t, time.Now().Add(-time.Hour), time.Now().AddDate(1, 0, 0))
	for name, data := range map[string][]byte{"server.crt": certPEM, "server.key": keyPEM, "csfproxy.yaml": files["testdata/accepted/finding_optional_tls.yaml"]} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cfg, err = Load(filepath.Join(dir, "csfproxy.yaml"), Options{Now: func() time.Time { return time.Now() }})
	if err != nil {
		t.Fatal(err)
	}
	if got := cfg.Listeners[0].TLS.Cert; got != filepath.Join(dir, "server.crt") {
		t.Errorf("cert: %s", got)
	}
	_, err = Load(filepath.Join(dir, "nowhere.yaml"), Options{})
	if p := Problems(err); len(p) != 1 || !strings.Contains(p[0].Message, "cannot read the configuration") {
		t.Errorf("missing file: %v", err)
	}
}

// TestValues checks the forms of single values.
func TestValues(t *testing.T) {
	for in, want := range map[string]string{"10s": "10s", "400d": "400d", "1d12h": "36h0m0s", "0": "0s", "90m": "1h30m0s",
		"-1s": "", "5": "", "d": "", "1.5d": "", "106752d": "", "106751d23h59m": "", "999999999d": "", "1w": "", "": ""} {
		d, err := ParseDuration(in)
		if got := d.String(); (err != nil) != (want == "") || err == nil && got != want {
			t.Errorf("duration %q: %q, %v", in, got, err)
		}
	}
	for in, want := range map[string]string{"10000": "10000", "64KiB": "64KiB", "16 MiB": "16MiB", "1GiB": "1GiB", "2048GiB": "2048GiB", "12B": "12",
		"1KB": "", "-1": "", "1.5MiB": "", "MiB": "", "": "", "9223372036854775807KiB": ""} {
		z, err := ParseSize(in)
		if got := z.String(); (err != nil) != (want == "") || err == nil && got != want {
			t.Errorf("size %q: %q, %v", in, got, err)
		}
	}
	d, err := ParseDate("2027-06-30")
	if err != nil || d.Expired(time.Date(2027, 6, 30, 23, 59, 59, 0, time.UTC)) || !d.Expired(time.Date(2027, 7, 1, 0, 0, 0, 0, time.UTC)) {
		t.Errorf("a day does not count to its end: %v, %v", d, err)
	}
	if d, err = ParseDate("2027-06-30T18:00:00+02:00"); err != nil || d.Format(time.RFC3339) != "2027-06-30T16:00:00Z" {
		t.Errorf("instant: %v, %v", d, err)
	}
	for _, in := range []string{"fe80::1%eth0", "::ffff:10.0.0.0/90", "10.0.0.1/8", ""} {
		if p, err := ParsePrefix(in); err == nil {
			t.Errorf("network %q: %v", in, p)
		}
	}
}

// TestExceptionFields: what an exception may match is the same in the file and in the controls' own list, and days count
// from their begin to their end.
func TestExceptionFields(t *testing.T) {
	var fields []string
	typ := reflect.TypeFor[ExceptionMatch]()
	for i := range typ.NumField() {
		fields = append(fields, yamlName(typ.Field(i)))
	}
	if diff := cmp.Diff(csf.ExceptionFields(), fields); diff != "" {
		t.Error(diff)
	}
	date := func(s string) Date {
		d, err := ParseDate(s)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	x := Exception{ID: "E", Match: ExceptionMatch{Cluster: []string{"c"}, Drill: []string{"d"}}, Approved: date("2026-11-01"), Expires: date("2026-11-02")}.CSF()
	if got := x.Applies(); got != "cluster in ('c') and drill in ('d')" {
		t.Errorf("applies to %q", got)
	}
	for at, want := range map[string]bool{"2026-10-31T23:59:59Z": false, "2026-11-01T00:00:00Z": true, "2026-11-02T23:59:59Z": true, "2026-11-03T00:00:00Z": false} {
		if got := x.InForce(date(at).Time); got != want {
			t.Errorf("in force at %s: %v", at, got)
		}
	}
	x = Exception{Approved: date("2026-11-01T12:00:00Z"), Expires: date("2026-11-01T13:00:00Z")}.CSF()
	if x.InForce(date("2026-11-01T11:59:59Z").Time) || !x.InForce(date("2026-11-01T12:00:00Z").Time) || x.InForce(date("2026-11-01T13:00:00Z").Time) {
		t.Error("instants count as they are")
	}
}
