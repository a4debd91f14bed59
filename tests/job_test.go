package tests

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// user is who runs the programs of a test.
type user struct {
	name string
	id   int
}

// users are those that this run of the tests can be.
func users() []user {
	if os.Getuid() != 0 {
		return []user{{"user", os.Getuid()}}
	}
	return []user{{"root", 0}, {"user", 65534}}
}

// env is where one test runs: a directory, a user, a time limit.
type env struct {
	testing.TB
	dir      string
	crshim   string // the binary
	user     user
	deadline time.Time
	jobs     []*job
	logged   int
}

// timeLimit is for one test; a hang fails with what was going on.
const timeLimit = 90 * time.Second

func newEnv(t testing.TB, u user) *env {
	t.Helper()
	bin, err := crshimBinary()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp(filepath.Join(work, "run"), "")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(dir, u.id, u.id); err != nil {
		t.Fatal(err)
	}
	e := &env{TB: t, dir: dir, crshim: bin, user: u, deadline: time.Now().Add(timeLimit)}
	t.Cleanup(e.clean)
	return e
}

// clean ends what the test started and shows what it said if the test failed.
func (e *env) clean() {
	for _, j := range slices.Backward(e.jobs) {
		j.killTree()
		<-j.done
	}
	if e.Failed() {
		e.endStrays()
		logs, err := filepath.Glob(e.path("log.*"))
		if err != nil {
			e.Error(err)
		}
		for _, name := range append(logs, e.path("result")) {
			if text, err := os.ReadFile(name); err == nil && len(text) > 0 {
				e.Logf("%s:\n%s", filepath.Base(name), text)
			}
		}
		e.verifyImages()
	}
	if err := os.RemoveAll(e.dir); err != nil {
		e.Error(err)
	}
}

// endStrays ends what has come away from the jobs of a failed test: processes whose
// parents have ended. A test that passes leaves none, or the run fails.
func (e *env) endStrays() {
	for range 100 { // one that is killed may just have made another
		found := false
		for _, p := range descendants(os.Getpid()) {
			cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", p.pid))
			if err != nil || p.state == "Z" {
				continue // gone
			}
			environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", p.pid))
			if err == nil && (cwd == e.dir || strings.HasPrefix(cwd, e.dir+"/") || bytes.Contains(environ, []byte(e.dir))) {
				found = true
				_ = unix.Kill(p.pid, unix.SIGKILL) // gone already is as good
			}
		}
		if !found {
			return
		}
		time.Sleep(2 * time.Millisecond)
	}
	e.Errorf("processes in %s do not end", e.dir)
}

// verifyImages says of each image that a failed test has made whether it is
// whole: was it written wrong, or read wrong?
func (e *env) verifyImages() {
	images, err := filepath.Glob(e.path("img*"))
	if err != nil {
		e.Error(err)
	}
	for _, image := range images {
		if out, err := exec.Command(e.crshim, "verify", image).CombinedOutput(); err != nil {
			e.Logf("crshim verify %s: %v\n%s", filepath.Base(image), err, out)
		}
	}
}

func (e *env) path(name string) string { return filepath.Join(e.dir, name) }

func (e *env) nth(name string, n int) string { return e.path(fmt.Sprintf("%s.%d", name, n)) }

// create makes a file that belongs to the test's user.
func (e *env) create(path string, flags int) *os.File {
	e.Helper()
	f, err := os.OpenFile(path, flags|os.O_CREATE, 0o600)
	if err != nil {
		e.Fatal(err)
	}
	if err := f.Chown(e.user.id, e.user.id); err != nil {
		e.Fatal(err)
	}
	return f
}

func (e *env) write(path, text string) {
	e.Helper()
	f := e.create(path, os.O_WRONLY|os.O_TRUNC)
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		e.Fatal(err)
	}
}

func (e *env) read(path string) string {
	e.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		e.Fatal(err)
	}
	return string(text)
}

func (e *env) remove(path string) {
	e.Helper()
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		e.Fatal(err)
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// job is a program that runs, with the files that are its standard streams.
type job struct {
	*env
	cmd  *exec.Cmd
	log  string // where its standard error goes, and its output if not asked for
	done chan struct{}
}

// streams are files: a pipe would be a thing to save. A nil In is /dev/null,
// a nil Out the job's log.
type streams struct {
	In, Out *os.File
}

// start runs a command as the test's user, in the test's directory.
func (e *env) start(s streams, args ...string) *job {
	e.Helper()
	e.logged++
	j := &job{env: e, log: e.nth("log", e.logged), done: make(chan struct{})}
	log := e.create(j.log, os.O_WRONLY|os.O_APPEND)
	defer log.Close()
	j.cmd = exec.Command(args[0], args[1:]...)
	j.cmd.Dir = e.dir
	j.cmd.Stdout, j.cmd.Stderr = log, log
	if s.In != nil {
		j.cmd.Stdin = s.In
	}
	if s.Out != nil {
		j.cmd.Stdout = s.Out
	}
	if e.user.id != os.Getuid() {
		id := uint32(e.user.id)
		j.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: id, Gid: id}}
	}
	if err := j.cmd.Start(); err != nil {
		e.Fatal(err)
	}
	e.jobs = append(e.jobs, j)
	go func() {
		_ = j.cmd.Wait() // how it ended is in ProcessState
		close(j.done)
	}()
	return j
}

func (j *job) pid() int { return j.cmd.Process.Pid }

func (j *job) ended() bool {
	select {
	case <-j.done:
		return true
	default:
		return false
	}
}

// end waits for the job and returns how it ended: "exit status 0" and so on.
func (j *job) end() string {
	j.Helper()
	select {
	case <-j.done:
	case <-time.After(time.Until(j.deadline)):
		tree := fmt.Sprint(descendants(j.pid()))
		j.killTree()
		j.Fatalf("%v does not end; below it: %s", j.cmd.Args, tree)
	}
	return j.cmd.ProcessState.String()
}

// ends fails unless the job ends like this.
func (j *job) ends(want string) {
	j.Helper()
	if got := j.end(); got != want {
		j.Fatalf("%v: %s, want %s", j.cmd.Args, got, want)
	}
}

// output is what the job has written to its log.
func (j *job) output() string {
	return j.read(j.log)
}

// killTree ends the job and everything below it, by pid.
func (j *job) killTree() {
	if j.ended() {
		return
	}
	// From the top, or those above would complain about those below.
	for _, p := range append([]process{{pid: j.pid()}}, descendants(j.pid())...) {
		_ = unix.Kill(p.pid, unix.SIGKILL) // gone already is as good
	}
}

// until polls a condition; the time limit of the test bounds it.
func (e *env) until(what string, ready func() bool) {
	e.Helper()
	for !ready() {
		if time.Now().After(e.deadline) {
			e.Fatalf("time limit: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// process is one line of what ps would show.
type process struct {
	pid, ppid   int
	comm, state string
}

// lookup reads /proc/PID/stat; ok is false if there is no such process.
func lookup(pid int) (p process, ok bool) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return p, false
	}
	open, end := bytes.IndexByte(text, '('), bytes.LastIndexByte(text, ')')
	fields := strings.Fields(string(text[end+1:]))
	p = process{pid: pid, comm: string(text[open+1 : end]), state: fields[0]}
	p.ppid, err = strconv.Atoi(fields[1])
	return p, err == nil
}

// descendants lists the processes below pid.
func descendants(pid int) []process {
	var all []process
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		panic(err) // a pattern of ours
	}
	for _, name := range tasks {
		text, err := os.ReadFile(name)
		if err != nil {
			continue // the thread has ended
		}
		for _, word := range strings.Fields(string(text)) {
			child, err := strconv.Atoi(word)
			if err != nil {
				panic(err) // not what the kernel writes
			}
			if p, ok := lookup(child); ok {
				all = append(append(all, p), descendants(child)...)
			}
		}
	}
	return all
}

// reapOrphans collects children that were not started by us: zombies whose
// own parents have ended.
func reapOrphans() {
	for _, p := range descendants(os.Getpid()) {
		if p.ppid == os.Getpid() && p.state == "Z" {
			_, _ = unix.Wait4(p.pid, nil, unix.WNOHANG, nil)
		}
	}
}

// sleeping says whether a process rests, untraced, in a system call.
func sleeping(pid int) bool {
	p, ok := lookup(pid)
	return ok && p.state == "S" && untraced(pid)
}

// untraced says whether a process runs with nobody attached to it.
func untraced(pid int) bool {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	return err == nil && bytes.Contains(status, []byte("\nTracerPid:\t0\n"))
}
