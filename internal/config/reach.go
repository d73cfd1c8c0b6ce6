package config

import (
	"os"
	"path/filepath"
)

// Reach is what a command on the node's own machine needs to call the node.
type Reach struct {
	Address string // of the API; "off" when there is none
	Cert    string // PEM file of the API's certificate, "" without TLS
	DataDir string
}

// LoadReach reads only how the node is called, and checks nothing else: a command must reach a running node also while its
// file is being edited, and without the environment that holds the node's secrets.
func LoadReach(path string) (Reach, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return Reach{}, Problem{File: path, Line: 1, Message: "cannot read the configuration: " + reason(err), Fix: "name it with --config; csfproxy config example prints one to start from"}
	}
	root, err := document(path, data)
	if err != nil {
		return Reach{}, err
	}
	var file struct {
		Node struct {
			DataDir string `yaml:"data_dir"`
		} `yaml:"node"`
		API API `yaml:"api"`
	}
	if err := root.Decode(&file); err != nil {
		return Reach{}, Problem{File: path, Line: 1, Message: "node and api cannot be read: " + err.Error(), Fix: "see csfproxy config check"}
	}
	usual := map[string]string{}
	for _, k := range Keys() {
		usual[k.Path] = k.Default
	}
	r := Reach{Address: file.API.Address, Cert: file.API.TLS.Cert, DataDir: file.Node.DataDir}
	if r.Address == "" {
		r.Address = usual["api.address"]
	}
	if r.DataDir == "" {
		r.DataDir = usual["node.data_dir"]
	}
	for _, p := range []*string{&r.Cert, &r.DataDir} {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(filepath.Dir(path), *p)
		}
	}
	return r, nil
}
