package tests

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// terminal is a pseudo-terminal with a program as its session leader.
type terminal struct {
	*job
	master *os.File
	hungUp chan struct{} // closed when nobody has it open any more, and all has been read

	mu     sync.Mutex
	screen bytes.Buffer // all that came; protected by mu
	seen   int          // what expect has passed; used by the test only
}

// openTerminal starts a command on a new terminal of its own.
func (e *env) openTerminal(args ...string) *terminal {
	e.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		e.Skipf("needs: pseudo-terminals: %v", err)
	}
	var n int
	if err := control(master, func(fd int) (err error) {
		if err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
			return err
		}
		if err = unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 200}); err != nil {
			return err
		}
		n, err = unix.IoctlGetInt(fd, unix.TIOCGPTN)
		return err
	}); err != nil {
		e.Fatal(err)
	}
	name := fmt.Sprintf("/dev/pts/%d", n)
	if err := os.Chown(name, e.user.id, -1); err != nil {
		e.Fatal(err)
	}
	slave, err := os.OpenFile(name, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		e.Fatal(err)
	}
	defer slave.Close()

	t := &terminal{job: &job{env: e, done: make(chan struct{})}, master: master, hungUp: make(chan struct{})}
	t.cmd = exec.Command(args[0], args[1:]...)
	t.cmd.Dir = e.dir
	t.cmd.Env = append(os.Environ(), "PS1=$ ", "TERM=dumb", "ENV=")
	t.cmd.Stdin, t.cmd.Stdout, t.cmd.Stderr = slave, slave, slave
	t.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if e.user.id != os.Getuid() {
		id := uint32(e.user.id)
		t.cmd.SysProcAttr.Credential = &syscall.Credential{Uid: id, Gid: id}
	}
	if err := t.cmd.Start(); err != nil {
		e.Fatal(err)
	}
	e.jobs = append(e.jobs, t.job)
	e.Cleanup(func() {
		// Before the terminal goes: a hang-up would scatter what is below.
		t.killTree()
		<-t.done
		_ = master.Close() // ends the reader
	})
	go func() {
		_ = t.cmd.Wait() // how it ended is in ProcessState
		close(t.done)
	}()
	go t.read()
	return t
}

func control(f *os.File, fn func(fd int) error) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	if err := raw.Control(func(fd uintptr) { inner = fn(int(fd)) }); err != nil {
		return err
	}
	return inner
}

func (t *terminal) read() {
	defer close(t.hungUp)
	buf := make([]byte, 4096)
	for {
		n, err := t.master.Read(buf)
		t.mu.Lock()
		t.screen.Write(buf[:n])
		t.mu.Unlock()
		if err != nil {
			return // EIO: nobody has the other side open any more
		}
	}
}

func (t *terminal) text() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.screen.String()
}

// send types.
func (t *terminal) send(text string) {
	t.Helper()
	if _, err := t.master.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

// expect waits for output that matches, behind what was matched before, and
// returns the first group.
func (t *terminal) expect(pattern string) string {
	t.Helper()
	re := regexp.MustCompile(pattern)
	var found string
	defer func() {
		if t.Failed() {
			t.Logf("on the terminal:\n%s", t.text())
		}
	}()
	t.until("on the terminal: "+pattern, func() bool {
		over := t.isOver()
		text := t.text()
		m := re.FindStringSubmatchIndex(text[t.seen:])
		if m == nil {
			if over {
				t.Fatalf("the session ended (%s) without %q on the terminal:\n%s", t.cmd.ProcessState, pattern, text)
			}
			return false
		}
		if len(m) > 2 {
			found = text[t.seen+m[2] : t.seen+m[3]]
		}
		t.seen += m[1]
		return true
	})
	return found
}

// isOver tells whether nothing more will come.
func (t *terminal) isOver() bool {
	select {
	case <-t.hungUp:
		return t.ended()
	default:
		return false
	}
}

// run types a command and waits for its status, which it returns.
func (t *terminal) run(command string) string {
	t.Helper()
	t.send(command + "\n")
	return t.status()
}

// press types a control character, and waits for the prompt that follows:
// what is typed meanwhile is thrown away.
func (t *terminal) press(key string) {
	t.Helper()
	t.send(key)
	t.expect(`\$ `)
}

// status asks the shell for the status of what ran last.
func (t *terminal) status() string {
	t.Helper()
	// What is echoed has quotes in it, what is answered has not.
	t.send("echo 'sta'tus=$?\n")
	return t.expect(`status=(\d+)`)
}
