package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of processor time in /proc/PID/stat: USER_HZ, which is 100 on every architecture of Linux that Go knows.
const tick = time.Second / 100

// serverCPU gives the processor time of the PostgreSQL server whose data lies under dir, ended sessions included.
func serverCPU(dir string) (total time.Duration) {
	procs, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return 0
	}
	type process struct {
		pid, parent string
		own, ended  time.Duration
	}
	var list []process
	var postmaster string
	for _, p := range procs {
		raw, err := os.ReadFile(p)
		if err != nil {
			continue
		}
		pid := filepath.Base(filepath.Dir(p))
		f := strings.Fields(string(raw[bytes.LastIndexByte(raw, ')')+1:])) // from field 3 of proc(5) on
		ticks := func(i int) time.Duration {
			n, err := strconv.Atoi(f[i-3])
			if err != nil {
				return 0
			}
			return time.Duration(n) * tick
		}
		list = append(list, process{pid, f[1], ticks(14) + ticks(15), ticks(16) + ticks(17)})
		if args, err := os.ReadFile("/proc/" + pid + "/cmdline"); err == nil && bytes.Contains(args, []byte("postgres")) && bytes.Contains(args, []byte(dir)) {
			postmaster = pid
		}
	}
	for _, p := range list {
		switch postmaster {
		case p.pid:
			total += p.own + p.ended
		case p.parent:
			total += p.own
		}
	}
	return total
}
