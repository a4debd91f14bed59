package tests

import (
	"fmt"
	"os"
	"regexp"
	"testing"

	"golang.org/x/sys/unix"
)

// stateOf is the letter of proc(5) for what a process does, 0 if it is gone.
func stateOf(pid int) byte {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if m := regexp.MustCompile(`(?m)^State:\t(.)`).FindSubmatch(status); err == nil && m != nil {
		return m[1][0]
	}
	return 0
}

// TestStopped: a process that is stopped stays so when it is saved. After restart
// it runs, as in usage.txt; or waits, threads and all, if that is asked for.
func TestStopped(t *testing.T) {
	for _, target := range [][2]string{{"memory", "private"}, {"threads", "waiting"}} {
		for _, w := range ways[2:] {
			for _, u := range users() {
				t.Run(fmt.Sprintf("%s/%s/%s", target[0], w.name, u.name), func(t *testing.T) {
					t.Parallel()
					testStopped(newEnv(t, u), t, target, w)
				})
			}
		}
	}
}

func testStopped(e *env, t *testing.T, target [2]string, w way) {
	args := []string{program(t, glibc, "scenarios", target[0]), target[1], "external", e.dir, "1"}
	if w.call {
		args = append([]string{e.crshim, "run"}, args...)
	}
	j := e.start(streams{}, args...)
	pid := e.announced(j, "ready", 1)
	e.signal(pid, unix.SIGSTOP)
	e.until("it is stopped", func() bool { return stateOf(pid) == 'T' })
	before := viewOf(e, pid)
	e.checkpoint(pid, e.path("img"), w)
	e.until("it is stopped as before", func() bool { return stateOf(pid) == 'T' })
	e.signal(pid, unix.SIGKILL)
	j.ends("signal: killed")

	e.write(e.nth("go", 1), "")
	if w.call {
		e.restart(e.path("img"), w).ends("exit status 0")
		e.passed()
		return
	}
	j = e.start(streams{}, e.crshim, "restart", "--stopped", e.path("img"))
	e.until("the restored process is stopped", func() bool {
		for _, p := range descendants(j.pid()) {
			if p.comm == before.Comm && stateOf(p.pid) == 'T' {
				pid = p.pid
				return true
			}
		}
		return false
	})
	if exists(e.path("result")) {
		t.Error("it ran before it was stopped")
	}
	e.signal(pid, unix.SIGCONT)
	j.ends("exit status 0")
	e.passed()
}
