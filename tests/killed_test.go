package tests

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The supervisor is killed by SIGKILL, after each step and at any moment:
// whoever called and whoever is saved run on.

var (
	checkpointSteps = []string{"predump", "freeze", "survey", "dump", "thaw", "postdump"}
	restartPhases   = []string{"receive", "decode", "catch", "stage", "commit", "record"}
)

// dieAfter has the supervisor of a crshim run kill itself after a step.
func (e *env) dieAfter(step string, s streams, command ...string) *job {
	e.Helper()
	return e.start(s, append([]string{"env", "CRSHIM_DIE_AFTER=" + step, e.crshim, "run"}, command...)...)
}

// interrupted says whether a call got what it gets from a killed supervisor.
func interrupted(r result) bool {
	return r == failed(unix.ENOSYS) || r == failed(unix.EINTR)
}

// TestKilledCheckpoint: the target of an external checkpoint holds all kinds
// of state, and finds it unchanged.
func TestKilledCheckpoint(t *testing.T) {
	targets := [][2]string{{"cpu", "registers"}, {"memory", "private"}, {"files", "dup"}, {"signals", "mask"}, {"unix", "options"}, {"threads", "waiting"}}
	for _, step := range checkpointSteps {
		t.Run(step, func(t *testing.T) {
			for i, u := range users() {
				for _, target := range targets {
					t.Run(fmt.Sprintf("external/%s/%s", target[1], u.name), func(t *testing.T) {
						t.Parallel()
						c := newCalls(t, u)
						j := c.start(streams{}, program(t, libcs[i], "scenarios", target[0]), target[1], "external", c.dir, "1")
						pid := c.announced(j, "ready", 1)
						c.dieAfter(step, streams{}, "sh", "-c",
							fmt.Sprintf("%s out checkpoint %d 3 0 3>img; exit $?", c.call, pid)).ends("exit status 1")
						if got := c.results(c.path("out")); len(got) != 1 || !interrupted(got[0]) {
							t.Errorf("the call gave %v", got)
						}
						c.runsOn(pid)
						c.write(c.nth("go", 1), "")
						j.ends("exit status 0")
						c.passed()
					})
				}
				t.Run("self/"+u.name, func(t *testing.T) {
					t.Parallel()
					c := newCalls(t, u)
					c.dieAfter(step, streams{}, "sh", "-c", c.call+" out checkpoint self 3 0 3>img; exit $?").ends("exit status 1")
					if got := c.results(c.path("out")); len(got) != 1 || !interrupted(got[0]) {
						t.Errorf("the call gave %v", got)
					}
				})
			}
		})
	}
}

// runsOn fails if a process is stopped or still traced.
func (e *env) runsOn(pid int) {
	e.Helper()
	e.until("the target runs untraced", func() bool {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			e.Fatal(err)
		}
		return bytes.Contains(status, []byte("\nTracerPid:\t0\n")) &&
			(bytes.Contains(status, []byte("\nState:\tS")) || bytes.Contains(status, []byte("\nState:\tR")))
	})
}

// victimOf starts the program that calls restart with the image and proves
// itself unharmed if it comes back.
func (b *badSetup) victimOf(step string) *job {
	b.Helper()
	b.write(b.nth("bad", 0), string(b.raw.bytes))
	b.write(b.nth("go", 1), "")
	b.write(b.nth("go", 2), "")
	victim := program(b.TB.(*testing.T), glibc, "callers", "victim")
	if step == "" {
		return b.start(streams{}, b.crshim, "run", victim, "victim", "file", b.dir, "1")
	}
	return b.dieAfter(step, streams{}, victim, "victim", "file", b.dir, "1")
}

// outcome of a victim whose supervisor was killed: "as before", or "restored";
// anything else is a failure.
func (b *badSetup) outcome(j *job) string {
	b.Helper()
	before := []result{{1, 0}} // of newBad
	switch end := j.end(); {
	case end == "exit status 0":
		b.passed()
		n, err := strconv.Atoi(b.read(b.nth("errno", 0)))
		if err != nil || !interrupted(failed(unix.Errno(n))) {
			b.Errorf("restart failed with %v", unix.Errno(n))
		}
		return "as before"
	case end == "exit status 7" && slices.Equal(b.results(b.path("out")), append(before, result{0, 0})):
		return "restored"
	default:
		b.Errorf("the caller: %s; results %v", end, b.results(b.path("out")))
		if exists(b.path("result")) {
			b.passed()
		}
		return end
	}
}

// TestKilledRestart: before the commit the caller is as it was, from then on
// it becomes the process of the image without help.
func TestKilledRestart(t *testing.T) {
	for _, phase := range restartPhases {
		t.Run(phase, func(t *testing.T) {
			eachUser(t, func(t *testing.T, u user) {
				b := newBad(t, u)
				want := "as before"
				if phase == "commit" || phase == "record" {
					want = "restored"
				}
				if got := b.outcome(b.victimOf(phase)); got != want {
					t.Errorf("the caller is %s, want %s", got, want)
				}
			})
		})
	}
}

// killSupervisor ends the process that serves a job's calls, if it still does.
func (e *env) killSupervisor(j *job) {
	e.Helper()
	for _, p := range descendants(j.pid()) {
		command, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.pid))
		if err == nil && bytes.Contains(command, []byte("\x00__supervise\x00")) {
			_ = unix.Kill(p.pid, unix.SIGKILL) // it may be ending by itself
			return
		}
	}
}

// TestKilledAnytime: SIGKILL at moments that no step names.
func TestKilledAnytime(t *testing.T) {
	eachUser(t, func(t *testing.T, u user) {
		random := rand.New(rand.NewPCG(2009, uint64(u.id)))
		for i := range 12 {
			// Around the time that a restart takes, from its start on.
			pause := time.Duration(random.IntN(6000)) * time.Microsecond
			t.Run(strconv.Itoa(i), func(t *testing.T) {
				b := newBad(t, u)
				b.victimOf("").ends("exit status 7") // warm, and the image is good
				b.remove(b.nth("errno", 0))
				b.write(b.path("out"), "1 0\n")
				b.remove(b.nth("go", 1))
				b.add("empty", nil, unix.EPIPE)
				b.add("good", b.raw.bytes)
				for n, s := range b.spoilt {
					b.write(b.nth("bad", n), string(s.bytes))
				}
				victim := program(t, glibc, "callers", "victim")
				j := b.start(streams{}, b.crshim, "run", victim, "victim", "file", b.dir, "2")
				b.announced(j, "ready", 1)
				b.write(b.nth("go", 1), "")
				time.Sleep(pause)
				b.killSupervisor(j)
				b.either(j)
			})
		}
	})
}

// either accepts a caller that is as before and one that was restored.
func (b *badSetup) either(j *job) {
	b.Helper()
	switch end := j.end(); end {
	case "exit status 0":
		b.passed()
	case "exit status 7":
		if got := b.results(b.path("out")); !slices.Equal(got, []result{{1, 0}, {0, 0}}) {
			b.Errorf("restored, with results %v", got)
		}
	default:
		b.Errorf("the caller: %s", end)
	}
}
