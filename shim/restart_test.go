package shim

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
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

// TestRestartCycles saves, kills and restarts one program several times; it counts on where it was, and ends by its own status.
func TestRestartCycles(t *testing.T) {
	t.Parallel()
	newBenches(t, func(b *bench) {
		b.ticking()
		for range 3 {
			front := b.start(b.crshim("restart", "img"))
			b.more()
			stages, command := b.processes(front)
			if len(stages) != 1 {
				b.t.Errorf("%d stages where no calls are to be served, want one", len(stages))
			}
			if got := b.status(command, "Seccomp") + b.status(command, "NoNewPrivs"); got != "00" {
				b.t.Errorf("Seccomp and NoNewPrivs are %s, want none of them", got)
			}
			b.save(command, "--kill")
			if status := b.end(front); status != -int(unix.SIGKILL) {
				b.t.Fatalf("status %d, want death by SIGKILL", status)
			}
			for _, pid := range stages {
				if unix.Kill(pid, 0) != unix.ESRCH {
					b.t.Errorf("a stage outlives the front")
				}
			}
		}
		front := b.start(b.crshim("rs", "img"))
		b.more()
		kill(b.t, front.Process.Pid, unix.SIGUSR1)
		if status := b.end(front); status != 7 {
			b.t.Errorf("status %d, want 7", status)
		}
		for i, line := range strings.Fields(b.read("out")) {
			// Between the image and its end the program went on, and that part it does again.
			n := number(b.t, line)
			if n > i {
				b.t.Fatalf("line %d is %d: numbers are missing", i, n)
			}
		}
		if log := b.read("log"); strings.Contains(strings.ReplaceAll(log, "checkpoint id 1\n", ""), "CR") {
			b.t.Errorf("log: %s", log)
		}
	})
}

// TestRestartSignals ends restarted programs by signals.
func TestRestartSignals(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.ticking()
	for _, test := range []struct {
		sig    syscall.Signal
		status int
	}{{unix.SIGTERM, -15}, {unix.SIGHUP, -1}, {unix.SIGUSR1, 7}, {unix.SIGQUIT, -3}} {
		front := b.start(b.crshim("restart", "img"))
		b.more()
		kill(t, front.Process.Pid, test.sig)
		if status := b.end(front); status != test.status {
			t.Errorf("%v to the front: status %d, want %d", test.sig, status, test.status)
		}
	}
	front := b.start(b.crshim("restart", "img"))
	b.more()
	_, command := b.processes(front)
	kill(t, command, unix.SIGKILL)
	if status := b.end(front); status != -9 {
		t.Errorf("SIGKILL to the program: status %d", status)
	}
}

// TestRestartDetach leaves the program to itself: no reader of crshim's output waits for it.
func TestRestartDetach(t *testing.T) {
	t.Parallel()
	newBenches(t, func(b *bench) {
		b.ticking()
		cmd := b.crshim("restart", "--detach", "--pidfile", "pidfile", "img")
		status, out, errs := b.output(cmd)
		if status != 0 {
			b.t.Fatalf("status %d: %s", status, errs)
		}
		pid := number(b.t, out)
		b.adopt(pid)
		if text := b.read("pidfile"); text != out {
			b.t.Errorf("pidfile %q, want %q", text, out)
		}
		b.more()
		stages := stagesOf(b.t, pid)
		if len(stages) != 1 {
			b.t.Errorf("%d stages, want one", len(stages))
		}
		if sid, err := unix.Getsid(pid); err != nil || sid != pid {
			b.t.Errorf("session %d (%v), want its own, %d", sid, err, pid)
		}
		kill(b.t, pid, unix.SIGUSR1)
		for _, pid := range append(stages, pid) {
			awaitEnd(b.t, pid)
		}
		names, err := filepath.Glob(b.path(".*"))
		if err != nil || len(names) > 0 {
			b.t.Errorf("left behind: %v, %v", names, err)
		}
	})
}

// TestRestartPIDs asks for process ids that are free, taken and not permitted.
func TestRestartPIDs(t *testing.T) {
	t.Parallel()
	newBenches(t, func(b *bench) {
		cmd := b.start(b.program("tick"))
		b.await("out", "5\n")
		original := cmd.Process.Pid
		b.save(original)
		root := b.cred == nil && os.Getuid() == 0
		restart := func(pids string) (pid, status int, text string) {
			cmd := b.crshim("restart", "-d", "--pids", pids, "img")
			status, out, errs := b.output(cmd)
			if status != 0 {
				return 0, status, errs
			}
			pid = number(b.t, out)
			b.adopt(pid)
			parent := parentOf(b.t, pid)
			kill(b.t, pid, unix.SIGKILL)
			awaitEnd(b.t, parent)
			return pid, 0, ""
		}
		refused := "CR2202 cannot take pid " + strconv.Itoa(original)
		if root {
			refused = "CR2201 cannot take pid " + strconv.Itoa(original)
		}
		if pid, status, text := restart("keep"); status != statusSelf || !strings.Contains(text, refused) || !strings.Contains(text, "try: ") {
			b.t.Errorf("keep, taken: pid %d, status %d, %q", pid, status, text)
		}
		for _, pids := range []string{"auto", "new"} {
			if pid, status, text := restart(pids); status != 0 || pid == original {
				b.t.Errorf("%s, taken: pid %d, status %d, %q", pids, pid, status, text)
			}
		}
		kill(b.t, original, unix.SIGKILL)
		b.end(cmd)
		for _, pids := range []string{"auto", "keep", "new"} {
			pid, status, text := restart(pids)
			switch {
			case pids == "keep" && !root:
				if status != statusSelf || !strings.Contains(text, refused) {
					b.t.Errorf("keep, free: pid %d, status %d, %q", pid, status, text)
				}
			case status != 0:
				b.t.Errorf("%s, free: status %d, %q", pids, status, text)
			case root && (pid == original) != (pids != "new"):
				b.t.Errorf("%s, free: pid %d, original %d", pids, pid, original)
			}
		}
	})
	b := newBench(t)
	if status := b.end(b.start(b.crshim("restart", "--pids", "odd", "img"))); status != statusSelf {
		t.Errorf("--pids odd: status %d", status)
	}
}

// TestRestartPipe reads the image from standard input, up to its end and no further. The program does not get that pipe.
func TestRestartPipe(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.ticking()
	pipe, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	defer writer.Close()
	cmd := b.crshim("restart", "-")
	cmd.Stdin = pipe
	front := b.start(cmd)
	image := b.read("img")
	if _, err := io.WriteString(writer, image+"behind it"); err != nil {
		t.Fatal(err)
	}
	b.more()
	_, command := b.processes(front)
	if name, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/0", command)); err != nil || name != os.DevNull {
		t.Errorf("standard input is %s, %v; the image says %s", name, err, os.DevNull)
	}
	rest := make([]byte, 100)
	if n, err := pipe.Read(rest); err != nil || string(rest[:n]) != "behind it" {
		t.Errorf("left in the pipe: %q, %v", rest[:n], err)
	}
	// Nobody but us holds the other end of the pipe.
	_ = pipe.Close()
	if _, err := writer.WriteString("more"); !errors.Is(err, unix.EPIPE) {
		t.Errorf("the pipe still has a reader: %v", err)
	}
	kill(t, front.Process.Pid, unix.SIGUSR1)
	if status := b.end(front); status != 7 {
		t.Errorf("status %d, want 7", status)
	}
}

// TestRestartStopped saves a program that somebody has stopped, as usage.txt of 2009 has it: it stays stopped, and what comes
// back runs.
func TestRestartStopped(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	cmd := b.start(b.program("tick"))
	b.await("out", "5\n")
	kill(t, cmd.Process.Pid, unix.SIGSTOP)
	awaitState(t, cmd.Process.Pid, 'T')
	b.save(cmd.Process.Pid)
	awaitState(t, cmd.Process.Pid, 'T')
	kill(t, cmd.Process.Pid, unix.SIGKILL)
	b.end(cmd)
	front := b.start(b.crshim("restart", "img"))
	b.more()
	kill(t, front.Process.Pid, unix.SIGUSR1)
	if status := b.end(front); status != 7 {
		t.Errorf("status %d, want 7", status)
	}
}

// TestRestartInterrupted ends a restart whose image does not go on to come.
func TestRestartInterrupted(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.ticking()
	image := b.read("img")
	for _, sig := range []syscall.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGHUP} {
		pipe, writer, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer writer.Close()
		cmd := b.crshim("restart", "-")
		cmd.Stdin = pipe
		front := b.start(cmd)
		if err := pipe.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := writer.WriteString(image[:len(image)-1]); err != nil {
			t.Fatal(err)
		}
		// With all but the last byte read, it waits for that, and a blank process with it.
		for n := 1; n > 0; time.Sleep(time.Millisecond) {
			if n, err = unix.IoctlGetInt(int(writer.Fd()), unix.TIOCINQ); err != nil {
				t.Fatal(err)
			}
		}
		stages, blank := b.processes(front)
		kill(t, front.Process.Pid, sig)
		if status := b.end(front); status != -int(sig) {
			t.Errorf("%v: status %d", sig, status)
		}
		for _, pid := range append(stages, blank) {
			awaitEnd(t, pid)
		}
	}
}

// TestRestartSelf restarts a program that has saved itself and saves itself again: the calls work as they did. It does so
// inside of another `crshim run` too, which then serves them.
func TestRestartSelf(t *testing.T) {
	t.Parallel()
	newBenches(t, func(b *bench) {
		run := func(args ...string) int {
			cmd := b.crshim(args...)
			cmd.Stdout = b.create("out")
			return b.end(b.start(cmd))
		}
		if status := run("run", testProgram(b.t, "saved"), "self", b.dir); status != 10 {
			b.t.Fatalf("status %d, want 10; log %s", status, b.read("log"))
		}
		for n := range 3 {
			if status := run("restart", strconv.Itoa(n)); status != 11+n {
				b.t.Fatalf("restart %d: status %d; log %s", n, status, b.read("log"))
			}
		}
		inner := testProgram(b.t, "crshim.test") + " restart 3"
		if status := run("run", "sh", "-c", mainEnv+" "+inner); status != 14 {
			b.t.Fatalf("restart inside of run: status %d; log %s", status, b.read("log"))
		}
		want := "0 saved\n0 back\n1 saved\n1 back\n2 saved\n2 back\n3 saved\n3 back\n4 saved\n"
		if got := b.read("out"); got != want {
			b.t.Errorf("output %q, want %q", got, want)
		}
	})
}

// TestRestartTrace has a program become one that sleeps: what the kernel is told for that is not a result.
func TestRestartTrace(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.ticking()
	front := b.start(b.crshim("run", "--trace", testProgram(t, "saved"), "become", "img"))
	b.more()
	b.await("log", `restart\(0, 3, 0\) = (\?|0) <`)
	kill(t, front.Process.Pid, unix.SIGUSR1)
	if status := b.end(front); status != 7 {
		t.Errorf("status %d, want 7", status)
	}
}

// TestRestartBad hands in what is no image of a process, or not for this place. Nothing is left behind: whoever holds
// standard error is gone when its reader sees the end.
func TestRestartBad(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.ticking()
	image := b.read("img")
	write := func(name, text string) string {
		if err := os.WriteFile(b.path(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	flipped := []byte(image)
	flipped[len(flipped)/2] ^= 1
	const missing = "img" // it was saved whole, but what it had open is gone
	for _, test := range []struct {
		args []string
		says string
	}{
		{[]string{"no such file"}, `crshim: CR2012 cannot read no such file: no such file or directory\nwhy: .*\ntry: .*\n`},
		{[]string{"."}, `crshim: CR2012 .*is a directory\n`},
		{[]string{"/dev/null"}, `crshim: CR2002 `},
		{[]string{write("empty", "")}, `crshim: CR2002 `},
		{[]string{write("text", strings.Repeat("not an image\n", 100))}, `crshim: CR2001 `},
		{[]string{write("head", image[:300])}, `crshim: CR2002 `},
		{[]string{write("half", image[:len(image)/2])}, `crshim: CR2002 `},
		{[]string{write("most", image[:len(image)-1])}, `crshim: CR2002 `},
		{[]string{write("flipped", string(flipped))}, `crshim: CR20\d\d `},
		{[]string{missing}, `crshim: CR2101 cannot open ` + regexp.QuoteMeta(b.path("out")) + `.*no such file or directory\n`},
		{[]string{"--pidfile", "/no/such/dir/pid", "img"}, `crshim: --pidfile: .*no such file or directory\n`},
		{[]string{"--trace=/no/such/dir/trace", "img"}, `/no/such/dir/trace`},
		{[]string{"--log-level", "loud", "img"}, `--log-level`},
		{[]string{}, `arg`},
	} {
		if slices.Equal(test.args, []string{missing}) {
			if err := os.Remove(b.path("out")); err != nil {
				t.Fatal(err)
			}
		}
		for _, flag := range []string{"--detach=false", "--detach"} {
			status, out, errs := b.output(b.crshim(append([]string{"restart", flag, "--pids", "auto"}, test.args...)...))
			if status != statusSelf || out != "" || !regexp.MustCompile(test.says).MatchString(errs) {
				t.Errorf("%s %q: status %d, %s %s; want %s", flag, test.args, status, out, errs, test.says)
			}
		}
	}
	names, err := filepath.Glob(b.path(".*"))
	if err != nil || len(names) > 0 {
		t.Errorf("left behind: %v, %v", names, err)
	}
}

// TestRestartKilled kills crshim after each phase of a restart. Up to the commit nothing is left; behind it the program runs.
// Nobody holds standard error any more then.
func TestRestartKilled(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.ticking()
	for _, phase := range []string{"receive", "decode", "catch", "stage", "commit", "record"} {
		before := b.read("out")
		cmd := b.crshim("restart", "img")
		cmd.Env = append(cmd.Env, dieAfterEnv+"="+phase)
		if status, _, errs := b.output(cmd); status != -int(unix.SIGKILL) {
			t.Errorf("killed after %s: status %d; %s", phase, status, errs)
		}
		if phase == "record" {
			b.more()
			pid := b.running()
			b.adopt(pid)
			stages := stagesOf(t, pid)
			kill(t, pid, unix.SIGUSR1)
			for _, pid := range append(stages, pid) {
				awaitEnd(t, pid)
			}
		} else if now := b.read("out"); now != before {
			t.Errorf("killed after %s: the program has run", phase)
		}
	}
}

// TestRestartSupervisorKilled kills the supervisor of a program whose calls are served. It goes on without them.
func TestRestartSupervisorKilled(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	cmd := b.crshim("run", testProgram(t, "saved"), "tick")
	cmd.Stdout = b.create("out")
	first := b.start(cmd)
	b.await("out", "5\n")
	_, program := b.processes(first)
	b.save(program, "--kill")
	b.end(first)

	front := b.start(b.crshim("restart", "img"))
	b.more()
	stages, program := b.processes(front)
	if len(stages) != 2 || b.status(program, "Seccomp") != "2" {
		t.Fatalf("%d stages and Seccomp %s, want 2 and 2", len(stages), b.status(program, "Seccomp"))
	}
	kill(t, program, unix.SIGUSR2)
	b.await("out", "errno 0\n")
	kill(t, stages[1], unix.SIGKILL)
	b.await("log", "CR5003")
	kill(t, program, unix.SIGUSR2)
	b.await("out", "errno 38\n")
	kill(t, front.Process.Pid, unix.SIGUSR1)
	if status := b.end(front); status != 7 {
		t.Errorf("status %d, want 7", status)
	}
	awaitEnd(t, stages[0])
}

// TestRestartTerminal restarts a program of one terminal at another: keys reach it, and a shell can stop and continue it.
func TestRestartTerminal(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	first := exec.Command(testProgram(t, "saved"), "echo")
	first.Dir = b.dir
	c := startConsole(t, first)
	c.expect("ready\r\n")
	c.typed("one\n")
	c.expect("got one\r\n")
	b.save(first.Process.Pid, "--kill")
	c.end()

	shell := exec.Command("bash", "--norc", "--noprofile", "-i")
	shell.Dir = b.dir
	c = startConsole(t, shell)
	c.expect("prompt> ")
	c.say(`"$CRSHIM" restart img`)
	c.awaitForeground("saved")
	c.typed("two\n")
	c.expect("got two\r\n")
	c.typed(ctrlZ)
	c.expect(`\[1\]\+  Stopped  `)
	c.expect("prompt> ")
	c.say("jobs -l")
	c.expect(`\d Stopped  `)
	c.say("fg")
	c.awaitForeground("saved")
	c.typed("three\n")
	c.expect("got three\r\n")
	c.typed(ctrlC)
	c.expect("prompt> ")
	c.say("echo status=$?")
	c.expect("status=130\r")

	// The image comes by a pipe: the terminal is that of standard output then.
	c.say(`cat img | "$CRSHIM" restart -`)
	c.awaitForeground("saved")
	c.typed("four\n")
	c.expect("got four\r\n")
	c.typed(ctrlD)
	c.expect("prompt> ")
	c.say("echo status=$?")
	c.expect("status=5\r")

	c.say(`"$CRSHIM" restart -`)
	c.expect("CR2012 cannot read -: it is a terminal")
	c.expect("prompt> ")

	// A substituted command ends with the restart, whatever the program does.
	c.say(`pid=$("$CRSHIM" restart -d img 2>&1); kill -9 $pid && echo killed it`)
	c.expect("killed it\r")
	c.expect("prompt> ")
	c.say("exit 3")
	if status := c.end(); status.ExitStatus() != 3 {
		t.Errorf("status %#x, want exit 3", status)
	}
}

// TestFailures checks that every blocker of a refusal comes through a socket, and is printed.
func TestFailures(t *testing.T) {
	ours, theirs, err := socketPair()
	if err != nil {
		t.Fatal(err)
	}
	defer ours.close()
	defer theirs.close()
	long := strings.Repeat("\x01", 4096)
	refusal := fault.List{
		{Code: fault.FileOpen, Object: long, Detail: "a detail", Err: &os.PathError{Op: "open", Path: long, Err: unix.ENOENT}},
		{Code: fault.FileTypeChanged, Object: "another"},
	}
	for _, failure := range failuresOf(fmt.Errorf("stage: %w", refusal)) {
		if err := theirs.send(notice{Kind: noticeFailed, Failure: failure}); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for range refusal {
		n, _, err := ours.receive()
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, n.Failure.err().Error())
	}
	var want []string
	for _, f := range refusal {
		want = append(want, f.Error())
	}
	if !slices.Equal(got, want) {
		t.Errorf("received %q, want %q", got, want)
	}
}
