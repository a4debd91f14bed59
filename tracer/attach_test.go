package tracer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestRun(t *testing.T) {
	n, err := Run(func(tr *Tracer) (int, error) { return 7, unix.EDOM })
	if n != 7 || err != unix.EDOM {
		t.Errorf("got %v, %v", n, err)
	}
	defer func() {
		p, ok := recover().(*Panic)
		if !ok || !errors.Is(p, os.ErrClosed) || len(p.Stack) == 0 {
			t.Errorf("panic carried as %v", p)
		}
	}()
	_, _ = Run(func(tr *Tracer) (int, error) { panic(os.ErrClosed) })
}

func TestOtherThreadPanics(t *testing.T) {
	g := startTarget(t, nil, "spin")
	run(t, func(tr *Tracer) {
		e := seize(t, tr, g.pid)
		caught := make(chan any)
		go func() {
			defer func() { caught <- recover() }()
			_, _ = e.Regs()
		}()
		if v := <-caught; v == nil {
			t.Error("no panic on another thread")
		}
	})
}

func TestSeizeErrors(t *testing.T) {
	g := startTarget(t, nil, "spin")
	run(t, func(tr *Tracer) {
		_, err := tr.Seize(1<<22-1, Options{})
		is(t, err, ErrGone)
		e := seize(t, tr, g.pid)
		_, err = tr.Seize(g.pid, Options{})
		is(t, err, unix.EPERM)
		must(t, e.Detach(0))
		_, err = e.Regs()
		is(t, err, ErrGone)
	})
}

// What is attached when the function returns goes on.
func TestRunReleases(t *testing.T) {
	for _, c := range []string{"stopped", "running"} {
		g := startTarget(t, nil, "spin")
		run(t, func(tr *Tracer) {
			e := seize(t, tr, g.pid)
			if c == "running" {
				must(t, e.Cont(0))
				_, err := e.Regs()
				is(t, err, ErrRunning)
			}
		})
		equal(t, c+": tracer", g.status().TracerPid, 0)
		g.progress()
	}
}

func TestExitKill(t *testing.T) {
	g := startTarget(t, nil, "spin")
	run(t, func(tr *Tracer) {
		e := seize(t, tr, g.pid)
		must(t, e.SetExitKill(true))
		must(t, e.SetExitKill(false))
		must(t, e.SetExitKill(true))
	})
	g.ended = true
	is(t, unix.Kill(int(g.pid), 0), unix.ESRCH) // reaped: it is a child of ours
}

func TestStopDetach(t *testing.T) {
	for _, kind := range []string{"spin", "nap", "echo"} {
		g := startTarget(t, nil, kind)
		before := g.view()
		for range 20 {
			g.stopped(func(e *Tracee) {
				_, err := e.WaitStop(0)
				is(t, err, ErrTimeout)
				_, err = e.WaitStop(3 * time.Millisecond)
				is(t, err, ErrTimeout)
			})
		}
		if kind == "echo" {
			g.echo()
		} else {
			g.progress()
		}
		equal(t, kind, g.view(), before)
	}
}

// A task stopped by a signal is stopped again afterwards, whatever was done.
func TestGroupStop(t *testing.T) {
	g := startTarget(t, nil, "spin")
	must(t, g.proc.Signal(unix.SIGSTOP))
	g.until("stop", func() bool { return g.status().State == 'T' })
	run(t, func(tr *Tracer) {
		e, err := tr.Seize(g.pid, Options{})
		must(t, err)
		must(t, e.Interrupt())
		stop, err := e.WaitStop(patience)
		must(t, err)
		equal(t, "group stop", stop.GroupStop(), true)
		for range 3 {
			must(t, e.Inject(InjectOptions{}, func(r *Remote) error {
				pid, err := r.Syscall(unix.SYS_GETPID)
				equal(t, "getpid", TID(pid), g.pid)
				return err
			}))
		}
		must(t, e.Detach(0))
	})
	g.until("stop", func() bool { return g.status().State == 'T' })
	loops := g.loops()
	time.Sleep(20 * time.Millisecond)
	equal(t, "loops while stopped", g.loops(), loops)
	must(t, g.proc.Signal(unix.SIGCONT))
	g.progress()
}

func TestSetResult(t *testing.T) {
	g := startTarget(t, nil, "echo")
	g.until("read", func() bool { return g.status().State == 'S' })
	g.stopped(func(e *Tracee) {
		regs, err := e.Regs()
		must(t, err)
		equal(t, "in a call", regs.InSyscall(), true)
		equal(t, "call", regs.SyscallNr(), unix.SYS_READ)
		equal(t, "restart", regs.Restart(), -512)
		must(t, e.SetResult(-int64(unix.EDOM)))
	})
	g.until("fault", func() bool { return g.word(8) == 1 })
	equal(t, "fault", g.word(16), 0x3000+uint64(unix.EDOM))
	binary.NativeEndian.PutUint64(g.shared[8:], 0)
	g.echo()
}

func TestMemory(t *testing.T) {
	g := startTarget(t, nil, "critical") // its area is writable memory of its own
	g.until("address", func() bool { return g.word(24+65*8) != 0 })
	addr := Addr(g.word(24 + 65*8))
	g.stopped(func(e *Tracee) {
		want := []byte{1, 2, 3, 4, 5}
		at := addr + 32 - 5 // its padding
		must(t, e.WriteMem(at, want))
		got := make([]byte, 5)
		must(t, e.ReadMem(at, got))
		equal(t, "content", string(got), string(want))
		must(t, e.ReadV([]Range{{Start: at + 3, End: at + 5}, {Start: at, End: at + 3}}, got))
		equal(t, "content in pieces", string(got), "\x04\x05\x01\x02\x03")
		is(t, e.ReadMem(0x1000, got), unix.EFAULT)
		is(t, e.WriteMem(0x400000, want), unix.EFAULT) // read-only
		must(t, e.ReadMem(0x400000, got))
		must(t, e.PokeMem(0x400000+8, want)) // padding of the ELF header
		must(t, e.ReadMem(0x400000+8, got))
		equal(t, "poked", string(got), string(want))
		must(t, e.pokeWords(0x400000+8, make([]byte, 7)))
		must(t, e.ReadMem(0x400000+8, got))
		equal(t, "poked by word", string(got), string(make([]byte, 5)))
		is(t, e.PokeMem(0x1000, want), unix.EFAULT)
		is(t, e.PokeMem(0x1000, make([]byte, 8)), unix.EFAULT)
	})
}

func TestXstate(t *testing.T) {
	g := startTarget(t, nil, "spin")
	g.stopped(func(e *Tracee) {
		x, err := e.Xstate()
		must(t, err)
		equal(t, "size", len(x), XstateSize())
		equal(t, "features", XstateFeatures(x), XFeatures())
		must(t, ValidateXstate(x))
		must(t, e.SetXstate(x))
		must(t, e.SetXstate(append(x, make([]byte, 64)...)))
		again, err := e.Xstate()
		must(t, err)
		equal(t, "xstate", string(again), string(x[:len(again)]))
		// What the check refuses the kernel refuses too.
		bad := append([]byte(nil), again...)
		bad[xstateMXCSR+3] = 0x80
		is(t, e.SetXstate(bad), ErrState)
		is(t, e.setRegset(ntX86Xstate, bad), unix.EINVAL)
	})
}

func TestSignalState(t *testing.T) {
	g := startTarget(t, nil, "spin")
	must(t, g.proc.Signal(unix.SIGHUP)) // blocked there
	g.until("signal", func() bool { return g.status().ShdPnd == 1 })
	must(t, unix.Tgkill(int(g.pid), int(g.pid), unix.SIGHUP))
	g.stopped(func(e *Tracee) {
		mask, err := e.Sigmask()
		must(t, err)
		equal(t, "mask", mask, 1)
		for _, shared := range []bool{true, false} {
			infos, err := e.PeekSiginfo(shared)
			must(t, err)
			if len(infos) != 1 || infos[0].Signo() != unix.SIGHUP || infos[0].PID() != TID(os.Getpid()) {
				t.Errorf("shared %v: %x", shared, infos)
			}
		}
		c, err := e.Rseq()
		must(t, err)
		equal(t, "rseq", c, RseqConfig{})
		head, n, err := e.RobustList()
		must(t, err)
		if head == 0 || n != 24 {
			t.Errorf("robust list at %v of %d bytes", head, n)
		}
		info, err := e.Siginfo()
		must(t, err)
		equal(t, "stop", info.Signo(), unix.SIGTRAP)
	})
	g.stopped(func(e *Tracee) { must(t, e.Detach(unix.SIGUSR1)) })
	g.until("signal", func() bool { return g.signals(unix.SIGUSR1) == 1 })
}

// A thread inside a restartable sequence comes out at its abort handler.
func TestRseq(t *testing.T) {
	g := startTarget(t, nil, "critical")
	for range 50 {
		aborts := g.signals(0)
		g.stopped(func(e *Tracee) {
			c, err := e.Rseq()
			must(t, err)
			equal(t, "signature", c.Signature, 0x53053053)
			var word [8]byte
			must(t, e.ReadMem(c.Pointer+rseqCSPointer, word[:]))
			equal(t, "rseq_cs", binary.LittleEndian.Uint64(word[:]), 0)
			must(t, e.Inject(InjectOptions{}, func(r *Remote) error {
				_, err := r.Syscall(unix.SYS_GETPID)
				return err
			}))
		})
		g.until("abort", func() bool { return g.signals(0) > aborts })
	}
}

func TestThread(t *testing.T) {
	g := startTarget(t, nil, "threads")
	g.progress()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", g.pid))
	must(t, err)
	equal(t, "threads", len(entries), 2)
	run(t, func(tr *Tracer) {
		for _, entry := range entries {
			tid := TID(atoi(t, entry.Name()))
			e := seize(t, tr, tid)
			leader, err := e.Leader()
			must(t, err)
			equal(t, "leader", leader, g.pid)
			must(t, e.Inject(InjectOptions{}, func(r *Remote) error {
				got, err := r.Syscall(unix.SYS_GETTID)
				equal(t, "gettid", TID(got), tid)
				return err
			}))
		}
		// Both at once.
		must(t, tr.tracees[g.pid].Inject(InjectOptions{}, func(r *Remote) error {
			for tid, e := range tr.tracees {
				if tid != g.pid {
					must(t, e.Inject(InjectOptions{}, func(r2 *Remote) error {
						if r2.Scratch().Overlaps(r.Scratch()) || r.boot == r2.boot {
							t.Error("two loans in one place")
						}
						_, err := r2.Syscall(unix.SYS_GETPID)
						return err
					}))
				}
			}
			_, err := r.Syscall(unix.SYS_GETPID)
			return err
		}))
	})
	g.progress()
	run(t, func(tr *Tracer) {
		for _, entry := range entries {
			seize(t, tr, TID(atoi(t, entry.Name())))
		}
		must(t, tr.tracees[g.pid].Kill())
	})
}
