package shim

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/tracer/procfs"
)

// ticks is the processor time that the process and its descendants have used, with all that they have waited for.
func ticks(t *testing.T, pid int) (sum uint64, pids []int) {
	t.Helper()
	p, err := procfs.Open(procfs.PID(pid))
	if err != nil {
		return 0, nil // it has ended meanwhile
	}
	defer p.Close()
	stat, err := p.Stat()
	if err != nil {
		return 0, nil
	}
	children, err := p.Children()
	if err != nil {
		return 0, nil
	}
	sum, pids = stat.UTime+stat.STime, []int{pid}
	for _, child := range children {
		more, below := ticks(t, int(child))
		sum, pids = sum+more, append(pids, below...)
	}
	return sum, pids
}

// standsStill fails the test if the tree of a process runs while we use ten ticks ourselves.
func standsStill(t *testing.T, pid int) {
	t.Helper()
	before, pids := ticks(t, pid)
	own := func() time.Duration {
		var used unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_SELF, &used); err != nil {
			t.Fatal(err)
		}
		return time.Duration(used.Utime.Nano() + used.Stime.Nano())
	}
	for from := own(); own() < from+100*time.Millisecond; {
	}
	after, still := ticks(t, pid)
	if before != after || len(pids) != len(still) {
		t.Errorf("%d processes with %d ticks have become %d with %d", len(pids), before, len(still), after)
	}
}

// runs waits until the tree of a process has used processor time.
func runs(t *testing.T, pid int) {
	t.Helper()
	before, _ := ticks(t, pid)
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if now, _ := ticks(t, pid); now > before {
			return
		}
	}
	t.Error("it does not run")
}

// TestFreezeContainer freezes a container that forks as fast as it can, by name.
func TestFreezeContainer(t *testing.T) {
	eachContainerUser(t, func(t *testing.T, u *containerUser) {
		// One of its processes was stopped before, and stays so.
		_, entry := u.startNamed("busy", "sh", "-c", `sleep 1000 & kill -STOP $!; while :; do :; done & echo ready; while :; do (true); done`)
		_, pids := ticks(t, entry.Command)
		stopped := 0
		for _, pid := range pids {
			if isStopped(procfs.PID(pid)) {
				stopped = pid
			}
		}
		if stopped == 0 {
			t.Fatal("nothing is stopped")
		}
		for range 3 {
			u.verb("freeze", "busy")
			standsStill(t, entry.PID)
			state := u.listed()[0].State
			if state != "frozen" && (u.uid == 0 || state != "stopped") {
				t.Errorf("it is %s", state)
			}
			u.verb("freeze", "busy") // once more changes nothing
			u.verb("thaw", "busy")
			runs(t, entry.Command)
			if !isStopped(procfs.PID(stopped)) {
				t.Error("what was stopped before goes on")
			}
			if state := u.listed()[0].State; state != "running" {
				t.Errorf("it is %s", state)
			}
			u.noGroups(entry.PID)
		}
		// It can be ended while it is frozen.
		u.verb("freeze", "busy")
		kill(t, entry.PID, unix.SIGKILL)
		awaitEnd(t, entry.PID)
		for _, pid := range pids {
			awaitEnd(t, pid)
		}
	})
}

// verb runs crshim VERB, which must succeed and say nothing.
func (u *containerUser) verb(args ...string) {
	u.t.Helper()
	if out, err := u.crshim(args...).CombinedOutput(); err != nil || len(out) > 0 {
		u.t.Fatalf("crshim %v: %v: %s", args, err, out)
	}
}

// noGroups looks for control groups that freeze has made and thaw not removed.
func (u *containerUser) noGroups(pid int) {
	u.t.Helper()
	for _, pattern := range []string{"/sys/fs/cgroup/crshim-frozen-*", "/sys/fs/cgroup/*/crshim-frozen-*"} {
		groups, err := filepath.Glob(pattern)
		if err != nil {
			u.t.Fatal(err)
		}
		for _, group := range groups {
			if strings.HasSuffix(group, "-"+strconv.Itoa(pid)) {
				u.t.Errorf("%s is left", group)
			}
		}
	}
}

// TestFreezeProcess freezes a process that is in no container, with its child, by its number.
func TestFreezeProcess(t *testing.T) {
	eachContainerUser(t, func(t *testing.T, u *containerUser) {
		cmd := exec.Command("sh", "-c", "while :; do :; done & wait")
		cmd.SysProcAttr = u.crshim().SysProcAttr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		pid := cmd.Process.Pid
		t.Cleanup(func() {
			_, pids := ticks(t, pid)
			for _, pid := range pids {
				_ = unix.Kill(pid, unix.SIGKILL)
			}
			_ = cmd.Wait()
		})
		for len(childrenOf(t, pid)) == 0 {
		}
		runs(t, pid)
		u.verb("freeze", strconv.Itoa(pid))
		standsStill(t, pid)
		u.verb("thaw", strconv.Itoa(pid))
		runs(t, pid)
		u.noGroups(pid)
		for _, test := range []struct{ arg, says string }{
			{"0", "is not a process id"}, {"12x", "is not a process id"}, {"nobody", "CR3110"}, {"/sys/fs", "CR3112"},
			{strconv.Itoa(os.Getpid()), "CR3112"}, // crshim would freeze itself
		} {
			out, err := u.crshim("freeze", test.arg).CombinedOutput()
			if err == nil || !strings.Contains(string(out), test.says) {
				t.Errorf("freeze %s: %v: %s; want %s", test.arg, err, out, test.says)
			}
		}
	})
}

func childrenOf(t *testing.T, pid int) []procfs.PID {
	t.Helper()
	p, err := procfs.Open(procfs.PID(pid))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	children, err := p.Children()
	if err != nil {
		t.Fatal(err)
	}
	return children
}

// TestFreezeGroup freezes control groups of both versions by their directories.
func TestFreezeGroup(t *testing.T) {
	for _, file := range []string{"cgroup.freeze", "freezer.state"} {
		t.Run(file, func(t *testing.T) {
			dir := ""
			for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/freezer"} {
				made, err := os.MkdirTemp(root, "crshim-test-")
				if err != nil {
					continue
				}
				t.Cleanup(func() {
					if err := unix.Rmdir(made); err != nil {
						t.Error(err)
					}
				})
				if _, err := os.Stat(filepath.Join(made, file)); err == nil {
					dir = made
				}
			}
			if dir == "" {
				t.Skip("needs: the right to make control groups with " + file)
			}
			cmd := exec.Command("sh", "-c", "while :; do :; done")
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			pid := cmd.Process.Pid
			if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0); err != nil {
				t.Fatal(err)
			}
			u := &containerUser{t, os.Geteuid(), t.TempDir()}
			u.verb("freeze", dir)
			standsStill(t, pid)
			u.verb("thaw", dir)
			runs(t, pid)
			// The group that it is in alone serves.
			u.verb("freeze", strconv.Itoa(pid))
			standsStill(t, pid)
			u.verb("thaw", strconv.Itoa(pid))
			runs(t, pid)
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait()
		})
	}
}
