package tests

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// socketFiles are the inodes of the socket files below the test's directory,
// and whatever a restart has left there.
func (e *env) socketFiles() map[string]uint64 {
	e.Helper()
	found := make(map[string]uint64)
	for _, dir := range []string{e.dir, e.path("sub/deep")} {
		entries, err := os.ReadDir(dir)
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			e.Fatal(err)
		}
		for _, entry := range entries {
			name := filepath.Join(dir, entry.Name())
			var st unix.Stat_t
			if err := unix.Lstat(name, &st); err != nil {
				e.Fatal(err)
			}
			if st.Mode&unix.S_IFMT == unix.S_IFSOCK || strings.HasPrefix(entry.Name(), ".") {
				found[name] = st.Ino
			}
		}
	}
	return found
}

// savedUnix starts a scenario of unix.c and saves it into img.
func (e *env) savedUnix(t *testing.T, name string) *job {
	e.Helper()
	j := e.start(streams{}, program(t, glibc, "scenarios", "unix"), name, "external", e.dir, "1")
	pid := e.announced(j, "ready", 1)
	e.start(streams{}, e.crshim, "checkpoint", strconv.Itoa(pid), "-o", "img").ends("exit status 0")
	return j
}

// TestUnixNames: a restart that fails, however it does, leaves the socket files
// as they were, and one that succeeds takes the place of those that nobody has.
func TestUnixNames(t *testing.T) {
	scenarios := map[string]string{"listen": "socket", "relative": "sub/deep/socket"}
	eachUser(t, func(t *testing.T, u user) {
		for scenario, file := range scenarios {
			t.Run(scenario, func(t *testing.T) {
				e := newEnv(t, u)
				original := e.savedUnix(t, scenario)
				before := e.socketFiles()
				if len(before) != 1 {
					t.Fatalf("socket files %v", before)
				}
				unchanged := func(what string) {
					t.Helper()
					if now := e.socketFiles(); !maps.Equal(now, before) {
						t.Fatalf("%s: socket files %v, were %v", what, now, before)
					}
				}
				fails := func(code, image string) {
					t.Helper()
					j := e.start(streams{}, e.crshim, "restart", image)
					j.ends("exit status 125")
					if !strings.Contains(j.output(), code) {
						t.Errorf("%s, want %s", j.output(), code)
					}
					unchanged(code)
				}
				fails("CR2110", "img") // the original has it
				e.signal(original.pid(), unix.SIGKILL)
				original.ends("signal: killed")

				// The end of the image is looked at when all is staged.
				image := e.read(e.path("img"))
				spoilt := []byte(image)
				spoilt[len(spoilt)-20] ^= 1
				e.write(e.path("img.spoilt"), string(spoilt))
				fails("CR20", "img.spoilt")
				e.write(e.path("img.short"), image[:len(image)-30])
				fails("CR20", "img.short")

				s, err := ourSamples()
				if err != nil {
					t.Fatal(err)
				}
				in, err := os.Open(e.path("img"))
				if err != nil {
					t.Fatal(err)
				}
				defer in.Close()
				j := e.dieAfter("stage", streams{In: in}, s.path("rstr"))
				if end := j.end(); end == "exit status 0" {
					t.Errorf("restart without a supervisor: %s", end)
				}
				unchanged("killed after the stage")

				// Something else has taken the name.
				stale := e.path(file) + ".stale"
				if err := os.Rename(e.path(file), stale); err != nil {
					t.Fatal(err)
				}
				e.write(e.path(file), "not a socket")
				j = e.start(streams{}, e.crshim, "restart", "img")
				j.ends("exit status 125")
				if got := e.read(e.path(file)); !strings.Contains(j.output(), "CR2110") || got != "not a socket" {
					t.Errorf("%s, want CR2110; the file has %q", j.output(), got)
				}
				if err := os.Rename(stale, e.path(file)); err != nil {
					t.Fatal(err)
				}

				j = e.start(streams{}, e.crshim, "restart", "img")
				e.write(e.nth("go", 1), "")
				j.ends("exit status 0")
				e.passed()
				now := e.socketFiles()
				if len(now) != 1 || now[e.path(file)] == 0 || now[e.path(file)] == before[e.path(file)] {
					t.Errorf("socket files %v, were %v", now, before)
				}
			})
		}
	})
}

// TestUnixOutside: who has the other end is named, and on request something
// else takes its place.
func TestUnixOutside(t *testing.T) {
	eachUser(t, func(t *testing.T, u user) {
		e := newEnv(t, u)
		ours, theirs := socketPair(t)
		defer ours.Close()
		talk := program(t, glibc, "callers", "talk")
		in, keep, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer keep.Close()
		p := e.start(streams{In: in, Out: theirs}, "sh", "-c", "exec "+talk+" pid 7>&1 >log.program")
		for _, f := range []*os.File{in, theirs} {
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
		}
		e.until("it listens", func() bool { return exists(e.path("pid")) && sleeping(p.pid()) })
		save := func(args ...string) *job {
			return e.start(streams{}, append([]string{e.crshim, "checkpoint", strconv.Itoa(p.pid()), "-o", "img"}, args...)...)
		}
		j := save()
		j.ends("exit status 1")
		want := fmt.Sprintf("fd 7 of pid %d", p.pid())
		// An ordinary user does not see into the test.
		if text := j.output(); strings.Count(text, "CR1231") != 1 || !strings.Contains(text, want) || u.id == os.Getuid() && !strings.Contains(text, fmt.Sprintf(", pid %d", os.Getpid())) {
			t.Errorf("refused with %q, want CR1231 for %s", text, want)
		}
		save("--external", "--kill").ends("exit status 0")
		p.ends("signal: killed")
		j = e.start(streams{}, e.crshim, "restart", "img")
		j.ends("exit status 125")
		if !strings.Contains(j.output(), "CR2125") {
			t.Errorf("refused with %q, want CR2125", j.output())
		}
		e.start(streams{}, e.crshim, "restart", "--fd", "7=null", "img").ends("exit status 0") // its input ends
	})
}

// TestUnixNamespace: the kernel tells about peers in the network namespace of
// the process alone.
func TestUnixNamespace(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs: root")
	}
	if out, err := exec.Command("unshare", "-n", "true").CombinedOutput(); err != nil {
		t.Skipf("needs: unshare -n: %s", bytes.TrimSpace(out))
	}
	e := newEnv(t, users()[0])
	j := e.start(streams{}, "unshare", "-n", program(t, glibc, "scenarios", "unix"), "rights", "external", e.dir, "1")
	pid := e.announced(j, "ready", 1)
	e.start(streams{}, e.crshim, "checkpoint", strconv.Itoa(pid), "--kill", "-o", "img").ends("exit status 0")
	j.ends("signal: killed")
	j = e.start(streams{}, e.crshim, "restart", "img")
	e.write(e.nth("go", 1), "")
	j.ends("exit status 0")
	e.passed()
}
