package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// clockTicks is USER_HZ, the unit of the times in /proc (proc(5)); it is 100 on every Linux platform that Go supports.
const clockTicks = 100

// cpuOf gives user and system time of a process, all of its threads, and of the children that it has waited for.
func cpuOf(pid int) (own, reaped time.Duration) {
	f := statOf(strconv.Itoa(pid))
	if len(f) < 15 {
		return 0, 0
	}
	return ticks(f[11], f[12]), ticks(f[13], f[14])
}

// statOf gives the fields of /proc/PID/stat from the third, the state, on.
func statOf(pid string) []string {
	b, err := os.ReadFile(filepath.Join("/proc", pid, "stat"))
	if err != nil {
		return nil
	}
	s := string(b)
	return strings.Fields(s[strings.LastIndexByte(s, ')')+1:])
}

func ticks(fields ...string) time.Duration {
	sum := 0
	for _, f := range fields {
		n, _ := strconv.Atoi(f)
		sum += n
	}
	return time.Duration(sum) * time.Second / clockTicks
}

// cpuBelow gives the time of a process and all that descends from it. except and what descends from it is left out.
func cpuBelow(pid, except int) time.Duration {
	children := map[int][]int{}
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, d := range dirs {
		name := filepath.Base(d)
		if f := statOf(name); len(f) > 1 {
			parent, _ := strconv.Atoi(f[1])
			n, _ := strconv.Atoi(name)
			children[parent] = append(children[parent], n)
		}
	}
	var sum time.Duration
	for todo := []int{pid}; len(todo) > 0; {
		p := todo[0]
		todo = todo[1:]
		if p == except {
			continue
		}
		own, reaped := cpuOf(p)
		sum += own + reaped
		todo = append(todo, children[p]...)
	}
	return sum
}

// rssOf gives a process's resident memory in KiB.
func rssOf(pid int) int {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "Rss:"); ok {
			n, _ := strconv.Atoi(strings.Fields(rest)[0])
			return n
		}
	}
	return 0
}

// idleTime gives the time that all processors together have not worked, with what a hypervisor took away. The kernel
// keeps it exactly where it only samples the rest.
func idleTime() time.Duration {
	b, _ := os.ReadFile("/proc/stat")
	line, _, _ := strings.Cut(string(b), "\n")
	f := strings.Fields(line)
	if len(f) < 9 {
		return 0
	}
	return ticks(f[4], f[5], f[8])
}

// memory gives the machine's memory in GiB, rounded.
func memory() int {
	b, _ := os.ReadFile("/proc/meminfo")
	line, _, _ := strings.Cut(string(b), "\n")
	if f := strings.Fields(line); len(f) > 1 {
		n, _ := strconv.Atoi(f[1])
		return (n + 1<<19) >> 20
	}
	return 0
}
