package config

import (
	"os"
	"path/filepath"
	"testing"
)

func TestReach(t *testing.T) {
	dir := t.TempDir()
	for text, want := range map[string]Reach{
		"node: {name: a}\n": {Address: "127.0.0.1:8432", DataDir: "/var/lib/csfproxy"},
		// Neither the typing error nor the secret without its variable says anything about where the node is.
		"node: {name: a, data_dir: data}\nidentitees: []\nstore: {url: \"env:NO_SUCH_VARIABLE\"}\napi: {address: \"0.0.0.0:9\", tls: {cert: api.crt, key: /k}}\n": {
			Address: "0.0.0.0:9", Cert: filepath.Join(dir, "api.crt"), DataDir: filepath.Join(dir, "data")},
		"node: {data_dir: /d}\napi: {address: \"off\"}\n": {Address: "off", DataDir: "/d"},
	} {
		file := filepath.Join(dir, "csfproxy.yaml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := LoadReach(file); err != nil || got != want {
			t.Errorf("%q: %+v %v, want %+v", text, got, err, want)
		}
	}
	for name, text := range map[string]string{"broken": "node: [", "another shape": "node: [a]\n"} {
		file := filepath.Join(dir, "bad.yaml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadReach(file); err == nil {
			t.Errorf("%s was read", name)
		}
	}
}
