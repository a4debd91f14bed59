package shim

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/tracer/procfs"
)

// bench is where programs are saved and restarted: a directory, and the user who does it.
type bench struct {
	t    *testing.T
	dir  string
	cred *syscall.Credential // nil for our own
}

func newBench(t *testing.T) *bench {
	t.Helper()
	// Others may not look into t.TempDir().
	dir, err := os.MkdirTemp(testProgram(t, ""), "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return &bench{t: t, dir: dir}
}

// newBenches has one for each user that we can be.
func newBenches(t *testing.T, test func(b *bench)) {
	t.Run("own user", func(t *testing.T) { t.Parallel(); test(newBench(t)) })
	t.Run("uid 65534", func(t *testing.T) {
		t.Parallel()
		if os.Getuid() != 0 {
			t.Skip("needs: CAP_SETUID")
		}
		b := newBench(t)
		b.cred = &syscall.Credential{Uid: 65534, Gid: 65534}
		if err := os.Chown(b.dir, 65534, 65534); err != nil {
			t.Fatal(err)
		}
		test(b)
	})
}

func (b *bench) path(name string) string { return filepath.Join(b.dir, name) }

// create opens a file for output, for appending.
func (b *bench) create(name string) *os.File {
	b.t.Helper()
	f, err := os.OpenFile(b.path(name), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = f.Close() })
	if b.cred != nil {
		if err := f.Chown(int(b.cred.Uid), int(b.cred.Gid)); err != nil {
			b.t.Fatal(err)
		}
	}
	return f
}

func (b *bench) read(name string) string {
	b.t.Helper()
	text, err := os.ReadFile(b.path(name))
	if err != nil {
		b.t.Fatal(err)
	}
	return string(text)
}

// crshim is a command line of the program under test, for the user. Its output is the file log.
func (b *bench) crshim(args ...string) *exec.Cmd {
	b.t.Helper()
	cmd := exec.Command(testProgram(b.t, "crshim.test"), args...)
	cmd.Env = append(os.Environ(), mainEnv)
	return b.prepare(cmd, "log")
}

// program runs testdata/saved.c without crshim. Its output is the file out.
func (b *bench) program(args ...string) *exec.Cmd {
	b.t.Helper()
	return b.prepare(exec.Command(testProgram(b.t, "saved"), args...), "out")
}

func (b *bench) prepare(cmd *exec.Cmd, output string) *exec.Cmd {
	b.t.Helper()
	out := b.create(output)
	cmd.Dir, cmd.Stdout, cmd.Stderr = b.dir, out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: b.cred}
	return cmd
}

// start starts cmd, which will not outlive the test.
func (b *bench) start(cmd *exec.Cmd) *exec.Cmd {
	b.t.Helper()
	if err := cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		if cmd.ProcessState == nil {
			// A program goes on when its front is killed.
			for _, pid := range descendants(cmd.Process.Pid) {
				_ = unix.Kill(pid, unix.SIGKILL)
			}
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
	return cmd
}

func descendants(pid int) (pids []int) {
	p, err := procfs.Open(procfs.PID(pid))
	if err != nil {
		return nil
	}
	defer p.Close()
	children, err := p.Children()
	if err != nil {
		return nil
	}
	for _, child := range children {
		pids = append(append(pids, descendants(int(child))...), int(child))
	}
	return pids
}

// end waits for cmd and returns its exit status, or -signal.
func (b *bench) end(cmd *exec.Cmd) int {
	b.t.Helper()
	timer := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
	_ = cmd.Wait()
	if !timer.Stop() {
		b.t.Errorf("%s has not ended", cmd)
	}
	status := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if status.Signaled() {
		return -int(status.Signal())
	}
	return status.ExitStatus()
}

// output runs cmd with pipes as its output and waits until nobody holds them any more.
func (b *bench) output(cmd *exec.Cmd) (status int, stdout, stderr string) {
	b.t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	status = b.end(b.start(cmd))
	return status, out.String(), errs.String()
}

// await waits until a file matches, and returns the groups.
func (b *bench) await(name, pattern string) []string {
	b.t.Helper()
	re := regexp.MustCompile(pattern)
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		text, err := os.ReadFile(b.path(name))
		if err != nil {
			continue
		}
		if m := re.FindStringSubmatch(string(text)); m != nil {
			return m
		}
	}
	log, _ := os.ReadFile(b.path("log"))
	b.t.Fatalf("%s is %q, want %s; log %q", name, b.read(name), pattern, log)
	return nil
}

// more waits until the program that ticks has printed some more, and returns how far it is.
func (b *bench) more() int {
	b.t.Helper()
	lines := func() int { return strings.Count(b.read("out"), "\n") }
	from := lines()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if now := lines(); now > from+5 {
			return now
		}
	}
	log, _ := os.ReadFile(b.path("log"))
	b.t.Fatalf("the program does not tick; log %q", log)
	return 0
}

// save saves a process and ends it.
func (b *bench) save(pid int, flags ...string) {
	b.t.Helper()
	args := append([]string{"checkpoint", "-o", "img", strconv.Itoa(pid)}, flags...)
	if status := b.end(b.start(b.crshim(args...))); status != 0 {
		b.t.Fatalf("crshim %q: status %d: %s", args, status, b.read("log"))
	}
}

// ticking is an image of a program that ticks, and has ended since.
func (b *bench) ticking() (pid int) {
	b.t.Helper()
	cmd := b.start(b.program("tick"))
	b.await("out", "5\n")
	b.save(cmd.Process.Pid, "--kill")
	b.end(cmd)
	return cmd.Process.Pid
}

// processes returns what is behind a front: its stages, and the program.
func (b *bench) processes(front *exec.Cmd) (stages []int, program int) {
	b.t.Helper()
	pids := descendants(front.Process.Pid) // the deepest first
	if len(pids) == 0 {
		b.t.Fatalf("the front has no children; log %s", b.read("log"))
	}
	return pids[1:], pids[0]
}

// stagesOf returns the stages above a program.
func stagesOf(t *testing.T, program int) (stages []int) {
	t.Helper()
	for pid := parentOf(t, program); ; pid = parentOf(t, pid) {
		comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		if err != nil {
			t.Fatal(err)
		}
		if string(comm) != commOfStages+"\n" {
			return stages
		}
		stages = append(stages, pid)
	}
}

// running finds the one program that runs in the directory.
func (b *bench) running() int {
	b.t.Helper()
	links, err := filepath.Glob("/proc/[0-9]*/cwd")
	if err != nil {
		b.t.Fatal(err)
	}
	found := 0
	for _, link := range links {
		// The other process there is the front.
		pid := filepath.Dir(link)
		comm, err := os.ReadFile(filepath.Join(pid, "comm"))
		if dir, linkErr := os.Readlink(link); err == nil && linkErr == nil && dir == b.dir && string(comm) == "saved\n" {
			found = number(b.t, filepath.Base(pid))
		}
	}
	if found == 0 {
		b.t.Fatal("no program runs")
	}
	return found
}

// adopt makes sure that a process which is not our child does not outlive the test.
func (b *bench) adopt(pid int) {
	b.t.Helper()
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		_ = unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0)
		_ = unix.Close(pidfd)
	})
}

// status is a line of /proc/PID/status.
func (b *bench) status(pid int, name string) string {
	b.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		b.t.Fatal(err)
	}
	m := regexp.MustCompile(`\n` + name + `:\t(.*)\n`).FindSubmatch(text)
	if m == nil {
		b.t.Fatalf("no %s in %s", name, text)
	}
	return string(m[1])
}
