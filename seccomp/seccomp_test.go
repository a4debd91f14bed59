package seccomp

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestInterfaces checks which calls reach the listener, by each system call interface, and that the others do what they
// do without a filter.
func TestInterfaces(t *testing.T) {
	enosys := strconv.Itoa(-int(unix.ENOSYS))
	type call struct {
		args string
		arch Arch // 0: not caught
	}
	native := map[string][]call{
		"-m64": {
			{"1000", X8664}, {"1001", X8664}, {"1023", X8664},
			{"999", 0}, {"1002", 0}, {"1024", 0}, {"-5", 0},
			{"int80 1000", I386}, {"int80 1023", I386}, {"int80 1002", 0},
			{"x32 1000", 0}, {"x32 1023", 0}, {"int80 x32 1000", 0},
		},
		"-m32": {
			{"1000", I386}, {"1023", I386}, {"999", 0}, {"1002", 0}, {"int80 1001", I386}, {"x32 1000", 0},
		},
	}
	for flag, calls := range native {
		t.Run(flag, func(t *testing.T) {
			var args, want []string
			for _, c := range calls {
				args = append(args, strings.Fields(c.args)...)
			}
			v := start(t, compile(t, flag), 0, args...)
			for i, c := range calls {
				if c.arch == 0 {
					want = append(want, enosys)
					continue
				}
				n := v.next(t)
				if got := strconv.Itoa(n.NR()); n.Arch() != c.arch || !strings.HasSuffix(c.args, got) {
					t.Errorf("%s: caught %s by %#x, want %#x", c.args, got, n.Arch(), c.arch)
				}
				if n.TID() != v.cmd.Process.Pid {
					t.Errorf("%s: made by %d, want %d", c.args, n.TID(), v.cmd.Process.Pid)
				}
				a := n.Args()
				if a[0] != 7 || int32(a[1]) != -2 || a[2] != 3 {
					t.Errorf("%s: arguments are %x", c.args, a)
				}
				if err := n.Valid(); err != nil {
					t.Errorf("%s: %v", c.args, err)
				}
				if i%2 == 0 {
					want = append(want, strconv.Itoa(40+i))
					if err := n.Return(int64(40 + i)); err != nil {
						t.Fatal(err)
					}
				} else {
					want = append(want, strconv.Itoa(-int(unix.EBADF)))
					if err := n.Fail(unix.EBADF); err != nil {
						t.Fatal(err)
					}
				}
			}
			if got := v.end(t); !slices.Equal(got, want) {
				t.Errorf("results of %v\n got %v\nwant %v", args, got, want)
			}
			if _, err := v.Recv(t.Context()); !errors.Is(err, ErrHangup) {
				t.Errorf("Recv after the last task's end: %v, want %v", err, ErrHangup)
			}
		})
	}
}

func TestAnswerOnce(t *testing.T) {
	v := start(t, compile(t), 0, "1000")
	n := v.next(t)
	if err := n.Return(5); err != nil {
		t.Fatal(err)
	}
	if err := n.Return(6); !errors.Is(err, ErrAnswered) {
		t.Errorf("second Return: %v, want %v", err, ErrAnswered)
	}
	if err := n.Fail(unix.EPERM); !errors.Is(err, ErrAnswered) {
		t.Errorf("Fail after Return: %v, want %v", err, ErrAnswered)
	}
	if got := v.end(t); !slices.Equal(got, []string{"5"}) {
		t.Errorf("the caller saw %v", got)
	}
}

// TestKilledCaller kills the caller while it waits: the notification is void, and the listener hangs up.
func TestKilledCaller(t *testing.T) {
	v := start(t, compile(t), 0, "1000")
	n := v.next(t)
	if err := v.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = v.cmd.Wait()
	if err := n.Valid(); !errors.Is(err, unix.ENOENT) {
		t.Errorf("Valid: %v, want ENOENT", err)
	}
	if err := n.Return(0); !errors.Is(err, unix.ENOENT) {
		t.Errorf("Return: %v, want ENOENT", err)
	}
	if _, err := v.Recv(t.Context()); !errors.Is(err, ErrHangup) {
		t.Errorf("Recv: %v, want %v", err, ErrHangup)
	}
}

// TestSignalledCaller sends a signal to a caller before its call is received, and after. In both cases the caller sees
// one call, one answer, and its handler runs.
func TestSignalledCaller(t *testing.T) {
	for _, received := range []bool{false, true} {
		t.Run("received="+strconv.FormatBool(received), func(t *testing.T) {
			v := start(t, compile(t), 0, "1000", "handled")
			var n *Notification
			if received {
				n = v.next(t)
			} else {
				waitForCall(t, v.cmd.Process.Pid, "1000")
			}
			if err := v.cmd.Process.Signal(unix.SIGUSR1); err != nil {
				t.Fatal(err)
			}
			if !received {
				n = v.next(t)
			}
			if err := n.Return(11); err != nil {
				t.Fatal(err)
			}
			if got := v.end(t); !slices.Equal(got, []string{"11", "1"}) {
				t.Errorf("the caller saw %v, want [11 1]", got)
			}
			if _, err := v.Recv(t.Context()); !errors.Is(err, ErrHangup) {
				t.Errorf("a second notification: %v, want %v", err, ErrHangup)
			}
		})
	}
}

// waitForCall returns when pid is inside the system call of that number.
func waitForCall(t *testing.T, pid int, number string) {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/syscall")
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(string(text), number+" ") {
			return
		}
	}
	t.Fatalf("%d does not make call %s", pid, number)
}

// TestClosedListener closes the listener while a call waits, received or not: the caller goes on with ENOSYS.
func TestClosedListener(t *testing.T) {
	for _, received := range []bool{false, true} {
		t.Run("received="+strconv.FormatBool(received), func(t *testing.T) {
			v := start(t, compile(t), 0, "1000", "1001")
			if received {
				v.next(t)
			} else {
				waitForCall(t, v.cmd.Process.Pid, "1000")
			}
			if err := v.Close(); err != nil {
				t.Fatal(err)
			}
			enosys := strconv.Itoa(-int(unix.ENOSYS))
			if got := v.end(t); !slices.Equal(got, []string{enosys, enosys}) {
				t.Errorf("the caller saw %v, want twice %s", got, enosys)
			}
		})
	}
}

// TestCancel ends a Recv by its context; the listener is good for another.
func TestCancel(t *testing.T) {
	v := start(t, compile(t), 0, "1000", "1000")
	if err := v.next(t).Return(1); err != nil {
		t.Fatal(err)
	}
	second := v.next(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	time.AfterFunc(5*time.Millisecond, func() { cancel(enough) })
	if _, err := v.Recv(ctx); !errors.Is(err, enough) {
		t.Errorf("Recv: %v, want %v", err, enough)
	}
	if err := second.Return(2); err != nil {
		t.Fatal(err)
	}
	if got := v.end(t); !slices.Equal(got, []string{"1", "2"}) {
		t.Errorf("the caller saw %v", got)
	}
	if _, err := v.Recv(t.Context()); !errors.Is(err, ErrHangup) {
		t.Errorf("Recv: %v, want %v", err, ErrHangup)
	}
}

func TestNested(t *testing.T) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{stageEnv + "=nested"}
	out, err := cmd.CombinedOutput()
	if err != nil || string(out) != "true\n" {
		t.Errorf("a second listener: %s (%v), want ErrNested", out, err)
	}
}

// TestPrivileges checks that no_new_privs is set for an ordinary user, and not for root.
func TestPrivileges(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs: CAP_SETUID")
	}
	program := compile(t)
	for uid, want := range map[uint32]string{0: "NoNewPrivs:\t0", 65534: "NoNewPrivs:\t1"} {
		v := start(t, program, uid, "1000")
		n := v.next(t)
		status, err := os.ReadFile("/proc/" + strconv.Itoa(n.TID()) + "/status")
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(status), want+"\n") {
			t.Errorf("uid %d: status lacks %q:\n%s", uid, want, status)
		}
		if err := n.Return(3); err != nil {
			t.Fatal(err)
		}
		if got := v.end(t); !slices.Equal(got, []string{"3"}) {
			t.Errorf("uid %d: the caller saw %v", uid, got)
		}
	}
}

// TestBuildLimits checks the sizes at which Build gives up instead of building a wrong jump.
func TestBuildLimits(t *testing.T) {
	var many []int
	for n := range 400 {
		many = append(many, 1000+n)
	}
	if f, err := Build(many[:100]); err != nil || len(f) == 0 {
		t.Errorf("Build of 100 numbers: %v", err)
	}
	if _, err := Build(many); err == nil {
		t.Error("Build of 400 numbers succeeds")
	}
}
