package shim

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
)

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
