package tracer

import (
	"errors"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Whatever the program does about SIGTRAP stays.
func TestTrapDisposition(t *testing.T) {
	for _, c := range []struct {
		how           string
		ign, cgt, blk uint64
	}{{"handled", 0, 1, 0}, {"ignore-trap", 1, 0, 0}, {"block-trap", 0, 1, 1}} {
		g := startTarget(t, nil, "spin", c.how)
		g.stopped(func(e *Tracee) {
			must(t, e.Inject(InjectOptions{}, func(r *Remote) error {
				_, err := r.Syscall(unix.SYS_GETPID)
				return err
			}))
		})
		g.progress()
		st := g.status()
		trap := func(mask uint64) uint64 { return mask >> (unix.SIGTRAP - 1) & 1 }
		equal(t, c.how+": ignored", trap(st.SigIgn), c.ign)
		equal(t, c.how+": caught", trap(st.SigCgt), c.cgt)
		equal(t, c.how+": blocked", trap(st.SigBlk), c.blk)
		must(t, g.proc.Signal(unix.SIGTRAP))
		g.progress()
		equal(t, c.how+": handled", g.signals(unix.SIGTRAP), c.cgt&^c.blk)
	}
}

// Signals that come during a loan arrive after it.
func TestSignalsDuring(t *testing.T) {
	g := startTarget(t, nil, "spin")
	g.stopped(func(e *Tracee) {
		must(t, e.Inject(InjectOptions{}, func(r *Remote) error {
			equal(t, "signal to park with", r.signal, unix.SIGWINCH) // the target handles SIGURG
			must(t, g.proc.Signal(unix.SIGUSR1))
			must(t, g.proc.Signal(unix.SIGURG))
			_, err := r.Syscall(unix.SYS_GETPID)
			must(t, err)
			equal(t, "handled", g.signals(unix.SIGUSR1), 0)
			must(t, g.proc.Signal(unix.SIGWINCH))
			_, err = r.Syscall(unix.SYS_GETPID)
			must(t, err)
			equal(t, "held", len(r.held), 1)
			return nil
		}))
		st := g.status()
		equal(t, "SIGWINCH pending", st.SigPnd|st.ShdPnd, bit(unix.SIGUSR1)|bit(unix.SIGURG)|bit(unix.SIGWINCH))
	})
	g.until("signals", func() bool { return g.signals(unix.SIGUSR1) == 1 && g.signals(unix.SIGURG) == 1 })

	g.stopped(func(e *Tracee) {
		must(t, e.Inject(InjectOptions{}, func(r *Remote) error {
			must(t, g.proc.Signal(unix.SIGSTOP))
			_, err := r.Syscall(unix.SYS_GETPID)
			return err
		}))
	})
	g.until("stop", func() bool { return g.status().State == 'T' })
	must(t, g.proc.Signal(unix.SIGCONT))
	g.progress()

	// A SIGCONT that comes behind a SIGSTOP takes it back.
	g.stopped(func(e *Tracee) {
		must(t, e.Inject(InjectOptions{}, func(r *Remote) error {
			must(t, g.proc.Signal(unix.SIGSTOP))
			_, err := r.Syscall(unix.SYS_GETPID)
			must(t, err)
			must(t, g.proc.Signal(unix.SIGCONT))
			_, err = r.Syscall(unix.SYS_GETPID)
			return err
		}))
	})
	g.progress()
}

func TestDeathDuring(t *testing.T) {
	read, write, err := os.Pipe()
	must(t, err)
	defer read.Close()
	defer write.Close()
	for _, how := range []string{"killed while parked", "killed in a call", "exits"} {
		g := startTarget(t, nil, "spin")
		run(t, func(tr *Tracer) {
			e := seize(t, tr, g.pid)
			err := e.Inject(InjectOptions{}, func(r *Remote) error {
				p := r.Program()
				switch how {
				case "killed while parked":
					must(t, g.proc.Kill())
					p.Getpid()
				case "killed in a call":
					time.AfterFunc(20*time.Millisecond, func() { _ = g.proc.Kill() })
					p.Call(unix.SYS_PAUSE)
				case "exits":
					p.Call(unix.SYS_EXIT_GROUP, Imm(3))
				}
				err := p.Run()
				is(t, err, ErrGone)
				_, err = r.Syscall(unix.SYS_GETPID)
				is(t, err, ErrGone)
				return err
			})
			is(t, err, ErrGone)
			_, err = e.Regs()
			is(t, err, ErrGone)
			must(t, e.Kill())
		})
	}
}

// A bad argument cell does no harm.
func TestFault(t *testing.T) {
	g := startTarget(t, nil, "spin")
	before := g.view()
	g.stopped(func(e *Tracee) {
		err := e.Inject(InjectOptions{}, func(r *Remote) error {
			p := r.Program()
			dup := p.Dup(FD(0))
			dup.Undo(unix.SYS_CLOSE, dup)
			p.Call(unix.SYS_CLOSE, Cell(0x1000))
			return p.Run()
		})
		var fault *FaultError
		if !errors.As(err, &fault) || fault.Signal != unix.SIGSEGV {
			t.Errorf("error is %v", err)
		}
	})
	equal(t, "view", g.view(), before)
	g.progress()
}
