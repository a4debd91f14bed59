package shim

import (
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// console is a shell on a pseudo-terminal, and a person who types.
type console struct {
	t      *testing.T
	master *os.File
	cmd    *exec.Cmd
	out    lockedBuffer
	seen   int // how much of out has been looked at
}

// startConsole runs cmd as the leader of a session whose terminal is new.
func startConsole(t *testing.T, cmd *exec.Cmd) *console {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	master := os.NewFile(uintptr(fd), "/dev/ptmx")
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	terminal, err := os.OpenFile("/dev/pts/"+strconv.Itoa(number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = terminal, terminal, terminal
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	cmd.Env = append(os.Environ(), mainEnv, "PS1=prompt> ", "ENV=", "TERM=dumb", "HISTFILE=", "CRSHIM="+testBinary(t))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c := &console{t: t, master: master, cmd: cmd}
	c.resize(24, 500) // the echo of a command stays on one line
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := master.Read(buf)
			_, _ = c.out.Write(buf[:n])
			if err != nil {
				return // EIO: nobody has the terminal open any more
			}
		}
	}()
	t.Cleanup(func() {
		_ = master.Close() // hangs up on whatever is left
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return c
}

func (c *console) typed(text string) {
	c.t.Helper()
	if _, err := c.master.WriteString(text); err != nil {
		c.t.Fatalf("type %q: %v", text, err)
	}
}

// expect waits for output that matches, behind what was expected before, and returns its groups.
func (c *console) expect(pattern string) []string {
	c.t.Helper()
	re := regexp.MustCompile(pattern)
	for deadline := time.Now().Add(patience); ; time.Sleep(2 * time.Millisecond) {
		text := c.out.String()
		if m := re.FindStringSubmatchIndex(text[c.seen:]); m != nil {
			var groups []string
			for i := 0; i < len(m); i += 2 {
				groups = append(groups, text[c.seen+m[i]:c.seen+m[i+1]])
			}
			c.seen += m[1]
			return groups
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("no %q in %q, behind %q", pattern, text[c.seen:], text[:c.seen])
		}
	}
}

// say types a command and waits for its echo, so that what follows is output.
func (c *console) say(command string) {
	c.t.Helper()
	c.typed(command + "\n")
	c.expect(regexp.QuoteMeta(command) + "\r*\n")
}

// end waits for the end of the session's leader and returns its status.
func (c *console) end() syscall.WaitStatus {
	c.t.Helper()
	timer := time.AfterFunc(patience, func() { _ = c.cmd.Process.Kill() })
	defer timer.Stop()
	_ = c.cmd.Wait()
	return c.cmd.ProcessState.Sys().(syscall.WaitStatus)
}

const (
	ctrlC         = "\x03"
	ctrlD         = "\x04"
	ctrlZ         = "\x1a"
	ctrlBackslash = "\x1c"
)

// TestTerminalShell uses `crshim run sh` as a person would: it is the leader of the session, as in a terminal window.
func TestTerminalShell(t *testing.T) {
	for _, shell := range []string{"dash", "bash --norc --noprofile"} {
		t.Run(shell, func(t *testing.T) {
			t.Parallel()
			args := append([]string{"run"}, strings.Fields(shell)...)
			c := startConsole(t, crshim(append(args, "-i")...))
			c.useShell()
			c.say("exit 5")
			if status := c.end(); status.ExitStatus() != 5 {
				t.Errorf("status %#x, want exit 5; output %q", status, c.out.String())
			}
			if text := c.out.String(); strings.Contains(text, "job control") || strings.Contains(text, "access tty") {
				t.Errorf("the shell complains: %q", text)
			}
		})
	}
}

// TestTerminalShellBelow runs it below another interactive shell, as a job of that.
func TestTerminalShellBelow(t *testing.T) {
	for _, shell := range []string{"dash", "bash --norc --noprofile"} {
		t.Run(shell, func(t *testing.T) {
			t.Parallel()
			c := startConsole(t, exec.Command("bash", "--norc", "--noprofile", "-i"))
			c.expect("prompt> ")
			c.say(`"$CRSHIM" run ` + shell + ` -i`)
			c.useShell()
			c.say("exit 5")
			c.expect("prompt> ")
			c.say("echo status=$?")
			c.expect("status=5\r")
			c.say("exit 6")
			if status := c.end(); status.ExitStatus() != 6 {
				t.Errorf("status %#x, want exit 6", status)
			}
		})
	}
}

// useShell exercises job control in the shell that prompts.
func (c *console) useShell() {
	c.t.Helper()
	c.expect("prompt> ")
	c.say("sleep 1000")
	c.awaitForeground("sleep")
	c.typed(ctrlC)
	c.expect("prompt> ")
	c.say("echo status=$?")
	c.expect("status=130\r")

	c.say("sleep 1001")
	c.awaitForeground("sleep")
	c.typed(ctrlZ)
	c.expect("Stopped")
	c.expect("prompt> ")
	c.say("jobs")
	c.expect(`\[1\].*Stopped.*sleep 1001`)
	c.say("bg")
	c.expect("prompt> ")
	c.say("jobs")
	c.expect(`\[1\].*Running.*sleep 1001`)
	c.say("fg")
	c.awaitForeground("sleep")
	c.typed(ctrlBackslash)
	c.expect("Quit")
	c.expect("prompt> ")
	c.say("echo status=$?")
	c.expect("status=131\r")

	c.resize(33, 77)
	c.say("stty size")
	c.expect("33 77\r")
}

func (c *console) resize(rows, columns uint16) {
	c.t.Helper()
	raw, err := c.master.SyscallConn()
	if err != nil {
		c.t.Fatal(err)
	}
	if ctlErr := raw.Control(func(fd uintptr) {
		err = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns})
	}); ctlErr != nil || err != nil {
		c.t.Fatal(ctlErr, err)
	}
}

// awaitForeground waits until a process of that name is in the foreground and asleep: a key reaches it then.
func (c *console) awaitForeground(name string) {
	c.t.Helper()
	raw, err := c.master.SyscallConn()
	if err != nil {
		c.t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		group := 0
		_ = raw.Control(func(fd uintptr) { group, _ = unix.IoctlGetInt(int(fd), unix.TIOCGPGRP) })
		for _, entry := range groupMembers(c.t, group) {
			if entry == name {
				return
			}
		}
	}
	c.t.Fatalf("%s does not come to the foreground; output %q", name, c.out.String())
}

// groupMembers returns the names of the sleeping processes of a process group.
func groupMembers(t *testing.T, group int) (names []string) {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if _, err := strconv.Atoi(entry.Name()); err != nil {
			continue
		}
		text, err := os.ReadFile("/proc/" + entry.Name() + "/stat")
		if err != nil {
			continue // it has ended
		}
		open, end := strings.IndexByte(string(text), '('), strings.LastIndexByte(string(text), ')')
		fields := strings.Fields(string(text[end+1:])) // state, parent, group
		if fields[0] == "S" && fields[2] == strconv.Itoa(group) {
			names = append(names, string(text[open+1:end]))
		}
	}
	return names
}

// TestTerminalJob runs plain commands under crshim as jobs of an interactive shell without crshim.
func TestTerminalJob(t *testing.T) {
	t.Parallel()
	c := startConsole(t, exec.Command("bash", "--norc", "--noprofile", "-i"))
	c.expect("prompt> ")

	c.say(`"$CRSHIM" run sleep 1000`)
	c.awaitForeground("sleep")
	c.typed(ctrlC)
	c.expect("prompt> ")
	c.say("echo status=$?")
	c.expect("status=130\r")

	c.say(`"$CRSHIM" run sleep 1001`)
	c.awaitForeground("sleep")
	c.typed(ctrlZ)
	c.expect(`\[1\]\+  Stopped  `)
	c.expect("prompt> ")
	c.say("jobs -l")
	c.expect(`\d Stopped  `) // by SIGTSTP; "Stopped (signal)" would be SIGSTOP
	c.say("bg")
	c.expect("prompt> ")
	c.say("jobs")
	c.expect(`\[1\].*Running.*sleep 1001`)
	c.say("fg")
	c.awaitForeground("sleep")
	c.typed(ctrlZ)
	c.expect(`\[1\]\+  Stopped  `)
	c.expect("prompt> ")
	c.say("kill %1; fg")
	c.expect("Terminated")
	c.expect("prompt> ")

	// Two in a pipeline share the group; one that reads the terminal from the background stops.
	c.say(`"$CRSHIM" run sleep 1002 | "$CRSHIM" run cat`)
	c.awaitForeground("sleep")
	c.typed(ctrlC)
	c.expect("prompt> ")
	c.say(`"$CRSHIM" run cat &`)
	c.expect("prompt> ")
	c.say(`until jobs -l | grep 'Stopped (tty input)'; do :; done`)
	c.expect(`Stopped \(tty input\)`)
	c.expect("prompt> ")
	c.say("fg")
	c.awaitForeground("cat")
	c.typed("a line\n")
	c.expect("a line\r\na line\r\n")
	c.typed(ctrlD)
	c.expect("prompt> ")

	// The window's size changes under a program that asks for it.
	c.say(`"$CRSHIM" run bash --norc -c 'trap "stty size; exit" WINCH; echo waiting; while :; do sleep 0.01; done'`)
	c.expect("waiting\r")
	c.resize(44, 99)
	c.expect("44 99\r")
	c.expect("prompt> ")
	c.say("exit 3")
	if status := c.end(); status.ExitStatus() != 3 {
		t.Errorf("status %#x, want exit 3", status)
	}
}

// TestTerminalHangup closes the terminal: everything on it ends.
func TestTerminalHangup(t *testing.T) {
	t.Parallel()
	c := startConsole(t, crshim("run", "dash", "-i"))
	c.expect("prompt> ")
	j := &job{t: t, cmd: c.cmd}
	supervisor, parent, command := j.processes()
	c.say("sleep 1000")
	c.awaitForeground("sleep")
	if err := c.master.Close(); err != nil {
		t.Fatal(err)
	}
	c.end()
	for _, pid := range []int{command, parent, supervisor} {
		awaitEnd(t, pid)
	}
}
