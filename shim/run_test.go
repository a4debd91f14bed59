package shim

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestRunStatus compares the end of `crshim run CMD` with that of CMD.
func TestRunStatus(t *testing.T) {
	t.Parallel()
	script := filepath.Join(t.TempDir(), "script") // without "#!"
	if err := os.WriteFile(script, []byte("exit 9\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		args   []string
		status int // -signal for death by a signal
		says   string
	}{
		{args: []string{"true"}, status: 0},
		{args: []string{"--", "sh", "-c", "exit 7"}, status: 7},
		{args: []string{"sh", "-c", "exit 255"}, status: 255},
		{args: []string{script}, status: 9},
		{args: []string{"sh", "-c", "kill -TERM $$"}, status: -int(unix.SIGTERM)},
		{args: []string{"sh", "-c", "kill -KILL $$"}, status: -int(unix.SIGKILL)},
		{args: []string{"sh", "-c", "kill -SEGV $$"}, status: -int(unix.SIGSEGV)},
		{args: []string{"sh", "-c", "kill -INT $$"}, status: -int(unix.SIGINT)},
		{args: []string{"no-such-command"}, status: 127, says: "CR5001 cannot run no-such-command: not found"},
		{args: []string{"/no/such/command"}, status: 127, says: "CR5001"},
		{args: []string{"/etc/passwd"}, status: 126, says: "CR5002"},
		{args: []string{"/"}, status: 126, says: "CR5002"},
		{args: []string{"--log-level=loud", "true"}, status: 125, says: "--log-level"},
		{args: []string{"--log-format=xml", "true"}, status: 125, says: "--log-format"},
		{args: []string{"--trace=/no/such/file", "true"}, status: 125, says: "/no/such/file"},
		{args: []string{}, status: 125, says: "arg"},
	} {
		t.Run(strings.Join(test.args, " "), func(t *testing.T) {
			out, err := crshim(append([]string{"run"}, test.args...)...).CombinedOutput()
			status := 0
			var exit *exec.ExitError
			if errors.As(err, &exit) {
				ws := exit.Sys().(syscall.WaitStatus)
				if status = ws.ExitStatus(); ws.Signaled() {
					status = -int(ws.Signal())
				}
			} else if err != nil {
				t.Fatal(err)
			}
			if status != test.status || !strings.Contains(string(out), test.says) || test.says == "" && len(out) > 0 {
				t.Errorf("status %d, want %d; output %q, want %q", status, test.status, out, test.says)
			}
		})
	}
}

// TestRunNested checks the message where another listener is above.
func TestRunNested(t *testing.T) {
	t.Parallel()
	cmd := crshim("run", "/proc/self/exe", "run", "true")
	// CMD is the test binary again: its environment must ask for crshim too.
	cmd.Args = []string{"crshim", "run", "env", mainEnv, testBinary(t), "run", "true"}
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState.ExitCode() != statusSelf || !strings.Contains(string(out), "CR4003") {
		t.Errorf("%v: %s; want status 125 and CR4003", err, out)
	}
}

func testBinary(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// TestRunTransparent compares everything that a process inherits, with crshim and without: with unusual descriptors, signal
// dispositions and limits.
func TestRunTransparent(t *testing.T) {
	t.Parallel()
	program := callerProgram(t)
	for _, setup := range []string{
		"",
		"exec 7<testdata 9>/dev/null",
		"exec <&-",
		"trap '' HUP INT TERM TSTP PIPE USR1 CHLD",
		"ulimit -n 100; ulimit -c 0; umask 027",
		"cd /; export A=1 B='2 3'",
		"wrap='env --block-signal=USR1,TERM,TSTP --ignore-signal=QUIT'",
		"wrap='nice -n 5'",
	} {
		t.Run(setup, func(t *testing.T) {
			run := func(prefix string) string {
				cmd := exec.Command("bash", "-c", setup+"\nexec $wrap "+prefix+" "+program+" state -- -x 'a b' >&2")
				cmd.Env = append(os.Environ(), mainEnv)
				if prefix == "" {
					cmd.Env = os.Environ()
				}
				file, err := os.CreateTemp(t.TempDir(), "")
				if err != nil {
					t.Fatal(err)
				}
				defer file.Close()
				cmd.Stderr = file
				if err := cmd.Run(); err != nil {
					t.Fatalf("%s: %v", cmd, err)
				}
				text, err := os.ReadFile(file.Name())
				if err != nil {
					t.Fatal(err)
				}
				return strings.ReplaceAll(string(text), file.Name(), "OUT")
			}
			want, got := run(""), run(testBinary(t)+" run")
			if want != got {
				t.Errorf("without crshim:\n%s\nwith crshim:\n%s", want, got)
			}
		})
	}
}

// TestRunSignals sends signals to the front, which is how a script or service manager signals a command.
func TestRunSignals(t *testing.T) {
	t.Parallel()
	// In a session of its own there is no terminal, so SIGINT and SIGTSTP too are meant for CMD.
	cmd := crshim("run", callerProgram(t), "signals")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	j := startJob(t, cmd)
	if got := j.line(); got != "ready" {
		t.Fatal(got)
	}
	_, _, command := j.processes()
	for _, sig := range []syscall.Signal{unix.SIGUSR1, unix.SIGTERM, unix.SIGHUP, unix.SIGINT, unix.SIGTSTP} {
		kill(t, j.pid(), sig)
	}
	for line := j.line(); line != "1 1 1 1 1"; line = j.line() {
		if strings.Contains(line, "2") {
			t.Fatalf("CMD counted %q, want each once", line)
		}
	}
	kill(t, j.pid(), unix.SIGUSR2)
	if got := j.rest(); !slices.Equal(got, []string{"1 1 1 1 1"}) {
		t.Errorf("CMD counted %q in the end", got)
	}
	if status := j.wait(); status != 0 {
		t.Errorf("status %#x", status)
	}
	awaitEnd(t, command)
}

// TestRunStops stops and continues CMD; the shell's view, which is the front's state, follows, by the same signal.
func TestRunStops(t *testing.T) {
	t.Parallel()
	for _, sig := range []syscall.Signal{unix.SIGSTOP, unix.SIGTSTP, unix.SIGTTIN} {
		t.Run(unix.SignalName(sig), func(t *testing.T) {
			// A group that is not orphaned: stop signals of the terminal stop nothing else.
			cmd := crshim("run", "sh", "-c", "echo ready; read line; exit 4")
			cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
			input, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			j := startJob(t, cmd)
			j.line()
			_, _, command := j.processes()
			for range 20 {
				kill(t, command, sig)
				if status := j.wait(); !status.Stopped() || status.StopSignal() != sig {
					t.Fatalf("status %#x, want stopped by %v", status, sig)
				}
				awaitState(t, command, 'T')
				kill(t, command, unix.SIGCONT)
				if status := j.wait(); !status.Continued() {
					t.Fatalf("status %#x, want continued", status)
				}
			}
			// What a shell does for fg: the whole group.
			kill(t, command, sig)
			j.wait()
			kill(t, -j.pid(), unix.SIGCONT)
			if status := j.wait(); !status.Continued() {
				t.Fatalf("status %#x, want continued", status)
			}
			// Stop and continue at once: whatever the front saw of it, it runs afterwards.
			for range 50 {
				kill(t, command, sig)
				kill(t, command, unix.SIGCONT)
			}
			if err := input.Close(); err != nil {
				t.Fatal(err)
			}
			status := j.wait()
			for status.Stopped() || status.Continued() {
				status = j.wait()
			}
			if status.ExitStatus() != 4 {
				t.Errorf("status %#x, want exit 4; standard error %q", status, j.stderr.String())
			}
		})
	}
}

// TestRunBackground leaves a task behind: the front ends with CMD, the calls of the task go on, and when it ends nothing
// is left. A reader of CMD's output sees its end although the supervisor lives.
func TestRunBackground(t *testing.T) {
	t.Parallel()
	stop := filepath.Join(t.TempDir(), "stop")
	trace := filepath.Join(t.TempDir(), "trace")
	j := startJob(t, crshim("run", "--trace="+trace, "sh", "-c", `"$0" loop "$1" >/dev/null 2>&1 & echo $!; read line; exit 3`, callerProgram(t), stop))
	// CMD cannot read a line any more: its input is /dev/null.
	task := number(t, j.line())
	p, err := unix.PidfdOpen(task, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(p)
	if rest := j.rest(); len(rest) != 0 {
		t.Errorf("output %q", rest)
	}
	if status := j.wait(); status.ExitStatus() != 3 {
		t.Errorf("status %#x, want exit 3", status)
	}
	parent := parentOf(t, task)
	supervisor := parentOf(t, parent)
	before := traced(t, trace)
	for traced(t, trace) <= before {
		if p, _ := unix.Poll([]unix.PollFd{{Fd: int32(p), Events: unix.POLLIN}}, 1); p == 1 {
			t.Fatal("the task has ended")
		}
	}
	if err := os.WriteFile(stop, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	awaitEnd(t, task)
	awaitEnd(t, parent)
	awaitEnd(t, supervisor)
}

func parentOf(t *testing.T, pid int) int {
	t.Helper()
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`\nPPid:\t(\d+)\n`).FindSubmatch(text)
	return number(t, string(m[1]))
}

// traced counts the calls in a trace.
func traced(t *testing.T, path string) int {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(text), "\n")
}

// TestRunLeavesNothing checks that every stage has ended when the front has, if nothing of the job is left.
func TestRunLeavesNothing(t *testing.T) {
	t.Parallel()
	for range 10 {
		// The orphan ends before CMD does.
		j := startJob(t, crshim("run", "sh", "-c", "sh -c 'true & exit' ; echo ready; read line"))
		j.line()
		j.rest()
		supervisor := 0
		for status := unix.WaitStatus(0); ; {
			if status = j.wait(); status.Exited() {
				break
			}
		}
		for _, pid := range []int{j.pid(), supervisor} {
			if pid != 0 && unix.Kill(pid, 0) != unix.ESRCH {
				t.Errorf("pid %d is left", pid)
			}
		}
	}
}

func TestRunTrace(t *testing.T) {
	t.Parallel()
	program := callerProgram(t)
	cmd := crshim("run", "--trace", program, "once")
	var stderr lockedBuffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil || string(out) != "0\n" {
		t.Errorf("output %q, %v", out, err)
	}
	if !regexp.MustCompile(`^\[pid \d+\] crgetid\(\) = 0 <\d\.\d{3}>\n$`).MatchString(stderr.String()) {
		t.Errorf("trace %q", stderr.String())
	}
}

// TestRunLog makes a call that fails: the words behind the errno are logged once, in either format, unless the level is above.
func TestRunLog(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ flags, want string }{
		{"--log-level=warning", `^level=warning msg="CR3001 [^"]+" call="checkpoint\(\d+, 1, 0x4\)" pid=\d+ try="[^"]+"\n$`},
		{"--log-format=json", `^{"call":"checkpoint\(\d+, 1, 0x4\)","level":"warning","msg":"CR3001 [^"]+","pid":\d+,"time":"[^"]+","try":"[^"]+"}\n$`},
		{"--log-level=error", `^$`},
		{"--trace", `\[pid \d+\] checkpoint\(\d+, 1, 0x4\) = -1 EINVAL \(Invalid argument\) <\d\.\d{3}>\n$`},
	} {
		cmd := crshim("run", test.flags, callerProgram(t), "bad")
		var stderr lockedBuffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil || string(out) != "22\n" {
			t.Errorf("%s: output %q, %v", test.flags, out, err)
		}
		if !regexp.MustCompile(test.want).MatchString(stderr.String()) {
			t.Errorf("%s: logged %q, want %s", test.flags, stderr.String(), test.want)
		}
	}
}

// TestRunUser does the same as an ordinary user.
func TestRunUser(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("needs: CAP_SETUID")
	}
	cmd := exec.Command(testProgram(t, "crshim.test"), "run", callerProgram(t), "once")
	cmd.Env = append(os.Environ(), mainEnv)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if err != nil || string(out) != "0\n" {
		t.Errorf("output %q, %v", out, err)
	}
}

// TestRunSupervisorKilled kills the supervisor while callers wait: they get ENOSYS or EINTR, and CMD ends as it would.
func TestRunSupervisorKilled(t *testing.T) {
	t.Parallel()
	stop := filepath.Join(t.TempDir(), "stop")
	j := startJob(t, crshim("run", callerProgram(t), "crowd", "64", stop))
	var pids []int
	line := j.line()
	for ; line != "all"; line = j.line() {
		pids = append(pids, number(t, line))
	}
	supervisor, _, _ := j.processes()
	// Of the callers that wait some are received and some are not.
	kill(t, supervisor, unix.SIGSTOP)
	awaitState(t, supervisor, 'T')
	waiting := func() (n int) {
		for _, pid := range pids {
			if text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/syscall"); err == nil && strings.HasPrefix(string(text), "1002 ") {
				n++
			}
		}
		return n
	}
	for waiting() < len(pids) {
	}
	// A caller that is killed while it waits goes at once, if its call was not received, and takes nobody with it.
	const killed = 16
	for _, pid := range pids[:killed] {
		kill(t, pid, unix.SIGKILL)
	}
	kill(t, supervisor, unix.SIGKILL)
	if err := os.WriteFile(stop, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	want := []string{strconv.Itoa(len(pids)-killed) + " done"}
	if got := j.rest(); !slices.Equal(got, want) {
		t.Errorf("output %q, want %q", got, want)
	}
	if status := j.wait(); status != 0 {
		t.Errorf("status %#x", status)
	}
	if !strings.Contains(j.stderr.String(), "CR5003") {
		t.Errorf("standard error lacks CR5003: %q", j.stderr.String())
	}
}

// TestRunFrontKilled kills the front: CMD runs on, and its calls are still served.
func TestRunFrontKilled(t *testing.T) {
	t.Parallel()
	stop := filepath.Join(t.TempDir(), "stop")
	j := startJob(t, crshim("run", callerProgram(t), "loop", stop))
	j.line()
	supervisor, parent, command := j.processes()
	kill(t, j.pid(), unix.SIGKILL)
	if status := j.wait(); !status.Signaled() {
		t.Errorf("status %#x", status)
	}
	if err := os.WriteFile(stop, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := j.rest(); !slices.Equal(got, []string{"0 done"}) {
		t.Errorf("output %q, want the last call to succeed", got)
	}
	for _, pid := range []int{command, parent, supervisor} {
		awaitEnd(t, pid)
	}
}

// TestRunCrowd has 64 tasks call at once, kills some, and expects the others to be served to the end.
func TestRunCrowd(t *testing.T) {
	t.Parallel()
	stop := filepath.Join(t.TempDir(), "stop")
	j := startJob(t, crshim("run", callerProgram(t), "crowd", "64", stop))
	var pids []int
	for line := j.line(); line != "all"; line = j.line() {
		pids = append(pids, number(t, line))
	}
	for i, pid := range pids {
		if i%2 == 0 {
			kill(t, pid, unix.SIGKILL)
		}
	}
	if err := os.WriteFile(stop, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := j.rest(); !slices.Equal(got, []string{"32 done"}) {
		t.Errorf("output %q, want 32 done", got)
	}
	if status := j.wait(); status != 0 {
		t.Errorf("status %#x", status)
	}
	if log := j.stderr.String(); log != "" {
		t.Errorf("logged: %s", log)
	}
}
