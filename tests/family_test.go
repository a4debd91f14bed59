package tests

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// family starts callers/family.c, and returns it with its pid once it is set up.
func (c *callSetup) family(t *testing.T, l libc, out string, under ...string) (*job, int) {
	t.Helper()
	j := c.start(streams{}, append(under, program(t, l, "callers", "family"), "wait", c.dir, out)...)
	return j, c.announced(j, "family", 1)
}

// newBadFamily is newBad with the image of a tree.
func newBadFamily(t *testing.T, u user) *badSetup {
	c := newCalls(t, u)
	j, pid := c.family(t, libcs[1], c.path("out"))
	c.start(streams{}, c.crshim, "checkpoint", strconv.Itoa(pid), "-o", "img").ends("exit status 0")
	c.write(c.nth("go", 9), "")
	j.ends("exit status 7")
	c.write(c.path("out"), "1 0\n")
	return &badSetup{callSetup: c, raw: readRaw(t, c.path("img"))}
}

// nobodyLeft waits until no process of the test runs any more: they have its
// directory as their own.
func (e *env) nobodyLeft() {
	e.Helper()
	e.until("the end of all its processes", func() bool {
		for _, p := range descendants(os.Getpid()) {
			if dir, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", p.pid)); err == nil && dir == e.dir {
				return false
			}
		}
		return true
	})
}

// TestKilledTreeCheckpoint: a tree whose supervisor is killed goes on.
func TestKilledTreeCheckpoint(t *testing.T) {
	for _, step := range checkpointSteps {
		t.Run(step, func(t *testing.T) {
			eachUser(t, func(t *testing.T, u user) {
				c := newCalls(t, u)
				j, pid := c.family(t, glibc, c.path("end"))
				before := descendants(pid)
				c.dieAfter(step, streams{}, "sh", "-c",
					fmt.Sprintf("%s out checkpoint %d 3 0 3>img; exit $?", c.call, pid)).ends("exit status 1")
				if got := c.results(c.path("out")); len(got) != 1 || !interrupted(got[0]) {
					t.Errorf("the call gave %v", got)
				}
				c.runsOn(pid)
				for _, p := range before {
					if p.state != "Z" {
						c.runsOn(p.pid)
					}
				}
				c.write(c.nth("go", 9), "")
				j.ends("exit status 7")
				if got := c.results(c.path("end")); !slices.Equal(got, []result{{0, 0}}) {
					t.Errorf("the tree ended with %v", got)
				}
			})
		})
	}
}

// TestKilledTreeRestart: before the commit the caller is as it was, without a
// child; from then on it becomes the tree without help. Right behind the commit
// its children still end with the supervisor (docs/decisions/014).
func TestKilledTreeRestart(t *testing.T) {
	for _, phase := range restartPhases {
		t.Run(phase, func(t *testing.T) {
			eachUser(t, func(t *testing.T, u user) {
				b := newBadFamily(t, u)
				j := b.victimOf(phase)
				if phase == "commit" {
					b.childless(j)
					return
				}
				want := "as before"
				if phase == "record" {
					want = "restored"
				}
				if got := b.outcome(j); got != want {
					t.Errorf("the caller is %s, want %s", got, want)
				}
				b.nobodyLeft()
			})
		})
	}
}

// childless expects the first process of the family without the others.
func (b *badSetup) childless(j *job) {
	b.Helper()
	var root process
	b.until("only the first process is left", func() bool {
		left := 0
		for _, p := range descendants(j.pid()) {
			if p.comm == "family" && p.state != "Z" {
				root, left = p, left+1
			}
		}
		return left == 1 || j.ended()
	})
	if got := j.end(); got != "exit status 1" || b.read(b.path("result"))[:4] != "FAIL" {
		b.Errorf("pid %d, whose children have ended: %s", root.pid, got)
	}
}

// TestKilledTreeAnytime: SIGKILL at moments that no phase names. Whatever the
// moment, nobody is left when the caller has ended.
func TestKilledTreeAnytime(t *testing.T) {
	eachUser(t, func(t *testing.T, u user) {
		b := newBadFamily(t, u)
		victim := program(t, glibc, "callers", "victim")
		for i := range 12 {
			// Around the time that a restart takes, from its start on.
			pause := time.Duration(2*i) * time.Millisecond
			for _, name := range []string{b.nth("errno", 0), b.nth("errno", 1), b.nth("go", 1), b.path("result"), b.nth("ready", 1), b.nth("ready", 2)} {
				b.remove(name)
			}
			b.write(b.path("out"), "1 0\n")
			b.write(b.nth("bad", 0), "")
			b.write(b.nth("bad", 1), string(b.raw.bytes))
			b.write(b.nth("go", 2), "")
			j := b.start(streams{}, b.crshim, "run", victim, "victim", "file", b.dir, "2")
			b.announced(j, "ready", 1)
			b.write(b.nth("go", 1), "")
			time.Sleep(pause)
			b.killSupervisor(j)
			switch end := j.end(); end {
			case "exit status 0":
				b.passed()
			case "exit status 7":
				if got := b.results(b.path("out")); !slices.Equal(got, []result{{1, 0}, {0, 0}}) {
					t.Errorf("restored, with results %v", got)
				}
			case "exit status 1": // in the window behind the commit its children may end with us
				t.Logf("after %v: %s", pause, b.read(b.path("result")))
			default:
				t.Errorf("the caller: %s", end)
			}
			b.nobodyLeft()
		}
	})
}

// TestTreeAsks: a process of the tree that is saved makes the call, as ckpt does
// when the shell that started it is its target.
func TestTreeAsks(t *testing.T) {
	eachUser(t, func(t *testing.T, u user) {
		c := newCalls(t, u)
		family := program(t, glibc, "callers", "family")
		c.start(streams{}, c.crshim, "run", family, "ask", c.dir, c.path("out")).ends("exit status 7")
		if got := c.results(c.path("out")); len(got) != 2 || got[0].value <= 0 || got[1].value != 0 {
			t.Fatalf("the original: %v", got)
		}
		for _, how := range [][]string{{c.crshim, "run", c.crshim, "restart", "img"}, {c.crshim, "restart", "img"}} {
			c.remove(c.path("out"))
			c.start(streams{}, how...).ends("exit status 7")
			if got := c.results(c.path("out")); !slices.Equal(got, []result{{0, 0}, {0, 0}}) {
				t.Errorf("%v: %v", how, got)
			}
		}
		c.remove(c.path("out"))
		f := c.create(c.path("img"), unix.O_RDONLY)
		defer f.Close()
		c.start(streams{In: f}, c.crshim, "run", mustSamples(t).path("rstr")).ends("exit status 7")
		if got := c.results(c.path("out")); !slices.Equal(got, []result{{0, 0}, {0, 0}}) {
			t.Errorf("rstr: %v", got)
		}
	})
}

// TestTreeOfCrshim: the tool does not stop itself.
func TestTreeOfCrshim(t *testing.T) {
	eachUser(t, func(t *testing.T, u user) {
		e := newEnv(t, u)
		j := e.start(streams{}, "sh", "-c", e.crshim+" checkpoint $$ -o img; echo status $?; "+e.crshim+" check $$; echo status $?")
		j.ends("exit status 0")
		if out := j.output(); strings.Count(out, "CR1027") != 2 || strings.Count(out, "status 1\n") != 2 || exists(e.path("img")) {
			t.Errorf("a tree with crshim in it: %s", out)
		}
	})
}

// TestCheckTree: check names what stands in the way of every process of a tree,
// each with its number.
func TestCheckTree(t *testing.T) {
	eachUser(t, func(t *testing.T, u user) {
		c := newCalls(t, u)
		j, pid := c.family(t, glibc, c.path("end"))
		ok := c.start(streams{}, c.crshim, "check", strconv.Itoa(pid))
		ok.ends("exit status 0")
		if out := ok.output(); !strings.Contains(out, "and the 3 that descend from it") {
			t.Errorf("check says %q", out)
		}
		child := descendants(pid)[0].pid
		trace := c.start(streams{}, program(t, glibc, "callers", "trace"), "attached", strconv.Itoa(child))
		c.until("the debugger attaches", func() bool { return exists(c.path("attached")) })
		bad := c.start(streams{}, c.crshim, "check", "--json", strconv.Itoa(pid))
		bad.ends("exit status 1")
		var report struct {
			Processes int
			Blockers  []struct {
				PID  int
				Code string
			}
		}
		if err := json.Unmarshal([]byte(bad.output()), &report); err != nil {
			t.Fatal(err)
		}
		if report.Processes != 4 || len(report.Blockers) != 1 || report.Blockers[0].PID != child || report.Blockers[0].Code != "CR1003" {
			t.Errorf("check --json says %+v, the traced process is %d", report, child)
		}
		c.start(streams{}, c.crshim, "checkpoint", strconv.Itoa(pid), "-o", "img").ends("exit status 1")
		trace.killTree()
		<-trace.done
		c.write(c.nth("go", 9), "")
		j.ends("exit status 7")
	})
}
