package tests

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// counting is what a container of these tests does: two processes of a
// pipeline, each with a line that says who it is, until the file stop is there.
const counting = `
	i=0
	while ! [ -e stop ]; do
		read -r host </proc/sys/kernel/hostname
		i=$((i+1)); echo "$$ $PPID $host $i"; sleep 0.02
	done | while read -r line; do
		read -r own rest </proc/self/stat
		echo "$line $own" >>out
	done
	exit 7`

// count is the last line of what the container says, 0 before there is one.
func (e *env) count() int {
	text, err := os.ReadFile(e.path("out"))
	if err != nil {
		return 0
	}
	return strings.Count(string(text), "\n")
}

// goesOn waits until the container says more.
func (e *env) goesOn() {
	e.Helper()
	n := e.count()
	e.until("the container counts", func() bool { return e.count() > n+3 })
}

// daemon is what else it does: one process that the init has taken in, in the
// session of who has ended, says the same line all the time.
const daemon = `
	setsid sh -c '(while ! [ -e stop ]; do
		read -r own name state parent group session rest </proc/self/stat
		[ $parent != 1 ] || echo "$own $parent $group $session" >>daemon
		sleep 0.02
	done) &'`

// TestContainerRestart saves a container three times and restarts it as one: its
// processes have the numbers that they had, it its host name, and its end is
// that of crshim restart.
func TestContainerRestart(t *testing.T) {
	eachUser(t, func(t *testing.T, u user) {
		needsContainers(t, u)
		e := newEnv(t, u)
		j := e.inContainer(streams{}, "--name", "one", "--hostname", "inside", "--net", "loopback", "sh", "-c", daemon+counting)
		for i := range 3 {
			e.goesOn()
			e.until("it has a daemon", func() bool { return exists(e.path("daemon")) })
			img := e.nth("img", i)
			e.verb("checkpoint", "--kill", "one", "-o", img).ends("exit status 0")
			j.ends("signal: killed")
			n := e.count()
			j = e.verb("restart", "--name", "one", img)
			e.until("it goes on", func() bool { return e.count() > n+3 })
			said := e.read(e.path("daemon"))
			e.until("its daemon goes on", func() bool { return len(e.read(e.path("daemon"))) > len(said) })
			if text := j.output(); text != "" {
				t.Errorf("restart says %q", text)
			}
		}
		e.write(e.path("stop"), "")
		j.ends("exit status 7")
		said := strings.Split(strings.TrimSuffix(e.read(e.path("daemon")), "\n"), "\n")
		if m := regexp.MustCompile(`^(\d+) 1 (\d+) (\d+)$`).FindStringSubmatch(said[0]); m == nil || m[1] == m[3] || m[2] != m[3] {
			t.Errorf("the daemon says %q", said[0])
		}
		if all := slices.Compact(said); len(all) != 1 {
			t.Errorf("the daemon says %q", all)
		}
		form := regexp.MustCompile(`^2 1 inside (\d+) (\d+)$`)
		reader := ""
		for i, line := range strings.Split(strings.TrimSuffix(e.read(e.path("out")), "\n"), "\n") {
			m := form.FindStringSubmatch(line)
			if m == nil || m[1] != strconv.Itoa(i+1) || reader != "" && m[2] != reader {
				t.Fatalf("line %d is %q, after process %s", i+1, line, reader)
			}
			reader = m[2]
		}
	})
}

// TestContainerTwice restarts one image twice: the containers run side by side,
// and each is frozen, killed and named by itself. Stops and signals reach the
// command as they do in a run.
func TestContainerTwice(t *testing.T) {
	eachUser(t, func(t *testing.T, u user) {
		needsContainers(t, u)
		e := newEnv(t, u)
		j := e.inContainer(streams{}, "--name", "first", "--net", "none", "sh", "-c", "trap 'echo term >>out; exit 5' TERM; echo >>out; while :; do sleep 0.01; done")
		e.until("it runs", func() bool { return e.count() == 1 })
		e.verb("checkpoint", "--kill", "first", "-o", "img").ends("exit status 0")
		j.ends("signal: killed")
		a, b := e.verb("restart", "--name", "a", "img"), e.verb("restart", "--name", "b", "--hostname", "other", "img")
		for _, name := range []string{"a", "b"} {
			e.until(name+" is listed", func() bool {
				ps := e.verb("ps")
				ps.ends("exit status 0")
				return regexp.MustCompile(`(?m)^` + name + ` .*running`).MatchString(ps.output())
			})
		}
		again := e.verb("restart", "--name", "a", "img")
		again.ends("exit status 125")
		if text := again.output(); !strings.Contains(text, "CR3109") {
			t.Errorf("a second one of that name: %s", text)
		}
		e.signal(a.pid(), unix.SIGTERM)
		a.ends("exit status 5")
		if b.ended() {
			t.Error("the other one has ended too")
		}
		e.signal(b.pid(), unix.SIGTERM)
		b.ends("exit status 5")
		if text := e.read(e.path("out")); text != "\nterm\nterm\n" {
			t.Errorf("they say %q", text)
		}
		detached := e.verb("restart", "--detach", "--name", "c", "img")
		detached.ends("exit status 0")
		pid, err := strconv.Atoi(strings.TrimSpace(detached.output()))
		if err != nil {
			t.Fatalf("restart --detach says %q", detached.output())
		}
		e.signal(pid, unix.SIGTERM)
		e.until("it has ended", func() bool { return unix.Kill(pid, 0) == unix.ESRCH })
	})
}

// TestContainerRefused has what an image of a container does not keep refused by
// name, and the container goes on.
func TestContainerRefused(t *testing.T) {
	eachUser(t, func(t *testing.T, u user) {
		needsContainers(t, u)
		for name, c := range map[string]struct {
			code    string
			needs   string // "" for the first word of command
			options []string
			command string
		}{
			"type":      {"CR3115", "", nil, "mount -t ramfs none /mnt"},
			"shared":    {"CR3115", "", nil, "mount --make-shared -t tmpfs none /mnt"},
			"covered":   {"CR3115", "mount", nil, "mount -t tmpfs none /mnt && mount -t tmpfs none /mnt"},
			"contents":  {"CR3119", "chattr", nil, "mount -t tmpfs none /mnt && >/mnt/file && chattr +d /mnt/file"},
			"POSIX":     {"CR3126", "", nil, program(t, libcs[0], "callers", "queue") + " /left"},
			"network":   {"CR1020", "unshare", nil, "{ unshare --net sleep 1000 & }; sleep 0.3"},
			"users":     {"CR1020", "unshare", nil, "{ unshare --user sleep 1000 & }; sleep 0.3"},
			"objects":   {"CR1020", "unshare", nil, "{ unshare --ipc sh -c 'ipcmk -Q >ipc; sleep 1000' & }; sleep 0.3"},
			"filled":    {"CR3115", "unshare", nil, "{ unshare --mount sh -c 'mount -t tmpfs none /mnt; >/mnt/x; sleep 1000' & }; sleep 0.3"},
			"unmounted": {"CR3115", "unshare", nil, "{ unshare --mount sh -c 'umount /proc; sleep 1000' & }; sleep 0.3"},
			"proc":      {"CR3115", "unshare", nil, "{ unshare --pid --fork sh -c 'mount -t proc none /mnt; sleep 1000' & }; sleep 0.3"},
			"interface": {"CR3114", "", []string{"--net", "loopback"}, "ip link add bridge0 type bridge"},
			"rules":     {"CR3114", "", []string{"--net", "loopback"}, "ip rule add from 10.0.0.1 lookup 7"},
			"nftables":  {"CR3114", "", []string{"--net", "none"}, program(t, libcs[0], "callers", "tables")},
		} {
			t.Run(name, func(t *testing.T) {
				if tool := strings.Fields(c.command)[0]; c.needs == "" {
					c.needs = tool
				}
				if _, err := exec.LookPath(c.needs); err != nil {
					t.Skip("needs:", c.needs)
				}
				e := newEnv(t, u)
				options := append([]string{"--name", "one"}, c.options...)
				j := e.inContainer(streams{}, append(options, "sh", "-c", c.command+" && echo >>out; while ! [ -e stop ]; do sleep 0.02; done; exit 6")...)
				e.until("it runs", func() bool { return e.count() == 1 })
				k := e.verb("checkpoint", "--kill", "one", "-o", "img")
				k.ends("exit status 1")
				if text := k.output(); !strings.Contains(text, c.code) {
					t.Errorf("%s, want %s", text, c.code)
				}
				e.write(e.path("stop"), "")
				j.ends("exit status 6")
				if _, err := os.Stat(e.path("img")); !os.IsNotExist(err) {
					t.Errorf("an image is there: %v", fmt.Sprint(err))
				}
			})
		}
	})
}

// TestContainerFrozen leaves a container frozen after its restart: it has run no
// instruction when it is thawed, and can be saved before.
func TestContainerFrozen(t *testing.T) {
	eachUser(t, func(t *testing.T, u user) {
		needsContainers(t, u)
		e := newEnv(t, u)
		j := e.inContainer(streams{}, "--name", "one", "sh", "-c", counting)
		e.goesOn()
		e.verb("checkpoint", "--kill", "one", "-o", "img").ends("exit status 0")
		j.ends("signal: killed")
		n := e.count()
		detached := e.verb("restart", "--detach", "--frozen", "--name", "one", "img")
		detached.ends("exit status 0")
		pid, err := strconv.Atoi(strings.TrimSpace(detached.output()))
		if err != nil {
			t.Fatalf("restart --detach says %q", detached.output())
		}
		e.until("it is listed as such", func() bool { // the signal that stops it may still be on its way
			ps := e.verb("ps")
			ps.ends("exit status 0")
			return regexp.MustCompile(`(?m)^one .* (frozen|stopped)`).MatchString(ps.output())
		})
		e.verb("checkpoint", "one", "-o", "img2").ends("exit status 0")
		if now := e.count(); now != n {
			t.Errorf("it has counted to %d from %d", now, n)
		}
		e.verb("thaw", "one").ends("exit status 0")
		e.goesOn()
		e.write(e.path("stop"), "")
		e.until("it has ended", func() bool { return unix.Kill(pid, 0) == unix.ESRCH })
		both := e.verb("restart", "--frozen", "--thaw", "img2")
		both.ends("exit status 125")
		again := e.verb("restart", "--thaw", "img2")
		again.ends("exit status 7")
	})
}

// containerAgain saves the container "one", of which j is the front, makes it
// again of the image, and waits until it counts on.
func (e *env) containerAgain(j *job, img string) *job {
	e.Helper()
	e.verb("checkpoint", "--kill", "one", "-o", img).ends("exit status 0")
	j.ends("signal: killed")
	n := e.count()
	j = e.verb("restart", "--name", "one", img)
	e.until("it goes on", func() bool {
		if j.ended() {
			e.Fatal(j.output())
		}
		return e.count() > n+3
	})
	return j
}

// TestContainerClocks restarts a container with a time namespace: in it the time
// since boot goes on from where it was saved, as the offset shows.
func TestContainerClocks(t *testing.T) {
	eachUser(t, func(t *testing.T, u user) {
		needsContainers(t, u)
		if _, err := os.Stat("/proc/self/ns/time"); err != nil {
			t.Skip("needs: time namespaces")
		}
		e := newEnv(t, u)
		j := e.inContainer(streams{}, "--name", "one", "--timens", "sh", "-c",
			"while ! [ -e stop ]; do read -r up rest </proc/uptime; echo $up >>out; sleep 0.02; done; exit 7")
		offset := 0
		for i := range 2 {
			e.goesOn()
			img := e.nth("img", i)
			e.verb("checkpoint", "--kill", "one", "-o", img).ends("exit status 0")
			j.ends("signal: killed")
			time.Sleep(1100 * time.Millisecond)
			j = e.verb("restart", "--name", "one", img)
			e.goesOn()
			shell := 0
			for _, p := range descendants(j.pid()) {
				if p.comm == "sh" {
					shell = p.pid
				}
			}
			m := regexp.MustCompile(`(?m)^boottime +(-\d+) +\d+$`).FindStringSubmatch(e.read(fmt.Sprintf("/proc/%d/timens_offsets", shell)))
			if m == nil {
				t.Fatalf("no offset of process %d", shell)
			}
			now, err := strconv.Atoi(m[1])
			if err != nil || now >= offset {
				t.Errorf("offset %d after %d: %v", now, offset, err)
			}
			offset = now
		}
		e.write(e.path("stop"), "")
		j.ends("exit status 7")
		last := 0.0
		for line := range strings.Lines(e.read(e.path("out"))) {
			up, err := strconv.ParseFloat(strings.TrimSpace(line), 64)
			if err != nil || up < last {
				t.Fatalf("%q after %v: %v", line, last, err)
			}
			last = up
		}
		if text := j.output(); text != "" {
			t.Errorf("restart says %q", text)
		}
	})
}
