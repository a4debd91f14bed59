package tests

import (
	"bytes"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// byMktree is how a tree is saved by a call and restarted by a program that makes
// the tasks itself, as in 2009.
var byMktree = way{name: mktree, flag: scenarioExternal, call: true}

const mktree = "external-mktree"

// TestMktree restarts trees by samples/mktree.
func TestMktree(t *testing.T) {
	for _, test := range []struct {
		program, name string
		by            []user
	}{
		{"kin", "named", users()},
		{"kin", "sysv", users()[:1]},
		{"tree", "pipes", users()[:1]},
		{"tree", "zombies", users()[:1]},
		{"tree", "memory", users()[:1]},
		{"tree", "files", users()[:1]},
		{"tree", "deep", users()[:1]},
		{"tree", "watch", users()[:1]},
	} {
		for _, u := range test.by {
			t.Run(test.name+"/"+u.name, func(t *testing.T) {
				t.Parallel()
				if u.id != 0 && test.name != "named" {
					t.Skip("needs: CAP_CHECKPOINT_RESTORE, for memory that has no name")
				}
				s := scenario{program: program(t, glibc, "scenarios", test.program), name: test.name, flags: scenarioExternal}
				runExternal(newEnv(t, u), s, byMktree)
			})
		}
	}
}

// TestMktreeRefused: what tasks that are there already cannot be given is refused
// by name, and mktree ends with all of them.
func TestMktreeRefused(t *testing.T) {
	for _, test := range []struct {
		name, code string
		id         int
	}{
		{"groups", "CR2414", 0},
		{"pipes", "CR2415", 65534}, // whose processes share memory that has no name
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if os.Getuid() != 0 && test.id == 0 {
				test.id = os.Getuid()
			}
			e := newEnv(t, user{"", test.id})
			e.saveTree("tree", test.name)
			f := e.open("img")
			defer f.Close()
			j := e.start(streams{In: f}, e.crshim, "run", mustSamples(t).path("mktree"))
			j.ends("exit status 1")
			if !strings.Contains(j.output(), test.code) {
				t.Errorf("not refused with %s: %s", test.code, j.output())
			}
		})
	}
}

// saveTree makes DIR/img, and DIR/go.1 such that who comes out of it goes on.
func (e *env) saveTree(source, name string) {
	e.Helper()
	j := e.start(streams{}, e.crshim, "run", program(e.TB.(*testing.T), glibc, "scenarios", source), name, "external", e.dir, "1")
	pid := e.announced(j, "ready", 1)
	e.checkpoint(pid, e.path("img"), way{}) // by the tool: nothing stands behind the image
	children := descendants(pid)
	e.signal(pid, unix.SIGKILL)
	j.ends("signal: killed")
	e.buried(children)
	e.write(e.nth("go", 1), "")
}

func (e *env) open(name string) *os.File {
	e.Helper()
	f, err := os.Open(e.path(name))
	if err != nil {
		e.Fatal(err)
	}
	return f
}

// TestTogether has tasks call restart() together, rightly and wrongly. Those whose
// call fails prove that they are as they were (tests/callers/team.c).
func TestTogether(t *testing.T) {
	const none = unix.Errno(0) // becomes a process of the image
	all := func(errno unix.Errno) [3]unix.Errno { return [3]unix.Errno{errno, errno, errno} }
	first := func(errno unix.Errno) [3]unix.Errno { return [3]unix.Errno{errno, unix.EAGAIN, unix.EAGAIN} }
	spoil := func(change func([]byte) []byte) func(*env) {
		return func(e *env) {
			e.write(e.path("img"), string(change([]byte(e.read(e.path("img"))))))
		}
	}
	for _, test := range []struct {
		mode  string
		spoil func(*env)
		want  [3]unix.Errno // of the first task, and the others
		extra unix.Errno    // of one more
		die   string        // after which step the supervisor is killed
	}{
		{mode: "early", want: all(none)},
		{mode: "late", want: all(none)},
		{mode: "extra", want: all(none), extra: unix.EINVAL},
		{mode: "unserved", die: "stage", want: all(unix.EINTR)}, // the supervisor is killed
		{mode: "missing", want: [3]unix.Errno{unix.ESRCH, unix.EAGAIN, none}},
		{mode: "killed", want: [3]unix.Errno{unix.ESRCH, none, unix.EAGAIN}},
		{mode: "signal", want: [3]unix.Errno{none, unix.EINTR, unix.EINTR}},
		{mode: "lost", want: [3]unix.Errno{none, unix.EAGAIN, unix.EAGAIN}},
		{mode: "session", want: first(unix.EINVAL)},
		{mode: "descriptor", want: first(unix.EINVAL)},
		// All is staged by then, and taken back.
		{mode: "short", want: first(unix.EPIPE), spoil: spoil(func(img []byte) []byte { return img[:len(img)-1] })},
		{mode: "sum", want: first(unix.EINVAL), spoil: spoil(func(img []byte) []byte {
			at := bytes.LastIndex(img, []byte("control")) // the name of a memfd, in one of the last records
			img[at] = 'C'
			return img
		})},
		{mode: "tail", want: first(unix.EINVAL), spoil: spoil(func(img []byte) []byte {
			img[len(img)-tailMagic] ^= 1
			return img
		})},
	} {
		for _, u := range users() {
			if u.id != 0 && test.mode != "sum" && test.mode != "late" {
				continue
			}
			t.Run(test.mode+"/"+u.name, func(t *testing.T) {
				t.Parallel()
				e := newEnv(t, u)
				e.saveTree("kin", "named")
				if test.spoil != nil {
					test.spoil(e)
				}
				j := e.dieAfter(test.die, streams{}, program(t, glibc, "callers", "team"), test.mode, e.dir)
				j.ends("exit status 0")
				e.passed()
				for i, want := range append(test.want[:], test.extra) {
					got := none
					if exists(e.nth("errno", i)) {
						n, err := strconv.Atoi(e.read(e.nth("errno", i)))
						if err != nil {
							t.Fatal(err)
						}
						got = unix.Errno(n)
					}
					if got != want {
						t.Errorf("task %d: %v, want %v", i, got, want)
					}
				}
			})
		}
	}
}

// tailMagic is how far before the end of an image the magic number of TAIL lies.
const tailMagic = 8
