package tests

import (
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Flags of a scenario, as in scenarios/scenario.h.
const (
	scenarioSelf = 1 << iota
	scenarioExternal
	scenarioRoot
	scenarioBlocks
	scenarioWake
	scenarioRefused
	scenarioBare
	scenarioCall
)

// scenario is one line of what a program in scenarios/ lists.
type scenario struct {
	program, name string
	flags         int
	errno         string // the text of it, when the checkpoint is refused
}

func (s scenario) is(flag int) bool { return s.flags&flag != 0 }

func scenariosOf(t *testing.T, program string) []scenario {
	t.Helper()
	out, err := exec.Command(program).Output()
	if err != nil {
		t.Fatal(err)
	}
	var all []scenario
	for line := range strings.Lines(string(out)) {
		word := strings.SplitN(strings.TrimSpace(line)+" ", " ", 3)
		flags, err := strconv.Atoi(word[1])
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, scenario{program, word[0], flags, strings.TrimSpace(word[2])})
	}
	return all
}

// way is how a scenario is checkpointed and restarted.
type way struct {
	name string
	flag int // scenarioSelf or scenarioExternal
	call bool
	run  func(*env, scenario, way)
}

var ways = []way{
	// The program calls checkpoint(), rstr calls restart(): in place.
	{"self-call", scenarioSelf, true, runSelf},
	// The program calls checkpoint(), the tool makes a new process of the image.
	{"self-tool", scenarioSelf, false, runSelf},
	// ckpt and rstr, as in usage.txt.
	{"external-call", scenarioExternal, true, runExternal},
	// The tool alone; the program runs under no filter.
	{"external-tool", scenarioExternal, false, runExternal},
}

// cycles is how often each scenario is checkpointed, killed and restarted.
const cycles = 3

var everyWay = flag.Bool("every-way", false, "run every scenario in every way, as every user, with every C library")

// taken tells whether the nth scenario of a program is run with the ith C
// library, the kth way and as the mth user. With glibc and as root each is, from
// inside and from outside; the other combinations, and whether a call or the tool
// does it, take turns, which differ from scenario to scenario.
func taken(s scenario, n, i, k, m int) bool {
	call := ways[k].call
	switch {
	case *everyWay:
		return true
	case s.is(scenarioRefused) && i > 0:
		return false
	case s.is(scenarioRefused):
		return call == (m == 0) && (n%2 == m || len(users()) == 1) // what is refused is refused by the same code
	case i > 0:
		return (n+5*k+7*m+i)%48 == 0
	case m > 0:
		return (n+k)%6 == 0
	case ways[k].flag == scenarioSelf:
		return call == (n%2 == 0)
	}
	return call == (n/2%2 == 0)
}

// takenAtAll tells whether any scenario of a program is run with the ith C library.
func takenAtAll(all []scenario, i int) bool {
	for n, s := range all {
		for k, w := range ways {
			for m, u := range users() {
				if taken(s, n, i, k, m) && s.runs(w, u) {
					return true
				}
			}
		}
	}
	return false
}

func scenarioName(source string) string { return strings.TrimSuffix(filepath.Base(source), ".c") }

// TestScenarios runs the programs of scenarios/, with -every-way in all ways.
func TestScenarios(t *testing.T) {
	sources, err := filepath.Glob("scenarios/*.c")
	if err != nil || len(sources) == 0 {
		t.Fatal(err, sources)
	}
	var over atomic.Bool
	ahead := make(chan struct{})
	go func() { // compiling takes a processor, and running hardly one
		defer close(ahead)
		for _, source := range sources {
			if _, build := executable(libcs[0], "scenarios", scenarioName(source)); !over.Load() {
				_ = build() // who needs it is told
			}
		}
	}()
	defer func() {
		over.Store(true)
		<-ahead
	}()
	for i, l := range libcs {
		t.Run(l.name, func(t *testing.T) {
			if m := l.missing(); m != "" {
				t.Skip("needs:", m)
			}
			for _, source := range sources {
				name := scenarioName(source)
				if i > 0 && !takenAtAll(scenariosOf(t, program(t, libcs[0], "scenarios", name)), i) {
					continue
				}
				t.Run(name, func(t *testing.T) {
					for n, s := range scenariosOf(t, program(t, l, "scenarios", name)) {
						for k, w := range ways {
							for m, u := range users() {
								if taken(s, n, i, k, m) {
									runScenario(t, s, w, u)
								}
							}
						}
						for _, u := range users() {
							if i == 0 && s.contained() {
								runScenario(t, s, contained, u)
							}
						}
					}
				})
			}
		})
	}
}

func (s scenario) runs(w way, u user) bool {
	return s.is(w.flag) && !(s.is(scenarioRoot) && u.id != 0) && !(s.is(scenarioCall) && w.flag == scenarioSelf && !w.call)
}

func runScenario(t *testing.T, s scenario, w way, u user) {
	if !s.runs(w, u) {
		return
	}
	t.Run(fmt.Sprintf("%s/%s/%s", s.name, w.name, u.name), func(t *testing.T) {
		t.Parallel()
		if strings.HasPrefix(s.name, "huge") {
			addHugePages()
		}
		w.run(newEnv(t, u), s, w)
	})
}

// runSelf: the program checkpoints itself and ends; each image is restarted
// and goes on to the next point.
func runSelf(e *env, s scenario, w way) {
	j := e.start(streams{}, e.crshim, "run", s.program, s.name, "self", e.dir, strconv.Itoa(cycles))
	for n := 1; n <= cycles; n++ {
		if s.is(scenarioRefused) {
			break
		}
		e.announced(j, "taken", n)
		files := e.keepFiles()
		e.write(e.nth("go", n), "")
		j.ends("exit status 0") // having verified
		if !exists(e.nth("saved", n)) {
			e.Fatalf("the original ended without verifying")
		}
		files.putBack()
		j = e.restart(e.nth("img", n), w)
	}
	j.ends("exit status 0")
	e.passed()
}

// runExternal: somebody else checkpoints the program. The first time it goes
// on and verifies before it is killed, later it is killed at once.
func runExternal(e *env, s scenario, w way) {
	args := []string{s.program, s.name, "external", e.dir, strconv.Itoa(cycles)}
	if w.call {
		args = append([]string{e.crshim, "run"}, args...)
	}
	j := e.start(streams{}, args...)
	for n := 1; n <= cycles; n++ {
		pid := e.announced(j, "ready", n)
		if s.is(scenarioBlocks) {
			e.until("the program sleeps", func() bool { return sleeping(pid) })
			time.Sleep(250 * time.Millisecond) // more than HELD in scenarios/sleep.c
		}
		if s.is(scenarioRefused) {
			e.refused(s, pid, n, w)
			e.write(e.nth("go", n), "")
			continue
		}
		before := viewOf(e, pid)
		e.checkpoint(pid, e.nth("img", n), w)
		files := e.keepFiles()
		if n == 1 {
			e.write(e.nth("go", n), "")
			if s.is(scenarioWake) {
				e.signal(pid, unix.SIGUSR1)
			}
			e.announced(j, "ready", n+1)
			e.remove(e.nth("go", n))
		}
		children := descendants(pid)
		e.signal(pid, unix.SIGKILL)
		j.ends("signal: killed")
		e.buried(children)
		e.remove(e.nth("ready", n+1))
		files.putBack()
		j = e.restart(e.nth("img", n), w)
		if !s.is(scenarioBlocks) || s.is(scenarioWake) {
			pid = e.restored(j, s, before.Comm)
			sameView(e, e.user, before, viewOf(e, pid))
		}
		if s.is(scenarioWake) {
			e.signal(pid, unix.SIGUSR1)
		}
		e.write(e.nth("go", n), "")
	}
	j.ends("exit status 0")
	e.passed()
}

// passed reads the verdict.
func (e *env) passed() {
	e.Helper()
	verdict := e.read(e.path("result"))
	switch word, _, _ := strings.Cut(verdict, " "); word {
	case "PASS":
	case "SKIP":
		e.Skip(verdict[strings.Index(verdict, "needs:"):])
	default:
		e.Fatal(verdict)
	}
}

// announced waits for the program's word and returns the pid that it gives.
func (e *env) announced(j *job, what string, n int) int {
	e.Helper()
	name := e.nth(what, n)
	e.until("waiting for "+filepath.Base(name), func() bool {
		if j.ended() && !exists(name) {
			if exists(e.path("result")) {
				e.passed()
			}
			e.Fatalf("%v: %s before it wrote %s", j.cmd.Args, j.cmd.ProcessState, filepath.Base(name))
		}
		return exists(name)
	})
	pid, err := strconv.Atoi(strings.TrimSpace(e.read(name)))
	if err != nil {
		e.Fatal(err)
	}
	return pid
}

// buried waits until nothing is left of processes that end with their parent.
func (e *env) buried(children []process) {
	e.Helper()
	for _, p := range children {
		e.until("the end of its children", func() bool {
			_, _ = unix.Wait4(p.pid, nil, unix.WNOHANG, nil) // it has become ours
			_, left := lookup(p.pid)
			return !left
		})
	}
}

func (e *env) signal(pid int, sig unix.Signal) {
	e.Helper()
	if err := unix.Kill(pid, sig); err != nil {
		e.Fatalf("kill %d: %v", pid, err)
	}
}

// tryCheckpoint saves a process; how it ended is the job's.
func (e *env) tryCheckpoint(pid int, image string, w way) *job {
	e.Helper()
	if !w.call {
		return e.start(streams{}, e.crshim, "checkpoint", strconv.Itoa(pid), "-o", image)
	}
	s, err := ourSamples()
	if err != nil {
		e.Fatal(err)
	}
	f := e.create(image, os.O_RDWR|os.O_TRUNC)
	defer f.Close()
	return e.start(streams{Out: f}, e.crshim, "run", s.path("ckpt"), strconv.Itoa(pid))
}

func (e *env) checkpoint(pid int, image string, w way) {
	e.Helper()
	e.tryCheckpoint(pid, image, w).ends("exit status 0")
}

// refusalCodes are the codes, behind CR1, of what scenarios/refuse.c holds and
// must be called by its name.
var refusalCodes = map[string]string{
	"fifo-deleted":    "216",
	"io-uring":        "203",
	"inotify":         "253",
	"inotify-deleted": "208",
	"fanotify":        "209",
	"pidfd":           "210",
	"userfaultfd":     "211",
	"perf":            "212",
	"bpf":             "213",
	"listener":        "254",
	"landlock":        "255",
	"secret-fd":       "256",
	"address-space":   "414",

	"semaphore-apart":  "416",
	"semaphore-closed": "404",

	"traces":         "015",
	"breakpoint":     "015",
	"not-waited-for": "015",
	"attached":       "015",
	"group-stop":     "015",
	"running":        "015",
	"call-entry":     "015",
	"asleep":         "015",
	"fork-event":     "015",
	"exit-event":     "015",
	"ended":          "015",
	"traced-thread":  "015",
	"traces-parent":  "015",

	"thread-namespace": "024",
	"child-namespace":  "025",

	"two-parents":    "019",
	"led-outside":    "019",
	"parent-between": "409",
	"with-thread":    "017",
	"vfork-stopped":  "023",
	"thread-root":    "409",
	"other-network":  "020",

	"nested-entered": "020",
	"nested-left":    "028",

	"terminal":         "257",
	"terminal-session": "258",
	"terminal-stopped": "257",
}

// refused expects a checkpoint to fail as the scenario says, writing nothing.
func (e *env) refused(s scenario, pid, n int, w way) {
	e.Helper()
	image := e.nth("img", n)
	j := e.tryCheckpoint(pid, image, w)
	j.ends("exit status 1")
	if w.call && !strings.Contains(strings.ToLower(j.output()), strings.ToLower("checkpoint: "+s.errno)) {
		e.Fatalf("checkpoint was refused with %q, want %q", j.output(), s.errno)
	}
	if code := refusalCodes[s.name]; !w.call && !strings.Contains(j.output(), "CR1"+code) {
		e.Fatalf("checkpoint was refused without a code, or not with CR1%s: %q", code, j.output())
	}
	if st, err := os.Stat(image); err == nil && st.Size() != 0 {
		e.Fatalf("a refused checkpoint wrote %d bytes", st.Size())
	}
}

// restart makes a process of an image: in place of rstr, or of the tasks that
// mktree makes, or by the tool.
func (e *env) restart(image string, w way) *job {
	e.Helper()
	if !w.call && w.flag == scenarioExternal {
		return e.start(streams{}, e.crshim, "restart", image)
	}
	if !w.call {
		// Under run again, or the next checkpoint() would be unknown.
		return e.start(streams{}, e.crshim, "run", e.crshim, "restart", image)
	}
	s, err := ourSamples()
	if err != nil {
		e.Fatal(err)
	}
	f, err := os.Open(image)
	if err != nil {
		e.Fatal(err)
	}
	defer f.Close()
	program := "rstr"
	if w.name == mktree {
		program = "mktree"
	}
	return e.start(streams{In: f}, e.crshim, "run", s.path(program))
}

// restored finds the process that came back, once nobody holds it any more
// and, if it is to be woken, it sleeps.
func (e *env) restored(j *job, s scenario, comm string) int {
	e.Helper()
	ready := untraced
	if s.is(scenarioBlocks) {
		ready = sleeping
	}
	var pid int
	e.until("the restored process is on its own", func() bool {
		if j.ended() {
			e.Fatalf("%v: %s", j.cmd.Args, j.cmd.ProcessState)
		}
		for _, p := range descendants(j.pid()) {
			if p.comm == comm && p.state != "Z" { // the first one of its tree
				pid = p.pid
				if !ready(pid) {
					return false
				}
				parent, _ := lookup(p.ppid)
				now, _ := lookup(pid)
				return parent.comm != comm && now.state != "Z"
			}
		}
		return false
	})
	return pid
}

// kept are the files that a scenario has made, as they were at a point.
type kept struct {
	*env
	content map[string][]byte
}

// keepFiles copies the scenario's own files, as usage.txt has one do by hand:
// the original may write on before the image is restarted.
func (e *env) keepFiles() kept {
	e.Helper()
	k := kept{env: e, content: map[string][]byte{}}
	err := filepath.WalkDir(e.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || e.ofHarness(d.Name()) {
			return err
		}
		info, err := d.Info()
		if err != nil || info.Size() > 1<<24 {
			return err
		}
		k.content[path], err = os.ReadFile(path)
		return err
	})
	if err != nil {
		e.Fatal(err)
	}
	return k
}

// ofHarness tells the files by which program and harness talk from the rest.
func (e *env) ofHarness(name string) bool {
	name, _, _ = strings.Cut(name, ".")
	switch name {
	case "img", "go", "ready", "taken", "saved", "result", "log", "snapshot":
		return true
	}
	return false
}

func (k kept) putBack() {
	k.Helper()
	for path, content := range k.content {
		now, err := os.ReadFile(path)
		if err == nil && string(now) == string(content) {
			continue
		}
		// In place: the file stays the one that the image names.
		if err := os.WriteFile(path, content, 0o600); err != nil {
			k.Fatal(err)
		}
	}
}
