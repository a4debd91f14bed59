package shim

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

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
	for deadline := time.Now().Add(patience); !errors.Is(err, unix.EPIPE); time.Sleep(time.Millisecond) {
		if _, err = writer.WriteString("more"); time.Now().After(deadline) {
			t.Fatalf("the pipe still has a reader: %v", err)
		}
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
	// The program was saved wherever it was: in its sleep, or at the end of a write, or between.
	b.await("log", `restart\(0, 3, 0\) = (\?|-?\d+) <`)
	kill(t, front.Process.Pid, unix.SIGUSR1)
	if status := b.end(front); status != 7 {
		t.Errorf("status %d, want 7", status)
	}
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

	// A substituted command ends with the restart, whatever the program does. That is in the shell's process group, and would
	// read what is typed until it is dead.
	c.say(`gone() { while grep -qs 'State:.[RSD]' /proc/$1/status; do :; done; }`)
	c.expect("prompt> ")
	c.say(`pid=$("$CRSHIM" restart -d img 2>&1); kill -9 $pid && gone $pid`)
	c.expect("prompt> ")
	c.say("echo status=$?")
	c.expect("status=0\r")
	c.expect("prompt> ")
	c.say("exit 3")
	if status := c.end(); status.ExitStatus() != 3 {
		t.Errorf("status %#x, want exit 3", status)
	}
}
