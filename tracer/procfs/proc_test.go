package procfs

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestErrGone(t *testing.T) {
	err := fmt.Errorf("outer: %w", ErrGone)
	if !errors.Is(err, ErrGone) || !errors.Is(err, unix.ESRCH) || errors.Is(err, unix.ENOENT) {
		t.Error("ErrGone must match itself and ESRCH, and nothing else")
	}
	for _, pid := range []PID{0, -1, 1 << 30} {
		if p, err := Open(pid); !errors.Is(err, ErrGone) || p != nil {
			t.Errorf("Open(%d) = %v, %v", pid, p, err)
		}
	}
	if _, err := OpenThread(PID(os.Getpid()), 1<<30); !errors.Is(err, ErrGone) {
		t.Errorf("OpenThread: %v", err)
	}
}

// TestEveryReader reads a living process, a zombie and one that is gone.
func TestEveryReader(t *testing.T) {
	c := start(t, "wait")
	p := openProc(t, c.pid())
	if p.PID() != c.pid() {
		t.Errorf("PID = %d", p.PID())
	}
	needs := needsOfSelf()
	for name, read := range readers {
		if err := read(p); class(err) != "ok" && (class(err) != "denied" || !needs[name]) {
			t.Errorf("%s of a living process: %v", name, err)
		}
	}
	c.kill(t)
	zombie := map[string]string{}
	for name, read := range readers {
		zombie[name] = class(read(p))
	}
	for _, name := range []string{"Status", "Stat", "Comm", "Cmdline", "Maps", "Mappings", "Threads", "Children",
		"Timers", "Limits", "FDs"} {
		if zombie[name] != "ok" && !(zombie[name] == "denied" && os.Geteuid() != 0) {
			t.Errorf("%s of a zombie: %s", name, zombie[name])
		}
	}
	if !p.Alive() {
		t.Error("a zombie is not gone")
	}
	if st, err := p.Status(); err != nil || st.State != 'Z' || st.Has("VmRSS") {
		t.Errorf("zombie: %+v, %v", st, err)
	}
	if os.Geteuid() == 0 { // a zombie's owner may have become root
		maps, err1 := p.Maps()
		smaps, err2 := p.Mappings()
		fds, err3 := p.FDs()
		if err := errors.Join(err1, err2, err3); err != nil || len(maps)+len(smaps)+len(fds) != 0 {
			t.Errorf("a zombie has %d, %d mappings, %d descriptors, %v", len(maps), len(smaps), len(fds), err)
		}
	}
	c.end(t)
	for name, read := range readers {
		if err := read(p); !errors.Is(err, ErrGone) {
			t.Errorf("%s of a reaped process: %v", name, err)
		}
	}
	if p.Alive() {
		t.Error("a reaped process is alive")
	}
}

// needsOfSelf are readers that want more than being of the same user.
func needsOfSelf() map[string]bool {
	return map[string]bool{"Timerslack": os.Geteuid() != 0}
}

func TestCloseTwice(t *testing.T) {
	p, err := Open(PID(os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := p.Stat(); !errors.Is(err, unix.EBADF) || errors.Is(err, ErrGone) {
		t.Errorf("Stat after Close: %v", err)
	}
}

func TestMissingFileIsNotGone(t *testing.T) {
	p := self(t)
	_, err1 := p.ReadFile("no-such-file")
	_, err2 := p.Link("no-such-link")
	_, err3 := p.NS("no-such-namespace")
	for _, err := range []error{err1, err2, err3} {
		if !errors.Is(err, unix.ENOENT) || errors.Is(err, ErrGone) {
			t.Errorf("got %v, want ENOENT", err)
		}
	}
}

func TestRecycledPID(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs: CAP_SYS_ADMIN (pid and mount namespace)")
	}
	c := start(t, "recycle", func(c *exec.Cmd) {
		c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS}
	})
	if c.line != "gone ok" {
		t.Errorf("old and new process: %q", c.line)
	}
}

func TestStranger(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs: CAP_SETUID")
	}
	target := start(t, "wait")
	c := start(t, "reader", asStranger, func(c *exec.Cmd) {
		c.Env = append(c.Env, fmt.Sprintf("%s=%d", targetVar, target.pid()))
	})
	var got map[string]string
	if err := json.Unmarshal([]byte(c.line), &got); err != nil {
		t.Fatal(err)
	}
	denied := []string{"Environ", "Auxv", "Maps", "Mappings", "Pagemap", "FDs", "FD", "Syscall", "Personality",
		"Timerslack", "NS", "Link", "StatLink"}
	either := []string{"Timers"} // refused by newer kernels only
	for name, result := range got {
		want := "ok"
		if slices.Contains(denied, name) {
			want = "denied"
		}
		if result != want && !slices.Contains(either, name) {
			t.Errorf("%s: %s, want %s", name, result, want)
		}
	}
}

// TestEveryProcess reads all there is on this machine: no file may look
// different from what the parsers expect.
func TestEveryProcess(t *testing.T) {
	fd, err := unix.Open(root, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	pids, err := listNumbers(fd)
	if err != nil {
		t.Fatal(err)
	}
	read := 0
	for _, pid := range pids {
		p, err := Open(PID(pid))
		if errors.Is(err, ErrGone) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		for name, reader := range readers {
			err := reader(p)
			if err == nil {
				read++
			} else if errors.Is(err, ErrFormat) {
				t.Errorf("%s of process %d: %v", name, pid, err)
			}
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}
	if read < len(readers) {
		t.Errorf("only %d files could be read", read)
	}
}
