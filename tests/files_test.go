package tests

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// locked starts a program of scenarios/locks.c, saves it, and leaves it running.
func locked(e *env, t *testing.T, name string) *job {
	j := e.start(streams{}, program(t, glibc, "scenarios", "locks"), name, "external", e.dir, "1")
	pid := e.announced(j, "ready", 1)
	e.start(streams{}, e.crshim, "checkpoint", strconv.Itoa(pid), "-o", "img").ends("exit status 0")
	return j
}

// TestLockTaken: a lock that somebody else holds makes a restart fail, which
// changes nothing about it and leaves none behind.
func TestLockTaken(t *testing.T) {
	for _, name := range []string{"flock", "posix", "ofd"} {
		t.Run(name, func(t *testing.T) {
			eachUser(t, func(t *testing.T, u user) {
				e := newEnv(t, u)
				j := locked(e, t, name)
				before := locksOn(t, e.path("locked"))
				failed := e.start(streams{}, e.crshim, "restart", "img")
				failed.ends("exit status 125")
				if text := failed.output(); !strings.Contains(text, "CR2121") {
					t.Errorf("restart failed with %q, want CR2121", text)
				}
				if after := locksOn(t, e.path("locked")); before == "" || before != after {
					t.Errorf("locks before %q, after %q", before, after)
				}
				e.write(e.nth("go", 1), "")
				j.ends("exit status 0")
				e.passed()
				if after := locksOn(t, e.path("locked")); after != "" {
					t.Errorf("locks of nobody: %q", after)
				}
			})
		})
	}
}

// locksOn returns the lines of /proc/locks about a file, without their numbers.
func locksOn(t *testing.T, path string) string {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	all, err := os.ReadFile("/proc/locks")
	if err != nil {
		t.Fatal(err)
	}
	var found strings.Builder
	for line := range strings.Lines(string(all)) {
		if strings.Contains(line, ":"+strconv.FormatUint(st.Ino, 10)+" ") {
			_, lock, _ := strings.Cut(line, ": ")
			found.WriteString(lock)
		}
	}
	return found.String()
}

// TestLockOfCaller: a caller does not lose its own locks in a restart that
// fails.
func TestLockOfCaller(t *testing.T) {
	eachUser(t, func(t *testing.T, u user) {
		e := newEnv(t, u)
		j := locked(e, t, "posix")
		e.write(e.nth("go", 1), "")
		j.ends("exit status 0")
		j = e.start(streams{}, e.crshim, "run", program(t, glibc, "callers", "locked"), "locked", "img")
		j.ends("exit status 0")
		if got, want := j.output(), strconv.Itoa(int(unix.EBUSY))+" held\n"; !strings.Contains(got, want) {
			t.Errorf("restart in a caller with locks: %q, want %q", got, want)
		}
	})
}
