package shim

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/tracer/procfs"
)

// mainEnv makes the test binary be crshim, so that what the tests run is what they were compiled with.
const mainEnv = "CRSHIM_TEST_MAIN=1"

func TestMain(m *testing.M) {
	runStage()
	if os.Getenv("CRSHIM_TEST_MAIN") != "" {
		_ = os.Unsetenv("CRSHIM_TEST_MAIN") // not for CMD
		os.Exit(Main())
	}
	// Under the race detector every process would sleep for a second at its end.
	if err := os.Setenv("GORACE", "atexit_sleep_ms=0"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	// What the caller of the tests has left open is none of theirs; a checkpoint would refuse it.
	if err := unix.CloseRange(3, 1<<20, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	status := m.Run()
	if buildDir != "" {
		_ = os.RemoveAll(buildDir)
	}
	os.Exit(status)
}

// patience is how long a test waits for what must happen.
const patience = 30 * time.Second

var (
	buildDir      string
	buildPrograms = sync.OnceValues(func() (string, error) {
		dir, err := os.MkdirTemp("", "crshim-test-")
		if err != nil {
			return "", err
		}
		buildDir = dir
		for _, name := range []string{"caller", "saved"} {
			out, err := exec.Command("cc", "-Wall", "-Wextra", "-Werror", "-Iinclude", "-o", filepath.Join(dir, name), "testdata/"+name+".c").CombinedOutput()
			if err != nil {
				return "", fmt.Errorf("cc: %w\n%s", err, out)
			}
		}
		// The test binary itself lies where only its owner may look.
		binary, err := os.ReadFile("/proc/self/exe")
		if err != nil {
			return "", err
		}
		return dir, errors.Join(os.WriteFile(filepath.Join(dir, "crshim.test"), binary, 0o755), os.Chmod(dir, 0o755))
	})
)

// testProgram is a program that every user may run: testdata/caller.c or saved.c, compiled, or the test binary as crshim.test.
func testProgram(t *testing.T, name string) string {
	t.Helper()
	dir, err := buildPrograms()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, name)
}

func callerProgram(t *testing.T) string {
	t.Helper()
	return testProgram(t, "caller")
}

// crshim is a command line of the program under test.
func crshim(args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), mainEnv)
	return cmd
}

// job is a running `crshim run`. Its parent is this test, which sees its stops.
type job struct {
	t      *testing.T
	cmd    *exec.Cmd
	lines  chan string
	stderr lockedBuffer
}

// startJob starts cmd with its output as a channel of lines.
func startJob(t *testing.T, cmd *exec.Cmd) *job {
	t.Helper()
	j := &job{t: t, cmd: cmd, lines: make(chan string, 1000)}
	cmd.Stderr = &j.stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(j.lines)
		for scanner := bufio.NewScanner(out); scanner.Scan(); {
			j.lines <- scanner.Text()
		}
	}()
	return j
}

// line returns the next line of output.
func (j *job) line() string {
	j.t.Helper()
	select {
	case line, ok := <-j.lines:
		if !ok {
			j.t.Fatalf("no more output; standard error: %s", j.stderr.String())
		}
		return line
	case <-time.After(patience):
		j.t.Fatalf("no output; standard error: %s", j.stderr.String())
	}
	return ""
}

// rest returns all output that is still to come.
func (j *job) rest() []string {
	j.t.Helper()
	var lines []string
	for {
		select {
		case line, ok := <-j.lines:
			if !ok {
				return lines
			}
			lines = append(lines, line)
		case <-time.After(patience):
			j.t.Fatal("the output has no end")
		}
	}
}

func (j *job) pid() int { return j.cmd.Process.Pid }

// wait returns the next change of state of the front.
func (j *job) wait() unix.WaitStatus {
	j.t.Helper()
	done := make(chan unix.WaitStatus, 1)
	go func() {
		var status unix.WaitStatus
		for {
			_, err := unix.Wait4(j.pid(), &status, unix.WUNTRACED|unix.WCONTINUED, nil)
			if err != unix.EINTR {
				done <- status
				return
			}
		}
	}()
	select {
	case status := <-done:
		return status
	case <-time.After(patience):
		j.t.Fatalf("pid %d does not change state", j.pid())
	}
	return 0
}

// children returns the stages and CMD: supervisor, parent, CMD.
func (j *job) processes() (supervisor, parent, command int) {
	j.t.Helper()
	pid := j.pid()
	var chain []int
	for range 3 {
		pid = j.onlyChild(pid)
		chain = append(chain, pid)
	}
	return chain[0], chain[1], chain[2]
}

func (j *job) onlyChild(pid int) int {
	j.t.Helper()
	p, err := procfs.Open(procfs.PID(pid))
	if err != nil {
		j.t.Fatal(err)
	}
	defer p.Close()
	children, err := p.Children()
	if err != nil || len(children) != 1 {
		j.t.Fatalf("children of %d: %v, %v; want one", pid, children, err)
	}
	return int(children[0])
}

// awaitEnd waits until a process that is not our child has ended.
func awaitEnd(t *testing.T, pid int) {
	t.Helper()
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err == unix.ESRCH {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pidfd)
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, int(patience.Milliseconds()))
	for err == unix.EINTR {
		n, err = unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, int(patience.Milliseconds()))
	}
	if err != nil || n != 1 {
		t.Errorf("pid %d has not ended (%v)", pid, err)
	}
}

// kill signals a process that the test started.
func kill(t *testing.T, pid int, sig syscall.Signal) {
	t.Helper()
	if err := unix.Kill(pid, sig); err != nil {
		t.Fatalf("signal %d: %v", pid, err)
	}
}

// awaitState waits until the state letter of pid in /proc is as wanted.
func awaitState(t *testing.T, pid int, want byte) {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		p, err := procfs.Open(procfs.PID(pid))
		if err != nil {
			t.Fatal(err)
		}
		stat, err := p.Stat()
		_ = p.Close()
		if err == nil && stat.State == want {
			return
		}
	}
	t.Fatalf("pid %d is not in state %c", pid, want)
}

// lockedBuffer is a buffer that is read while it is written.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// number reads a decimal line.
func number(t *testing.T, line string) int {
	t.Helper()
	n, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	return n
}
