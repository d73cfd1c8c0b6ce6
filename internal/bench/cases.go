package main

import (
	"fmt"
	"slices"
	"strings"
)

type kind uint8

const (
	transactions kind = iota // pgbench -S
	connections              // pgbench -S -C
	copyOut
	copyIn
	idle
)

// benchCase is one thing that is measured at every target.
type benchCase struct {
	name    string
	kind    kind
	mode    string // pgbench -M
	clients int
	tls     bool // the client's leg
}

// cases lists what a run measures. Idle sessions come last: they need servers of their own.
func cases(p plan) []benchCase {
	var all []benchCase
	for _, mode := range []string{"prepared", "simple"} {
		for _, n := range []int{1, 16, 64, 256} {
			all = append(all, benchCase{name: fmt.Sprintf("%s, %d clients", mode, n), mode: mode, clients: n})
		}
	}
	all = append(all,
		benchCase{name: "prepared, TLS, 1 clients", mode: "prepared", clients: 1, tls: true},
		benchCase{name: "prepared, TLS, 16 clients", mode: "prepared", clients: 16, tls: true},
		benchCase{name: "prepared, TLS, 64 clients", mode: "prepared", clients: 64, tls: true},
		benchCase{name: "simple, TLS, 16 clients", mode: "simple", clients: 16, tls: true},
		benchCase{name: "connections, plain", kind: connections, mode: "simple", clients: 8},
		benchCase{name: "connections, TLS", kind: connections, mode: "simple", clients: 8, tls: true},
		benchCase{name: "COPY out, 1 KiB rows", kind: copyOut, clients: 1, mode: "1024"},
		benchCase{name: "COPY out, 100 B rows", kind: copyOut, clients: 1, mode: "100"},
		benchCase{name: "COPY in, 1 KiB rows", kind: copyIn, clients: 1, mode: "1024"},
	)
	for _, n := range p.sessions {
		all = append(all, benchCase{name: fmt.Sprintf("%d idle sessions, plain", n), kind: idle, clients: n},
			benchCase{name: fmt.Sprintf("%d idle sessions, TLS", n), kind: idle, clients: n, tls: true})
	}
	if p.cases == "" {
		return all
	}
	return slices.DeleteFunc(all, func(c benchCase) bool {
		return !slices.ContainsFunc(strings.Split(p.cases, "|"), func(w string) bool { return strings.Contains(c.name, w) })
	})
}
