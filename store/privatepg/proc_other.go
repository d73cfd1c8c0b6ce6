//go:build unix && !linux

package privatepg

import (
	"bufio"
	"bytes"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

// serverAttributes puts a server into a process group of its own, so that Ctrl-C in a terminal reaches only us.
func serverAttributes(c *syscall.Credential) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Credential: c}
}

// commandLine gives the arguments of a running process, "" if there is no such process.
func commandLine(pid int) string {
	out, err := exec.Command("ps", "-ww", "-o", "command=", "-p", strconv.Itoa(pid)).Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}

// childrenOf lists the direct children of a process.
func childrenOf(parent int) ([]int, error) {
	out, err := exec.Command("ps", "-A", "-o", "pid=,ppid=").Output()
	if err != nil {
		return nil, err
	}
	var pids []int
	for sc := bufio.NewScanner(bytes.NewReader(out)); sc.Scan(); {
		var pid, ppid int
		if _, err := fmt.Sscan(sc.Text(), &pid, &ppid); err == nil && ppid == parent {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}
