package seccomp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// stageEnv marks the re-executed test binary that loads a filter and becomes the victim: a filter can only be tried in a
// process that one can afford to lose.
const stageEnv = "SECCOMP_TEST_STAGE"

var caught = []int{1000, 1001, 1023}

func TestMain(m *testing.M) {
	if mode := os.Getenv(stageEnv); mode != "" {
		fmt.Fprintln(os.Stderr, stage(mode))
		os.Exit(99)
	}
	os.Exit(m.Run())
}

// stage returns only if it fails.
func stage(mode string) error {
	runtime.LockOSThread()
	filter, err := Build(caught)
	if err != nil {
		return err
	}
	fd, err := filter.Load()
	if err != nil {
		return err
	}
	if mode == "nested" {
		_, err := filter.Load()
		fmt.Println(errors.Is(err, ErrNested))
		os.Exit(0)
	}
	const socket = 3
	if err := unix.Sendmsg(socket, []byte{0}, unix.UnixRights(fd), nil, 0); err != nil {
		return err
	}
	unix.CloseOnExec(socket)
	return syscall.Exec(os.Args[1], os.Args[1:], nil)
}

// victim is a process under the filter.
type victim struct {
	*Listener
	cmd *exec.Cmd
	out bytes.Buffer
}

// start runs the C program under the filter, as uid if that is not 0.
func start(t *testing.T, program string, uid uint32, args ...string) *victim {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	theirs := os.NewFile(uintptr(pair[1]), "socket")
	defer theirs.Close()
	defer unix.Close(pair[0])

	v := &victim{}
	v.cmd = exec.Command("/proc/self/exe", append([]string{program}, args...)...)
	v.cmd.Env = []string{stageEnv + "=exec"}
	v.cmd.Stdout = &v.out
	v.cmd.Stderr = &v.out
	v.cmd.ExtraFiles = []*os.File{theirs}
	if uid != 0 {
		v.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	}
	if err := v.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	t.Cleanup(func() {
		_ = v.cmd.Process.Kill()
		_ = v.cmd.Wait()
	})
	fd, err := receive(pair[0])
	if err != nil {
		_ = v.cmd.Wait()
		t.Fatalf("receive listener: %v; the stage says: %s", err, v.out.String())
	}
	if v.Listener, err = NewListener(fd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = v.Close() })
	return v
}

func receive(socket int) (int, error) {
	oob := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(socket, make([]byte, 1), oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return -1, err
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil {
		return -1, err
	}
	if len(messages) != 1 {
		return -1, errors.New("end of file")
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return -1, err
	}
	return fds[0], nil
}

// next receives one notification within the test's patience.
func (v *victim) next(t *testing.T) *Notification {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	n, err := v.Recv(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

const patience = 20 * time.Second

// end waits for the victim and returns the lines that it wrote.
func (v *victim) end(t *testing.T) []string {
	t.Helper()
	if err := v.cmd.Wait(); err != nil {
		t.Fatalf("victim: %v; it wrote %q", err, v.out.String())
	}
	return strings.Fields(v.out.String())
}

// compile builds testdata/victim.c.
func compile(t *testing.T, flags ...string) string {
	t.Helper()
	dir := t.TempDir()
	program := filepath.Join(dir, "victim")
	args := append([]string{"-Wall", "-Wextra", "-Werror", "-o", program, "testdata/victim.c"}, flags...)
	if out, err := exec.Command("cc", args...).CombinedOutput(); err != nil {
		if len(flags) > 0 && strings.Contains(string(out), "No such file") {
			t.Skipf("needs: C library for %v", flags)
		}
		t.Fatalf("cc %v: %v\n%s", args, err, out)
	}
	// Other users run it too.
	for d := dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return program
}
