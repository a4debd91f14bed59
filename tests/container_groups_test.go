package tests

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// limitedGroup makes a control group with at most so many processes that belongs
// to the test's user, below one that does, and returns the files that list its
// processes and that limit it.
func (e *env) limitedGroup(t *testing.T, limit string) (outer, inner string) {
	t.Helper()
	for _, dir := range []string{"/sys/fs/cgroup/pids", "/sys/fs/cgroup"} {
		if _, err := os.Stat(filepath.Join(dir, "cgroup.procs")); err != nil {
			continue
		}
		outer, err := os.MkdirTemp(dir, "crshim-test-")
		if err != nil {
			continue
		}
		t.Cleanup(func() {
			if err := os.Remove(outer); err != nil {
				t.Error(err)
			}
		})
		inner := filepath.Join(outer, "inner")
		err = os.WriteFile(filepath.Join(outer, "cgroup.subtree_control"), []byte("+pids"), 0) // of version 2
		if err != nil && dir == "/sys/fs/cgroup" {
			continue
		}
		if err := os.Mkdir(inner, 0o755); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := os.Remove(inner); err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Error(err)
			}
		})
		e.write(filepath.Join(inner, "pids.max"), limit)
		for _, path := range []string{outer, filepath.Join(outer, "cgroup.procs"), inner, filepath.Join(inner, "cgroup.procs")} {
			if err := os.Chown(path, e.user.id, e.user.id); err != nil {
				t.Fatal(err)
			}
		}
		return outer, inner
	}
	t.Skip("needs: a control group for pids that root can make")
	return "", ""
}

// TestContainerGroups saves a container in a control group that limits it, and
// restarts it when that is gone, and where nobody can make it anew.
func TestContainerGroups(t *testing.T) {
	eachUser(t, func(t *testing.T, u user) {
		needsContainers(t, u)
		e := newEnv(t, u)
		outer, inner := e.limitedGroup(t, "40")
		j := e.start(streams{}, "sh", "-c", "echo 0 >"+inner+`/cgroup.procs && exec "$@"`, "sh",
			"env", "XDG_RUNTIME_DIR="+e.dir, e.crshim, "run", "--container", "--name", "one", "sh", "-c", counting)
		e.goesOn()
		e.verb("checkpoint", "--kill", "one", "-o", "img").ends("exit status 0")
		j.ends("signal: killed")
		if err := os.Remove(inner); err != nil {
			t.Fatal(err)
		}
		j = e.verb("restart", "--name", "one", "img")
		e.goesOn()
		if text := e.read(filepath.Join(inner, "pids.max")); text != "40\n" {
			t.Errorf("its limit is %q", text)
		}
		if text := e.read(filepath.Join(inner, "cgroup.procs")); strings.Count(text, "\n") < 3 {
			t.Errorf("in the group are %q", text)
		}
		e.write(e.path("stop"), "")
		j.ends("exit status 7")
		e.until("the group is removed", func() bool {
			_, err := os.Stat(inner)
			return errors.Is(err, fs.ErrNotExist)
		})
		if u.id == 0 {
			return // may make it anywhere
		}
		if err := os.Chown(outer, 0, 0); err != nil {
			t.Fatal(err)
		}
		j = e.verb("restart", "--name", "one", "img")
		j.ends("exit status 7")
		if text := j.output(); !strings.Contains(text, "inner (pids.max 40)") || !strings.Contains(text, "permission denied") {
			t.Errorf("restart without the group says %q", text)
		}
	})
}
