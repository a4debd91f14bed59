package procfs

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// roleVar makes the test program play another process; see roles.
const roleVar = "PROCFS_TEST_ROLE"

// roles are what a child does. It says one line on its standard output when
// it is ready and lasts until its standard input ends.
var roles = map[string]func() error{
	"wait":    func() error { return ready("") },
	"exec":    execAgain,
	"reader":  readStranger,
	"recycle": recyclePID,
	"arena":   showArena,
}

func TestMain(m *testing.M) {
	if role := os.Getenv(roleVar); role != "" {
		if err := roles[role](); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	before := openFiles()
	code := m.Run()
	for _, err := range []error{goleak.Find(), leftFiles(before), leftChildren()} {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = max(code, 1)
		}
	}
	os.Exit(code)
}

// ready tells the parent that the child is set up and waits for leave to end.
func ready(line string) error {
	fmt.Println(line)
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

func execAgain() error {
	if err := ready(""); err != nil {
		return err
	}
	return unix.Exec("/bin/true", []string{"true"}, nil)
}

// openFiles lists what is open, but for the files of Go's runtime.
func openFiles() []string {
	var open []string
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return nil
	}
	for _, e := range entries {
		target, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err != nil || strings.HasPrefix(target, "anon_inode:[event") {
			continue
		}
		open = append(open, e.Name()+" "+target)
	}
	return open
}

func leftFiles(before []string) error {
	for _, f := range openFiles() {
		if !slices.Contains(before, f) {
			return fmt.Errorf("a test left open: %s", f)
		}
	}
	return nil
}

func leftChildren() error {
	self, err := Open(PID(os.Getpid()))
	if err != nil {
		return err
	}
	defer self.Close()
	kids, err := self.Children()
	if err == nil && len(kids) > 0 {
		err = fmt.Errorf("tests left the processes %v", kids)
	}
	return err
}

// child is the test program in one of its roles.
type child struct {
	*exec.Cmd
	stdin io.WriteCloser
	line  string // what it said when it was ready
	ended bool
}

// start starts a child and ends it with the test. The command can be changed
// before it runs.
func start(t testing.TB, role string, change ...func(*exec.Cmd)) *child {
	t.Helper()
	c := &child{Cmd: exec.Command("/proc/self/exe")}
	c.Env = append(os.Environ(), roleVar+"="+role)
	c.Stderr = os.Stderr
	for _, f := range change {
		f(c.Cmd)
	}
	var err error
	if c.stdin, err = c.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	limit := time.AfterFunc(30*time.Second, func() { _ = c.Process.Kill() })
	t.Cleanup(func() {
		c.end(t)
		limit.Stop()
	})
	c.line, err = bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("the child in role %s did not get ready: %v", role, err)
	}
	c.line = strings.TrimSuffix(c.line, "\n")
	return c
}

func (c *child) pid() PID { return PID(c.Process.Pid) }

// end lets the child go and reaps it.
func (c *child) end(t testing.TB) {
	if c.ended {
		return
	}
	c.ended = true
	_ = c.stdin.Close() // an error means that it is dead already
	if err := c.Wait(); err != nil {
		var status *exec.ExitError
		if !errors.As(err, &status) || status.ExitCode() >= 0 {
			t.Errorf("child %d: %v", c.pid(), err)
		}
	}
}

// kill ends the child and leaves it a zombie.
func (c *child) kill(t testing.TB) {
	t.Helper()
	if err := c.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	err := error(unix.EINTR)
	for errors.Is(err, unix.EINTR) {
		err = unix.Waitid(unix.P_PID, c.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func openProc(t testing.TB, pid PID) *Proc {
	t.Helper()
	p, err := Open(pid)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func self(t testing.TB) *Proc { return openProc(t, PID(os.Getpid())) }

// asStranger makes the child an ordinary user.
func asStranger(c *exec.Cmd) {
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
}
