package main

import (
	"os/exec"
	"sync"
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
