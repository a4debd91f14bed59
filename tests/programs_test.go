package tests

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// setUp are the programs that .ci/setup installs for the tests: CI has them.
var setUp = []string{"python3", "perl", "bash", "sqlite3", "redis-check-rdb", "less", "tmux", "vim"}

// installed returns the path of a program of the distribution; a test of one
// that is not there is skipped by name. What lies in a home directory is not
// for every user, so the usual places come first.
func installed(t *testing.T, name string) string {
	t.Helper()
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range append([]string{"/usr/bin/" + name}, found...) {
		if exists(path) {
			return path
		}
	}
	path, err := exec.LookPath(name)
	if err != nil && os.Getenv("CI") == "true" && slices.Contains(setUp, name) {
		t.Fatalf("%s is missing, which .ci/setup installs", name)
	}
	if err != nil {
		t.Skip("needs:", name)
	}
	return path
}

// working is a program of tests/programs in the midst of its work. It appends
// a line to the file "progress" for each round, and when there is a file
// "finish" it compares all that it has done with what it should have, and ends
// with status 0 if that is right.
type working struct {
	*job
	pid int
}

// startWorking starts one of the programs, given with its interpreter. A
// script is copied to where every user can read it.
func startWorking(t *testing.T, u user, script string, args ...string) *working {
	t.Helper()
	e := envWith(t, u, script)
	j := e.start(streams{}, args...)
	return &working{j, j.pid()}
}

// envWith is one that has a script.
func envWith(t *testing.T, u user, script string) *env {
	t.Helper()
	e := newEnv(t, u)
	if script != "" {
		text, err := os.ReadFile(filepath.Join("programs", script))
		if err != nil {
			t.Fatal(err)
		}
		e.write(e.path(script), string(text))
	}
	return e
}

// rounds is how many the program has done.
func (w *working) rounds() int {
	w.Helper()
	text, err := os.ReadFile(w.path("progress"))
	if err != nil && !os.IsNotExist(err) {
		w.Fatal(err)
	}
	return strings.Count(string(text), "\n")
}

// proceeds waits until the program has done two more rounds, so that it is in
// the midst of a third.
func (w *working) proceeds() {
	w.Helper()
	enough := w.rounds() + 2
	w.until("the program works", func() bool {
		if w.ended() {
			w.Fatalf("%v: %s", w.cmd.Args, w.cmd.ProcessState)
		}
		return w.rounds() >= enough
	})
}

// finish has the program judge itself.
func (w *working) finish() {
	w.Helper()
	w.proceeds()
	w.write(w.path("finish"), "")
	w.ends("exit status 0")
}

// comeBack saves the process pid, which is or belongs to the job that runs it,
// and makes it again of the image. It returns the job that runs it then, and
// its process id.
func (e *env) comeBack(n int, j *job, pid int, save, restart []string) (*job, int) {
	e.Helper()
	image := e.nth("img", n)
	e.start(streams{}, slices.Concat([]string{e.crshim, "checkpoint", "--kill", strconv.Itoa(pid), "-o", image}, save)...).ends("exit status 0")
	j.ends("signal: killed")
	e.buriedAll(image)
	return e.restartTool(n, restart)
}

// savedProcess is what inspect shows of each process of a tree.
var savedProcess = regexp.MustCompile(`(?m)^PROCESS VPID=(\d+)`)

// buriedAll waits until nothing is left of the children that were saved and
// killed: their numbers are free then.
func (e *env) buriedAll(image string) {
	e.Helper()
	out, err := exec.Command(e.crshim, "inspect", image).Output()
	if err != nil {
		e.Fatal(err)
	}
	var children []process
	for _, m := range savedProcess.FindAllSubmatch(out, -1) {
		pid, err := strconv.Atoi(string(m[1]))
		if err != nil {
			e.Fatal(err)
		}
		children = append(children, process{pid: pid})
	}
	if len(children) > 0 {
		e.buried(children[1:])
	}
}

// restartTool makes the process of the n-th image.
func (e *env) restartTool(n int, options []string) (*job, int) {
	e.Helper()
	pidfile := e.nth("log.pid", n)
	j := e.start(streams{}, slices.Concat([]string{e.crshim, "restart", "--pidfile", pidfile}, options, []string{e.nth("img", n)})...)
	return j, e.pidIn(j, pidfile)
}

func (e *env) pidIn(j *job, pidfile string) (pid int) {
	e.Helper()
	e.until("the process is back", func() bool {
		if j.ended() {
			e.Fatalf("%v: %s\n%s", j.cmd.Args, j.cmd.ProcessState, j.output())
		}
		text, err := os.ReadFile(pidfile)
		if err != nil || !strings.HasSuffix(string(text), "\n") {
			return false
		}
		pid, err = strconv.Atoi(strings.TrimSpace(string(text)))
		return err == nil && untraced(pid)
	})
	return pid
}

// throughCycles takes the program through its cycles by the tool.
func (w *working) throughCycles(restart ...string) {
	w.Helper()
	for n := 1; n <= cycles; n++ {
		w.proceeds()
		w.job, w.pid = w.comeBack(n, w.job, w.pid, nil, restart)
	}
	w.finish()
}

// throughOwnCycles tells the program to save itself, as the calls have it.
func (w *working) throughOwnCycles() {
	w.Helper()
	for n := 1; n <= cycles; n++ {
		w.proceeds()
		w.write(w.nth("save", n), "")
		w.ends("exit status 0")
		w.job = w.start(streams{}, w.crshim, "run", w.crshim, "restart", w.nth("img", n))
	}
	w.finish()
}

// throughNamespace makes the program once more in a user and a pid namespace of
// its own, where an ordinary user may choose process ids.
func (w *working) throughNamespace() {
	w.Helper()
	unshare := []string{"unshare", "--user", "--map-current-user", "--keep-caps", "--pid", "--fork", "--mount-proc"}
	if j := w.start(streams{}, append(unshare, "true")...); j.end() != "exit status 0" {
		w.Skip("needs: user namespaces:", j.output())
	}
	w.proceeds()
	image := w.nth("img", 1)
	w.start(streams{}, w.crshim, "checkpoint", "--kill", strconv.Itoa(w.pid), "-o", image).ends("exit status 0")
	w.ends("signal: killed")
	w.buriedAll(image)
	w.job = w.start(streams{}, append(unshare, w.crshim, "restart", "--pids", "keep", image)...)
	w.finish()
}

// TestPrograms takes programs of the distribution, each with some work of its
// own, through checkpoint, kill and restart in the midst of it.
func TestPrograms(t *testing.T) {
	for _, p := range []struct {
		name      string
		command   func(t *testing.T) (script string, args []string)
		self      bool // it can call checkpoint()
		numbers   bool // it relies on its process or thread ids, which only privilege may choose
		contained bool // it is run in a container also without -every-way
	}{
		{name: "python", self: true, command: func(t *testing.T) (string, []string) {
			return "python.py", []string{installed(t, "python3"), "python.py", "threads"}
		}},
		// The event loop looks whether it runs in the process that it was made in, by number.
		{name: "asyncio", numbers: true, command: func(t *testing.T) (string, []string) {
			return "python.py", []string{installed(t, "python3"), "python.py", "asyncio"}
		}},
		// A mutex that a thread may take again knows its owner by number, and SQLite holds one nearly always.
		{name: "sqlite", numbers: true, command: func(t *testing.T) (string, []string) {
			return "sqlite.py", []string{installed(t, "python3"), "sqlite.py"}
		}},
		{name: "perl", command: func(t *testing.T) (string, []string) {
			return "perl.pl", []string{installed(t, "perl"), "perl.pl"}
		}},
		{name: "bash", command: func(t *testing.T) (string, []string) {
			return "bash.sh", []string{installed(t, "bash"), "bash.sh"}
		}},
		// So does V8 when it starts work in the background.
		{name: "node", numbers: true, command: func(t *testing.T) (string, []string) {
			return "node.js", []string{installed(t, "node"), "node.js"}
		}},
		{name: "java", command: func(t *testing.T) (string, []string) {
			return "", []string{installed(t, "java"), "-Xmx200m", "-cp", javaClasses(t), "Work"}
		}},
		// Who has children knows them by number.
		{name: "bash-jobs", numbers: true, command: func(t *testing.T) (string, []string) {
			return "jobs.sh", []string{installed(t, "bash"), "jobs.sh"}
		}},
		{name: "make", numbers: true, command: func(t *testing.T) (string, []string) {
			installed(t, "make")
			return "make.sh", []string{installed(t, "sh"), "make.sh"}
		}},
		{name: "multiprocessing", numbers: true, contained: true, command: func(t *testing.T) (string, []string) {
			return "multi.py", []string{installed(t, "python3"), "multi.py"}
		}},
		{name: "perl-fork", numbers: true, command: func(t *testing.T) (string, []string) {
			return "fork.pl", []string{installed(t, "perl"), "fork.pl"}
		}},
		{name: "node-cluster", numbers: true, command: func(t *testing.T) (string, []string) {
			return "cluster.js", []string{installed(t, "node"), "cluster.js"}
		}},
		{name: "java-children", numbers: true, command: func(t *testing.T) (string, []string) {
			return "", []string{installed(t, "java"), "-Xmx100m", "-cp", javaClasses(t), "Children"}
		}},
		{name: "go", self: true, command: func(t *testing.T) (string, []string) {
			return "", []string{goProgram(t)}
		}},
	} {
		t.Run(p.name, func(t *testing.T) {
			script, args := p.command(t)
			for _, u := range users() {
				t.Run("external/"+u.name, func(t *testing.T) {
					t.Parallel()
					switch w := startWorking(t, u, script, args...); {
					case !p.numbers:
						w.throughCycles()
					case u.id == 0:
						w.throughCycles("--pids", "keep")
					default:
						w.throughNamespace()
					}
				})
				if *everyWay || p.contained && u.id != 0 {
					t.Run("container/"+u.name, func(t *testing.T) {
						t.Parallel()
						startContained(t, u, nil, script, args...).throughContainers()
					})
				}
				if !p.self || p.numbers {
					continue
				}
				t.Run("self/"+u.name, func(t *testing.T) {
					t.Parallel()
					bin, err := crshimBinary()
					if err != nil {
						t.Fatal(err)
					}
					startWorking(t, u, script, slices.Concat([]string{bin, "run"}, args, []string{"img"})...).throughOwnCycles()
				})
			}
		})
	}
}

// javaClasses compiles programs/*.java and returns where the classes are.
func javaClasses(t *testing.T) string {
	t.Helper()
	javac := installed(t, "javac")
	dir := filepath.Join(work, "bin", "java")
	if err := buildOnce(dir, func() error {
		return command(".", javac, "-d", dir, filepath.Join("programs", "Work.java"), filepath.Join("programs", "Children.java"))
	}); err != nil {
		t.Fatal(err)
	}
	return dir
}

// goProgram builds programs/golang.
func goProgram(t *testing.T) string {
	t.Helper()
	out := filepath.Join(work, "bin", "golang")
	if err := buildOnce(out, func() error { return command(".", "go", "build", "-o", out, "./programs/golang") }); err != nil {
		t.Fatal(err)
	}
	return out
}

// buildOnce does what makes the file or directory out.
func buildOnce(out string, build func() error) error {
	once, _ := built.LoadOrStore(out, sync.OnceValue(build))
	return once.(func() error)()
}
