package tracer

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/tracer/procfs"
)

// doomed is the main function of a tracer that ends itself by SIGKILL ahead of
// its n'th request. at is "n pid scenario". Exit status 0 says that it came to
// the end of the scenario.
func doomed(at string) int {
	field := strings.Fields(at)
	n, err := strconv.Atoi(field[0])
	if err != nil {
		return 3
	}
	pid, err := strconv.Atoi(field[1])
	if err != nil {
		return 3
	}
	ownVDSO() // its requests are not about the target
	beforeRequest = func() {
		if n--; n < 0 {
			_ = unix.Kill(os.Getpid(), unix.SIGKILL)
			select {}
		}
	}
	_, err = Run(func(tr *Tracer) (struct{}, error) {
		e, err := tr.Seize(TID(pid), Options{})
		if err != nil {
			return struct{}{}, err
		}
		if err := e.Interrupt(); err != nil {
			return struct{}{}, err
		}
		if _, err := e.WaitStop(patience); err != nil {
			return struct{}{}, err
		}
		if err := scenarios[field[2]](e); err != nil {
			return struct{}{}, err
		}
		return struct{}{}, e.Detach(0)
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, "doomed tracer:", err)
		return 2
	}
	return 0
}

var errScenario = errors.New("the scenario's end")

// Each leaves the task as it was, but become-other.
var scenarios = map[string]func(*Tracee) error{
	"refused": func(e *Tracee) error {
		err := e.Inject(InjectOptions{}, func(r *Remote) error { return nil })
		if !errors.Is(err, unix.EACCES) {
			return fmt.Errorf("not refused: %w", err)
		}
		return nil
	},
	"become-own": func(e *Tracee) error {
		s, err := ownState(e)
		if err != nil {
			return err
		}
		return become(e, s)
	},
	"become-other": func(e *Tracee) error {
		s, err := otherState(e)
		if err != nil {
			return err
		}
		return become(e, s)
	},
	"nothing": func(e *Tracee) error {
		return e.Inject(InjectOptions{}, func(*Remote) error { return nil })
	},
	"undone": func(e *Tracee) error {
		err := e.Inject(InjectOptions{Avoid: []Range{{Start: 0x10000, End: 0x20000}}}, func(r *Remote) error {
			p := r.Program()
			file := p.Openat(FD(unix.AT_FDCWD), "/dev/null", unix.O_RDWR, 0)
			file.Undo(unix.SYS_CLOSE, file)
			p.Dup3(file, FD(100), 0).Undo(unix.SYS_CLOSE, FD(100))
			m := p.Mmap(Range{Start: 0, End: 1 << 20}, unix.PROT_READ|unix.PROT_WRITE, scratchFlags, FD(-1), 0)
			m.Undo(unix.SYS_MUNMAP, m, Imm(1<<20))
			if err := p.Run(); err != nil {
				return err
			}
			null, err := os.Open("/dev/null")
			if err != nil {
				return err
			}
			defer null.Close()
			if _, err := r.SendFD(null); err != nil {
				return err
			}
			if err := r.Move(0x60000000); err != nil {
				return err
			}
			again := r.Program()
			again.Dup3(file, FD(101), 0).Undo(unix.SYS_CLOSE, FD(101))
			if err := again.Run(); err != nil {
				return err
			}
			return errScenario
		})
		if !errors.Is(err, errScenario) {
			return err
		}
		return nil
	},
}

func init() {
	scenarios["fork"] = func(e *Tracee) error {
		err := e.Inject(InjectOptions{}, func(r *Remote) error {
			c, err := r.Fork(nil, unix.SIGCHLD, 0)
			if err != nil {
				return err
			}
			err = c.Inject(InjectOptions{}, func(own *Remote) error {
				pid, err := own.Syscall(unix.SYS_GETPID)
				if err == nil && pid == uint64(r.self) {
					err = errors.New("the child has the number of its parent")
				}
				return err
			})
			return errors.Join(errScenario, err, c.Kill())
		})
		if err.Error() != errScenario.Error() {
			return err
		}
		return nil
	}
	scenarios["fork-borrowed"] = func(e *Tracee) error {
		err := e.Inject(InjectOptions{}, func(r *Remote) error {
			if err := r.Undo(unix.SYS_CLOSE, 1<<30); err != nil {
				return err
			}
			c, err := r.ForkBorrowed(nil, unix.SIGCHLD, 0)
			if err != nil {
				return err
			}
			pid, err := c.Syscall(unix.SYS_GETPID)
			if err == nil && (pid == uint64(r.self) || pid != uint64(c.self)) {
				err = errors.New("the child has not its own number")
			}
			return errors.Join(errScenario, err, c.GiveBack(false), c.Tracee().Kill())
		})
		if err.Error() != errScenario.Error() {
			return err
		}
		return nil
	}
}

func init() {
	scenarios["become-interrupted"] = func(e *Tracee) error {
		s, err := ownState(e)
		if err != nil {
			return err
		}
		return e.Inject(InjectOptions{}, func(r *Remote) error {
			if err := r.Become(s); err != nil {
				return err
			}
			p := r.Program()
			moment := p.Bytes(words(0, 1e6))
			if err := p.Run(); err != nil {
				return err
			}
			if _, err := r.Interrupted(unix.SYS_NANOSLEEP, uint64(moment), 0); err != nil {
				return err
			}
			return r.Become(s)
		})
	}
}

// children lists those of the target.
func (g *target) children() []TID {
	g.t.Helper()
	p, err := procfs.Open(g.pid)
	must(g.t, err)
	defer p.Close()
	pids, err := p.Children()
	must(g.t, err)
	return pids
}

// killTracer runs doomed, and says whether it came to its end.
func killTracer(t *testing.T, n int, g *target, scenario string, cred *syscall.Credential) (finished bool) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	if cred != nil {
		cmd.Path = copyOfTest(t)
	}
	cmd.Env = append(os.Environ(), fmt.Sprintf("TRACER_DOOMED=%d %d %s", n, g.pid, scenario))
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: cred}
	out, err := cmd.CombinedOutput()
	if err == nil {
		return true
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() && ws.Signal() == unix.SIGKILL {
			return false
		}
	}
	t.Fatalf("tracer to be killed at request %d: %v\n%s", n, err, out)
	return false
}

// copyOfTest is this program where everybody may execute it.
func copyOfTest(t *testing.T) string {
	t.Helper()
	if _, err := buildTarget(); err != nil {
		t.Fatal(err)
	}
	name := targetDir + "/test"
	if _, err := os.Stat(name); err == nil {
		return name
	}
	program, err := os.ReadFile("/proc/self/exe")
	must(t, err)
	must(t, os.WriteFile(name, program, 0o755))
	return name
}

// A task goes on as before whenever its tracer is killed: with its registers
// (it checks itself), descriptors, mappings and signal mask.
func TestTracerKilled(t *testing.T) {
	for _, c := range []struct {
		target, scenario string
		cred             *syscall.Credential
		step             int
	}{
		{"spin", "nothing", nil, 1},
		{"spin", "undone", nil, 1},
		{"nap", "nothing", nil, 1},
		{"echo", "undone", nil, 3},
		{"spin", "nothing", nobody, 3},
		{"spin", "fork", nil, 1},
	} {
		name := c.target + "-" + c.scenario
		if c.cred != nil {
			name += "-nobody"
		}
		t.Run(name, func(t *testing.T) {
			g := startTarget(t, c.cred, c.target)
			before := g.view()
			for n := 0; ; n += c.step {
				if killTracer(t, n, g, c.scenario, c.cred) {
					if n < 20 {
						t.Errorf("finished after %d requests: the count is wrong", n)
					}
					t.Logf("%d requests", n)
					break
				}
				g.until("life without a tracer", func() bool {
					st := g.status()
					return st.TracerPid == 0 && st.State != 't'
				})
				g.until("end of its children", func() bool { return len(g.children()) == 0 })
				if c.target == "echo" {
					g.echo()
				}
				g.progressed(c.target)
				var after view
				for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
					if after = g.view(); after == before || time.Now().After(deadline) {
						break
					}
				}
				if after != before {
					t.Errorf("killed at request %d, before:\n%+v\nafter:\n%+v", n, before, after)
					before = after
				}
				if bad := g.word(8); bad != 0 {
					t.Fatalf("killed at request %d: fault %#x", n, g.word(16))
				}
			}
		})
	}
}

func (g *target) progressed(kind string) {
	g.t.Helper()
	if kind != "echo" {
		g.progress()
	}
}
