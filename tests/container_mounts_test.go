package tests

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// rooted makes two root directories with a program in them, and a directory that
// is bound to /mnt.
func (e *env) rooted(t *testing.T, name string) (here, there string) {
	e.Helper()
	e.mkdir(e.path("data"))
	text, err := os.ReadFile(program(t, libcs[1], "callers", name))
	if err != nil {
		e.Fatal(err)
	}
	for _, root := range []string{"here", "there"} {
		e.mkdir(e.path(root))
		for _, dir := range []string{"proc", "dev", "bin", "mnt", "tmp", "etc"} {
			e.mkdir(filepath.Join(e.path(root), dir))
		}
		if err := os.WriteFile(filepath.Join(e.path(root), "bin", name), text, 0o755); err != nil {
			e.Fatal(err)
		}
	}
	return e.path("here"), e.path("there")
}

// TestContainerMounts saves a container with a root of its own, in which all
// kinds of things are mounted, filled and open, and restarts it on another root,
// with other directories of the host, and on the first again.
func TestContainerMounts(t *testing.T) {
	eachUser(t, func(t *testing.T, u user) {
		needsContainers(t, u)
		e := newEnv(t, u)
		here, there := e.rooted(t, "mounts")
		data := e.path("data")
		lines := func() int {
			text, err := os.ReadFile(filepath.Join(data, "out"))
			if err != nil {
				return 0
			}
			return strings.Count(string(text), "\n")
		}
		var j *job
		goesOn := func() {
			t.Helper()
			n := lines()
			e.until("it finds all as it was", func() bool { return lines() > n+2 || j.ended() })
			if j.ended() {
				wrong, _ := os.ReadFile(filepath.Join(data, "wrong")) // there if it has found something
				t.Fatalf("it has ended with %s: %s%s", j.end(), j.output(), wrong)
			}
		}
		save := func(img string) {
			t.Helper()
			k := e.verb("checkpoint", "--kill", "one", "-o", img)
			if end := k.end(); end != "exit status 0" {
				t.Fatalf("checkpoint: %s: %s", end, k.output())
			}
			j.ends("signal: killed")
			if k := e.verb("verify", img); k.end() != "exit status 0" {
				t.Errorf("verify: %s", k.output())
			}
		}
		j = e.inContainer(streams{}, "--name", "one", "--rootfs", here, "--bind", data+":/mnt", "--", "/bin/mounts")
		goesOn()
		save("img")
		if err := os.Rename(here, e.path("away")); err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			args []string
			says []string
		}{
			{nil, []string{"CR3106", here}},
			{[]string{"--rootfs", data}, []string{"CR3120", "data/tmp", "data/mnt", "data/etc"}},
			{[]string{"--rootfs", there, "--bind", "/no/such:/mnt"}, []string{"CR3120", "/no/such"}},
		} {
			k := e.verb(append(append([]string{"restart", "--name", "one"}, c.args...), "img")...)
			k.ends("exit status 125")
			for _, says := range c.says {
				if text := k.output(); !strings.Contains(text, says) {
					t.Errorf("restart %v says %s, without %s", c.args, text, says)
				}
			}
		}
		j = e.verb("restart", "--name", "one", "--rootfs", there, "img")
		goesOn()
		save("img2")
		// Without --rootfs it is the last one; another directory is bound instead of data.
		if err := os.Rename(data, e.path("elsewhere")); err != nil {
			t.Fatal(err)
		}
		e.mkdir(data)
		data = e.path("elsewhere")
		j = e.verb("restart", "--name", "one", "--bind", data+":/mnt", "img2")
		goesOn()
		e.write(filepath.Join(data, "stop"), "")
		j.ends("exit status 7")
		for _, root := range []string{e.path("away"), there} {
			if left, err := filepath.Glob(filepath.Join(root, "*/*")); err != nil || len(left) != 1 {
				t.Errorf("left in %s: %v, %v", root, left, err)
			}
		}
	})
}

// TestContainerTwenty saves a container and restarts it twenty times: nothing
// grows, and nothing is lost.
func TestContainerTwenty(t *testing.T) {
	eachUser(t, func(t *testing.T, u user) {
		needsContainers(t, u)
		e := newEnv(t, u)
		j := e.inContainer(streams{}, "--name", "one", "--net", "none", "sh", "-c", `
			mount -t tmpfs none /mnt && exec 9>/mnt/log && i=0
			while ! [ -e stop ]; do
				i=$((i+1)); echo $i >&9; n=0; m=0
				while read -r x; do n=$((n+1)); done </mnt/log
				while read -r x; do m=$((m+1)); done </proc/self/mountinfo
				echo $n $m >>out; sleep 0.01
			done; exit 6`)
		var first int64
		for i := range 20 {
			e.goesOn()
			k := e.verb("checkpoint", "--kill", "one", "-o", "img")
			if end := k.end(); end != "exit status 0" {
				t.Fatalf("checkpoint %d: %s: %s", i, end, k.output())
			}
			j.ends("signal: killed")
			size := e.size("img")
			if i == 0 {
				first = size
			} else if size > 4*first {
				t.Fatalf("image %d has %d bytes, the first %d", i, size, first)
			}
			j = e.verb("restart", "--name", "one", "img")
		}
		e.goesOn()
		e.write(e.path("stop"), "")
		j.ends("exit status 6")
		mounts := ""
		for i, line := range strings.Split(strings.TrimSuffix(e.read(e.path("out")), "\n"), "\n") {
			count, now, _ := strings.Cut(line, " ")
			if mounts == "" {
				mounts = now
			}
			if count != fmt.Sprint(i+1) || now != mounts {
				t.Fatalf("line %d says %q, the first mounts were %s", i+1, line, mounts)
			}
		}
	})
}

func (e *env) size(name string) int64 {
	e.Helper()
	info, err := os.Stat(e.path(name))
	if err != nil {
		e.Fatal(err)
	}
	return info.Size()
}
