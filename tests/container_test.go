package tests

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// needsContainers skips where the user cannot have one.
func needsContainers(t testing.TB, u user) {
	t.Helper()
	args := []string{"unshare", "--user", "--pid", "--fork", "true"}
	if u.id == 0 {
		args = []string{"unshare", "--pid", "--mount", "--fork", "true"}
	}
	e := newEnv(t, u)
	if j := e.start(streams{}, args...); j.end() != "exit status 0" {
		t.Skipf("needs: namespaces (%v: %s)", args, strings.TrimSpace(j.output()))
	}
}

// TestContainerUsage walks through the documentation of 2009 inside of a
// container, whose pids the calls are about.
func TestContainerUsage(t *testing.T) {
	for name, walk := range map[string]func(*testing.T, *usage){"external": walkExternal, "self": walkSelf} {
		t.Run(name, func(t *testing.T) {
			forEach(t, func(t *testing.T, r *usage) {
				needsContainers(t, r.user)
				r.in = []string{"--container", "--net", "loopback"}
				if r.samples.original {
					r.in = []string{"--container", "--user", "keep"}
				}
				walk(t, r)
			})
		})
	}
}

// inContainer starts a container and returns it with the pid of its command.
func (e *env) inContainer(s streams, args ...string) *job {
	e.Helper()
	return e.start(s, append([]string{"env", "XDG_RUNTIME_DIR=" + e.dir, e.crshim, "run", "--container"}, args...)...)
}

// verb runs a verb that finds the containers of this test.
func (e *env) verb(args ...string) *job {
	e.Helper()
	return e.start(streams{}, append([]string{"env", "XDG_RUNTIME_DIR=" + e.dir, e.crshim}, args...)...)
}

// TestContainerFromOutside saves the first process of a container, which is
// all there is in it, by name, and restarts it as a container; and a container with an
// init. Another process of a container is not saved without the rest.
func TestContainerFromOutside(t *testing.T) {
	eachUser(t, func(t *testing.T, u user) {
		needsContainers(t, u)
		e := newEnv(t, u)
		j := e.inContainer(streams{}, "--name", "alone", "--init", "none", mustSamples(t).path("test"), "out", "50", "40")
		counted := func(line string) func() bool {
			return func() bool {
				text, err := os.ReadFile(e.path("out"))
				return err == nil && strings.Contains(string(text), "\n"+line)
			}
		}
		e.until("it counts", counted("count 4 "))
		e.verb("check", "alone").ends("exit status 0")
		e.verb("checkpoint", "--kill", "alone", "-o", "img").ends("exit status 0")
		j.ends("signal: killed")
		if counted("count 39 ")() {
			t.Fatal("it had counted to the end before it was saved")
		}
		e.verb("restart", "img").ends("exit status 0")
		if !counted("count 39 ")() || !counted("world, hello ")() {
			t.Errorf("it has not counted to the end: %s", e.read(e.path("out")))
		}

		j = e.inContainer(streams{}, "--name", "two", "sleep", "1000")
		pid := 0
		e.until("the container is there", func() bool {
			for _, p := range descendants(j.pid()) {
				if p.comm == "sleep" && sleeping(p.pid) {
					pid = p.pid
				}
			}
			return pid > 0
		})
		// The first process stands for the whole, one of the others for nothing.
		e.verb("checkpoint", "two", "-o", "img2").ends("exit status 0")
		e.verb("verify", "img2").ends("exit status 0")
		k := e.verb("checkpoint", strconv.Itoa(pid), "-o", "img3")
		k.ends("exit status 1")
		if text := k.output(); !strings.Contains(text, "CR1009") {
			t.Errorf("checkpoint of a process of a container: %s, want CR1009", text)
		}
		e.signal(pid, unix.SIGTERM)
		j.ends("signal: terminated")
	})
}

// TestContainerRootfs has a static program look around in a root of its own, and save itself and come back in it.
func TestContainerRootfs(t *testing.T) {
	eachUser(t, func(t *testing.T, u user) {
		needsContainers(t, u)
		if m := libcs[1].missing(); m != "" {
			t.Skip("needs:", m)
		}
		e := newEnv(t, u)
		root := e.path("root")
		e.mkdir(root)
		for _, dir := range []string{"proc", "dev", "bin", "mnt", "ro", "etc"} {
			e.mkdir(filepath.Join(root, dir))
		}
		e.mkdir(e.path("data"))
		e.write(e.path("data/file"), "of the host\n")
		e.write(filepath.Join(root, "etc/here"), "")
		// On the host there is something at the end of it, too.
		if err := os.Symlink("/etc/here", filepath.Join(root, "link")); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(program(t, libcs[1], "callers", "rooted"))
		if err == nil {
			err = os.WriteFile(filepath.Join(root, "bin/rooted"), text, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
		run := func(what, said string) {
			t.Helper()
			j := e.inContainer(streams{}, "--rootfs", "root", "--bind", e.path("data")+":/mnt", "--bind", "data:/ro:ro", "--bind", "data/file:/link",
				"--", "/bin/rooted", what)
			if end := j.end(); end != "exit status 0" {
				t.Fatalf("%s: %s; it says %q", what, end, e.read(e.path("data/log")))
			}
			if got := e.read(e.path("data/said")); got != said {
				t.Errorf("%s: checkpoint returned %q, want %q", what, got, said)
			}
		}
		run("save", "1\n")
		run("restart", "0\n")
		for dir, want := range map[string]int{"": 7, "proc": 0, "dev": 0, "mnt": 0, "ro": 0} {
			if entries, err := os.ReadDir(filepath.Join(root, dir)); err != nil || len(entries) != want {
				t.Errorf("%s is left with %v, %v", filepath.Join("root", dir), entries, err)
			}
		}
	})
}

// mkdir makes a directory that belongs to the test's user.
func (e *env) mkdir(path string) {
	e.Helper()
	if err := os.Mkdir(path, 0o755); err != nil {
		e.Fatal(err)
	}
	if err := os.Chown(path, e.user.id, e.user.id); err != nil {
		e.Fatal(err)
	}
}
