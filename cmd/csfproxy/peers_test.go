package main

import (
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/csfproxy/csfproxy/internal/pki"
)

// process is a program that a script started.
type process struct {
	cmd   *exec.Cmd
	ended chan error
}

// processes are those of all scripts, by the script's directory: scripts run at the same time.
type processes struct {
	mu  sync.Mutex
	all map[string]*process
}

var running = &processes{all: map[string]*process{}}

func (p *processes) set(dir string, v *process) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all[dir] = v
}

func (p *processes) get(dir string) *process {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.all[dir]
}

func (p *processes) drop(dir string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.all, dir)
}

// writeCertificate makes a certificate for the loopback address that is its own authority.
func writeCertificate(t *testing.T, dir string) (cert, key string) {
	t.Helper()
	cert, key = filepath.Join(dir, "edge.crt"), filepath.Join(dir, "edge.key")
	pair, err := pki.SelfSigned("edge-1", pki.Lasting(90*24*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if err := pair.Write(cert, key); err != nil {
		t.Fatal(err)
	}
	return cert, key
}
