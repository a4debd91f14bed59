package tracer

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/tracer/procfs"
)

func ownState(e *Tracee) (s State, err error) {
	if s.Regs, err = e.Regs(); err != nil {
		return s, err
	}
	if s.Xstate, err = e.Xstate(); err != nil {
		return s, err
	}
	s.Sigmask, err = e.Sigmask()
	return s, err
}

// otherState has the "echo" target stay at its label hover with a pattern in
// every register. (hover is found by what the instruction looks like, because
// a doomed tracer does not see the report.)
func otherState(e *Tracee) (State, error) {
	s, err := ownState(e)
	if err != nil {
		return s, err
	}
	maps, err := e.maps()
	if err != nil {
		return s, err
	}
	r := &s.Regs
	for i, reg := range []*uint64{&r.R15, &r.R14, &r.R13, &r.R12, &r.Rbp, &r.Rbx, &r.R11, &r.R10, &r.R9,
		&r.R8, &r.Rax, &r.Rcx, &r.Rdx, &r.Rsi, &r.Rdi} {
		*reg = 0x0101010101010101 * uint64(0x40+i)
	}
	r.Orig_rax = noSyscall
	r.Eflags = 0x202 | 0x8d5 // all arithmetic flags
	r.Rsp -= 4096
	for _, m := range maps {
		if m.Perms.Exec && m.Inode != 0 {
			text := make([]byte, m.Len())
			if err := e.ReadMem(m.Start, text); err != nil {
				return s, err
			}
			r.Rip = uint64(m.Start) + uint64(bytes.Index(text, []byte{0xeb, 0xfe}))
			break
		}
	}
	x := s.Xstate
	for i := 160; i < 416; i++ { // xmm0 to xmm15
		x[i] = byte(i)
	}
	binary.LittleEndian.PutUint32(x[xstateMXCSR:], 0x3f80)
	binary.LittleEndian.PutUint64(x[xstateHeader:], binary.LittleEndian.Uint64(x[xstateHeader:])|2)
	s.Sigmask = 0xf0
	return s, nil
}

func become(e *Tracee, s State) error {
	return e.Inject(InjectOptions{}, func(r *Remote) error {
		if err := r.Become(s); err != nil {
			return err
		}
		for range 2 {
			if _, err := r.Syscall(unix.SYS_GETPID); err != nil {
				return err
			}
		}
		// It may be taken by what a killed tracer has left.
		if err := r.Move(0x60000000); err != nil && !errors.Is(err, unix.EEXIST) {
			return err
		}
		_, err := r.Syscall(unix.SYS_GETPID)
		return err
	})
}

// sameState compares what matters: a short look at an xstate in its initial
// form shows other feature bits than when it was written.
func sameState(t *testing.T, e *Tracee, want State) {
	t.Helper()
	got, err := ownState(e)
	must(t, err)
	equal(t, "registers", got.Regs, want.Regs)
	equal(t, "mask", got.Sigmask, want.Sigmask)
	equal(t, "xmm", string(got.Xstate[160:416]), string(want.Xstate[160:416]))
	equal(t, "mxcsr", string(got.Xstate[24:28]), string(want.Xstate[24:28]))
}

func TestBecome(t *testing.T) {
	g := startTarget(t, nil, "echo")
	g.until("read", func() bool { return g.status().State == 'S' })
	before := g.view()
	g.stopped(func(e *Tracee) {
		own, err := ownState(e)
		must(t, err)
		equal(t, "restart", own.Regs.Restart(), -512)
		must(t, become(e, own))
		sameState(t, e, own)
	})
	equal(t, "view", g.view(), before)
	g.echo() // the read was made again
	g.until("read", func() bool { return g.status().State == 'S' })
	g.stopped(func(e *Tracee) {
		bad, err := ownState(e)
		must(t, err)
		bad.Regs.Rip = 1 << 60
		is(t, become(e, bad), ErrState)
		bad, err = ownState(e)
		must(t, err)
		bad.Xstate[xstateHeader+7] = 0x40
		is(t, become(e, bad), ErrState)
		is(t, e.Inject(InjectOptions{}, func(r *Remote) error {
			must(t, r.Undo(unix.SYS_UMASK, 0o77))
			own, err := ownState(e)
			must(t, err)
			own.Regs = r.final.Regs
			must(t, r.Become(own))
			return unix.EDOM
		}), unix.EDOM)
	})
	equal(t, "umask", g.status().Umask, 0o22) // the undo calls were dropped
	g.echo()
	g.stopped(func(e *Tracee) {
		other, err := otherState(e)
		must(t, err)
		equal(t, "hover", other.Regs.IP(), Addr(g.word(24+65*8)))
		must(t, become(e, other))
		sameState(t, e, other)
		must(t, e.Cont(0))
		time.Sleep(2 * time.Millisecond)
		must(t, e.Interrupt())
		_, err = e.WaitStop(patience)
		must(t, err)
		sameState(t, e, other)
	})
	after := g.view()
	equal(t, "maps", after.Maps, before.Maps)
}

// The vdso may go, and with it all room for boot code.
func TestBecomeWithoutVDSO(t *testing.T) {
	run(t, func(tr *Tracer) {
		b, err := tr.Blank(BlankOptions{})
		must(t, err)
		maps, err := b.maps()
		must(t, err)
		s, err := ownState(b)
		must(t, err)
		must(t, b.Inject(InjectOptions{}, func(r *Remote) error {
			must(t, r.Become(s))
			p := r.Program()
			for _, m := range maps {
				if m.Special() != procfs.SpecialVSyscall {
					p.Munmap(m.Range)
				}
			}
			return p.Run()
		}))
		sameState(t, b, s)
		maps, err = b.maps()
		must(t, err)
		for _, m := range maps {
			if m.Special() != procfs.SpecialVSyscall {
				t.Errorf("%v is still mapped", m.String())
			}
		}
		must(t, b.Kill())
	})
}

// Whenever the tracer is killed the task is in one state or the other, and
// never goes back.
func TestTracerKilledBecoming(t *testing.T) {
	for _, scenario := range []string{"become-own", "become-interrupted"} {
		g := startTarget(t, nil, "echo")
		fds := g.view().FDs
		for n := 0; !killTracer(t, n, g, scenario, nil); n += 2 {
			g.until("life without a tracer", func() bool { return g.status().TracerPid == 0 })
			g.echo()
			equal(t, "descriptors", g.view().FDs, fds)
			equal(t, "mask", g.status().SigBlk, 1)
		}
		g.echo()
	}

	became := false
	for n, done := 0, false; !done; n += 2 {
		g := startTarget(t, nil, "echo")
		g.until("read", func() bool { return g.status().State == 'S' })
		var other State
		g.stopped(func(e *Tracee) {
			var err error
			other, err = otherState(e)
			must(t, err)
		})
		g.until("read", func() bool { return g.status().State == 'S' })
		done = killTracer(t, n, g, "become-other", nil)
		g.until("life without a tracer", func() bool { st := g.status(); return st.TracerPid == 0 && st.State != 't' })
		if !became {
			settled := func() bool { st := g.status(); return st.State == 'S' || g.hovers(other) }
			g.until("a state", settled)
			became = g.hovers(other)
		}
		if !became {
			g.echo()
		} else {
			// It may still be on its way there, by itself.
			g.until("hover", func() (there bool) {
				g.stopped(func(e *Tracee) {
					regs, err := e.Regs()
					must(t, err)
					if there = regs.IP() == other.Regs.IP(); there {
						sameState(t, e, other)
					}
				})
				return there
			})
		}
		if t.Failed() {
			t.Fatalf("killed at request %d", n)
		}
		g.end()
	}
	equal(t, "became another", became, true)
}

// hovers says whether the target, which nobody traces, has taken on s: then
// it blocks other signals and runs.
func (g *target) hovers(s State) bool {
	st := g.status()
	return st.State == 'R' && st.SigBlk == s.Sigmask
}

func TestBlank(t *testing.T) {
	var pid TID
	run(t, func(tr *Tracer) {
		b, err := tr.Blank(BlankOptions{})
		must(t, err)
		pid = b.TID()
		maps, err := b.maps()
		must(t, err)
		var names []string
		for _, m := range maps {
			names = append(names, m.Name)
		}
		if len(maps) > 6 {
			t.Errorf("maps are %q", names)
		}
		must(t, b.Inject(InjectOptions{}, func(r *Remote) error {
			got, err := r.Syscall(unix.SYS_GETPID)
			equal(t, "getpid", TID(got), pid)
			_, ferr := r.Syscall(unix.SYS_FCNTL, 0, unix.F_GETFD)
			is(t, ferr, unix.EBADF)
			return err
		}))
		must(t, b.SetExitKill(false))
		must(t, b.Detach(0)) // its pipe ends
	})
	var ws unix.WaitStatus
	_, err := unix.Wait4(int(pid), &ws, 0, nil)
	must(t, err)
	equal(t, "exit status", ws, 0)

	// One that is not detached does not outlive its tracer.
	run(t, func(tr *Tracer) {
		b, err := tr.Blank(BlankOptions{})
		must(t, err)
		pid = b.TID()
	})
	is(t, unix.Kill(int(pid), 0), unix.ESRCH)
}

func TestFork(t *testing.T) {
	if unix.Geteuid() != 0 {
		t.Skip("needs: CAP_CHECKPOINT_RESTORE (a process number of our choice)")
	}
	run(t, func(tr *Tracer) {
		b, err := tr.Blank(BlankOptions{})
		must(t, err)
		want, err := ownState(b)
		must(t, err)
		number := freePID(t)
		before, err := b.maps()
		must(t, err)
		must(t, b.Inject(InjectOptions{}, func(r *Remote) error {
			_, err = r.Fork([]TID{TID(unix.Getpid())}, unix.SIGCHLD, 0)
			is(t, err, unix.EEXIST)
			_, err = r.Fork([]TID{1 << 30}, unix.SIGCHLD, 0)
			is(t, err, unix.EINVAL)
			p := r.Program()
			p.Prctl(unix.PR_SET_NAME, Ptr(p.String("parent")))
			must(t, p.Run())
			for tid, signal := range map[TID]unix.Signal{0: 0, number: unix.SIGCHLD} {
				var tids []TID
				if tid != 0 {
					tids = []TID{tid}
				}
				c, err := r.Fork(tids, signal, 0)
				must(t, err)
				if tid != 0 {
					equal(t, "number", c.TID(), tid)
				}
				sameState(t, c, want)
				m, err := c.maps()
				must(t, err)
				equal(t, "mappings", len(m), len(before))
				g := &target{t: t, pid: c.TID()}
				equal(t, "parent", g.status().PPid, b.TID())
				equal(t, "name", g.status().Name, "parent")
				must(t, c.Inject(InjectOptions{}, func(r *Remote) error {
					got, err := r.Syscall(unix.SYS_GETPID)
					equal(t, "getpid", TID(got), c.TID())
					return err
				}))
				must(t, c.Kill())
			}
			return nil
		}))
		must(t, b.Kill())
	})
}

// TestForkBorrowed: what is registered and staged in the parent is not the
// child's to take back.
func TestForkBorrowed(t *testing.T) {
	run(t, func(tr *Tracer) {
		b, err := tr.Blank(BlankOptions{})
		must(t, err)
		want, err := ownState(b)
		must(t, err)
		before, err := b.maps()
		must(t, err)
		for _, fails := range []bool{false, true} {
			must(t, b.Inject(InjectOptions{}, func(r *Remote) error {
				p := r.Program()
				fd := p.Call(unix.SYS_EVENTFD2, Imm(0), Imm(0))
				fd.Undo(unix.SYS_CLOSE, fd)
				must(t, p.Run())
				c, err := r.ForkBorrowed(nil, unix.SIGCHLD, 0)
				must(t, err)
				equal(t, "scratch memory", c.Scratch(), r.Scratch())
				got, err := c.Syscall(unix.SYS_GETPID)
				must(t, err)
				equal(t, "getpid", TID(got), c.Tracee().TID())
				must(t, c.Undo(unix.SYS_SETPGID, 0, 0)) // to be seen whether it was made
				must(t, c.GiveBack(fails))
				sameState(t, c.Tracee(), want)
				m, err := c.Tracee().maps()
				must(t, err)
				equal(t, "mappings", len(m), len(before))
				group, err := unix.Getpgid(int(c.Tracee().TID()))
				must(t, err)
				equal(t, "undone", TID(group) == c.Tracee().TID(), fails)
				must(t, unix.Access(fmt.Sprintf("/proc/%d/fdinfo/%d", c.Tracee().TID(), fd.Result()), unix.F_OK))
				must(t, c.Tracee().Kill())
				return nil
			}))
		}
		must(t, b.Kill())
	})
}

// freePID is a number that nobody has had for a while: far behind the last one
// given out, on the wheel that pids are taken from.
func freePID(t *testing.T) TID {
	t.Helper()
	const lowest, most = 1000, 32000 // pid_max is at least 32768
	for i := range TID(1000) {
		n := lowest + (TID(unix.Getpid())-lowest+most/2+i)%(most-lowest)
		if n > 0 && errors.Is(unix.Kill(int(n), 0), unix.ESRCH) {
			return n
		}
	}
	t.Fatal("no process number is free")
	return 0
}

// All of it works for an ordinary user, on a task of the same user.
func TestNobody(t *testing.T) {
	if unix.Geteuid() != 0 {
		t.Skip("needs: CAP_SETUID")
	}
	g := startTarget(t, nobody, "echo")
	before := g.view()
	for _, scenario := range []string{"nothing", "undone", "become-own"} {
		equal(t, scenario, killTracer(t, 1<<30, g, scenario, nobody), true)
		equal(t, "view", g.view(), before)
		g.echo()
	}
}

// Without the privilege to suspend them, a task's seccomp filters apply to
// what it is made to do. One in whose way they stand is left as it was.
func TestSeccomp(t *testing.T) {
	if unix.Geteuid() != 0 {
		t.Skip("needs: CAP_SETUID")
	}
	for _, c := range []struct {
		nr       int
		scenario string
	}{{unix.SYS_MMAP, "refused"}, {unix.SYS_TGKILL, "refused"}, {unix.SYS_GETPID, "refused"}, {1000, "undone"}} {
		g := startTarget(t, nobody, "echo", fmt.Sprintf("filter=%d", c.nr))
		before := g.view()
		equal(t, c.scenario, killTracer(t, 1<<30, g, c.scenario, nobody), true)
		equal(t, "view", g.view(), before)
		g.echo()
	}
	// With it they do not.
	g := startTarget(t, nil, "echo", fmt.Sprintf("filter=%d", unix.SYS_TGKILL))
	g.stopped(func(e *Tracee) {
		equal(t, "suspended", e.SeccompSuspended(), true)
		must(t, scenarios["undone"](e))
	})
	g.echo()
}
