package tracer

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/tracer/procfs"
)

// siblingOf seizes and stops the one other thread of a "team".
func siblingOf(e *Tracee) (*Tracee, error) {
	if _, err := e.Leader(); err != nil {
		return nil, err
	}
	tids, err := e.threads()
	if err != nil {
		return nil, err
	}
	o, err := e.t.Seize(tids[1], Options{}) // others are left from spawn-become
	if err != nil {
		return nil, err
	}
	if err := o.Interrupt(); err != nil {
		return nil, err
	}
	_, err = o.WaitStop(patience)
	return o, err
}

// visit has the other thread of a "team" tell its number, and say so.
func visit(e *Tracee) (err error) {
	o, err := siblingOf(e)
	if err != nil {
		return err
	}
	defer func() {
		if !o.gone {
			err = errors.Join(err, o.Detach(0))
		}
	}()
	own, err := o.State()
	if err != nil {
		return err
	}
	return e.Inject(InjectOptions{}, func(r *Remote) error {
		s, err := r.Visit([]*Tracee{o})
		if err != nil {
			return err
		}
		p := s.Program(0)
		tid := p.Call(unix.SYS_GETTID)
		missing := p.Close(FD(1 << 20)).Tolerate()
		name := p.Buffer(16)
		p.Prctl(unix.PR_GET_NAME, Ptr(name))
		if err := s.Run([]State{own}); err != nil {
			return err
		}
		text := make([]byte, 7)
		if err := r.ReadMem(name, text); err != nil {
			return err
		}
		now, err := o.State()
		if err != nil {
			return err
		}
		switch {
		case TID(tid.Result()) != o.tid:
			return fmt.Errorf("thread is %d, not %d", tid.Result(), o.tid)
		case !errors.Is(missing.Err(), unix.EBADF):
			return fmt.Errorf("close returned %w", missing.Err())
		case string(text) != "target\x00":
			return fmt.Errorf("name is %q", text)
		case now.Regs != own.Regs || now.Sigmask != own.Sigmask || string(now.Xstate) != string(own.Xstate):
			return errors.New("state of the sibling is not as before")
		}
		return s.Close()
	})
}

// spawn makes two threads that become what the leader is, which waits; or are
// undone.
func spawn(e *Tracee, undo bool, tids ...TID) error {
	if len(tids) == 0 {
		tids = []TID{0, 0}
	}
	own, err := e.State()
	if err != nil {
		return err
	}
	var s *Siblings
	err = e.Inject(InjectOptions{}, func(r *Remote) error {
		at, err := e.choosePlace([]Range{{Start: 0x10000, End: 0x20000}}, SiblingsSize(2))
		if err != nil {
			return err
		}
		if s, err = r.Spawn(at, tids); err != nil {
			return err
		}
		if undo {
			return errScenario
		}
		states := []State{own, own}
		for i := range states {
			p := s.Program(i)
			p.ArchPrctl(0x1002, own.Regs.Fs_base) // ARCH_SET_FS
			p.Prctl(unix.PR_SET_NAME, Ptr(p.String("new")))
		}
		if err := errors.Join(s.Prepare(states), r.Become(own)); err != nil {
			return err
		}
		p := r.Program()
		s.Release(p)
		if err := p.Run(); err != nil {
			return err
		}
		if err := s.Halt(); err != nil {
			return err
		}
		return s.Settle(states)
	})
	if undo && errors.Is(err, errScenario) {
		return nil
	}
	if err != nil {
		return err
	}
	return s.Detach()
}

func init() {
	scenarios["visit"] = visit
	scenarios["spawn-undone"] = func(e *Tracee) error { return spawn(e, true) }
	scenarios["spawn-become"] = func(e *Tracee) error { return spawn(e, false) }
}

// tasks returns the names of the target's threads.
func (g *target) tasks() (names []string) {
	g.t.Helper()
	p, err := procfs.Open(g.pid)
	must(g.t, err)
	defer p.Close()
	tids, err := p.Threads()
	must(g.t, err)
	for _, tid := range tids {
		thread, err := procfs.OpenThread(g.pid, tid)
		if errors.Is(err, procfs.ErrGone) {
			continue
		}
		must(g.t, err)
		name, err := thread.Comm()
		thread.Close()
		if errors.Is(err, procfs.ErrGone) {
			continue
		}
		must(g.t, err)
		names = append(names, name)
	}
	return names
}

// startTeam waits until the first thread rests: pthread_create blocks signals.
func startTeam(t *testing.T) *target {
	t.Helper()
	g := startTarget(t, nil, "team")
	g.until("team", func() bool { return len(g.tasks()) == 2 && g.status().State == 'S' })
	return g
}

// A thread that checks all its registers notices nothing of many visits.
func TestVisit(t *testing.T) {
	g := startTeam(t)
	before := g.view()
	for range 200 {
		g.stopped(func(e *Tracee) { must(t, visit(e)) })
	}
	equal(t, "view", g.view(), before)
	g.progress()
}

func TestSpawn(t *testing.T) {
	g := startTeam(t)
	before := g.view()
	g.stopped(func(e *Tracee) { must(t, spawn(e, true)) })
	g.until("end of the new threads", func() bool { return len(g.tasks()) == 2 })
	equal(t, "view after undo", g.view(), before)
	g.stopped(func(e *Tracee) { must(t, spawn(e, false)) })
	equal(t, "threads", strings.Join(g.tasks(), " "), "target target new new")
	equal(t, "view", g.view(), before)
	g.until("rest of the new threads", func() bool { return g.status().State == 'S' })
	g.progress()
	// They can be visited and spawn others like any thread.
	g.stopped(func(e *Tracee) { must(t, visit(e)) })
	equal(t, "view", g.view(), before)
}

// Threads come in the order in which they were made, also where the numbers have
// begun anew since the process was.
func TestSpawnBelow(t *testing.T) {
	g := startTeam(t)
	var below []TID
	for tid := TID(g.pid) - 1; len(below) < 2 && tid > 300; tid-- { // RESERVED_PIDS of kernel/pid.c
		if unix.Kill(int(tid), 0) == unix.ESRCH {
			below = append(below, tid)
		}
	}
	var mayChoose bool
	g.stopped(func(e *Tracee) {
		err := spawn(e, false, below...)
		if mayChoose = !errors.Is(err, unix.EPERM); !mayChoose {
			return
		}
		must(t, err)
		tids, err := e.threads()
		must(t, err)
		if len(tids) != 4 || tids[0] != e.tid || !slices.Equal(tids[2:], below) {
			t.Errorf("threads of %d are %v, the last of them made as %v", e.tid, tids, below)
		}
		must(t, visit(e))
	})
	g.progress()
	if !mayChoose {
		t.Skip("needs: CAP_CHECKPOINT_RESTORE (numbers of our choice)")
	}
}

// Spawn refuses a number that is taken, and leaves nothing.
func TestSpawnTaken(t *testing.T) {
	g := startTeam(t)
	before := g.view()
	g.stopped(func(e *Tracee) {
		err := e.Inject(InjectOptions{}, func(r *Remote) error {
			_, err := r.Spawn(0x7000_0000_0000, []TID{0, 0, TID(unix.Getpid())})
			return err
		})
		is(t, err, unix.EEXIST)
	})
	g.until("end of the new threads", func() bool { return len(g.tasks()) == 2 })
	equal(t, "view", g.view(), before)
	g.progress()
}

// Wherever the tracer is killed, visited threads go on as before and spawned
// ones end or go on, all of them alike. The memory that they shared stays.
func TestTracerKilledAmongSiblings(t *testing.T) {
	for _, scenario := range []string{"visit", "spawn-undone", "spawn-become"} {
		t.Run(scenario, func(t *testing.T) {
			g := startTeam(t)
			fds := g.view().FDs
			masks := g.view().Masks
			threads := 2
			for n := 0; ; n++ {
				done := killTracer(t, n, g, scenario, nil)
				g.until("life without a tracer", func() bool {
					st := g.status()
					return st.TracerPid == 0 && st.State != 't'
				})
				g.progress()
				var names []string
				for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
					names = g.tasks()
					n := len(names)
					settled := n == threads || scenario == "spawn-become" && n == threads+2 && names[n-1] == "new" && names[n-2] == "new"
					if settled && g.view().Masks == masks || time.Now().After(deadline) {
						break
					}
				}
				switch {
				case len(names) == threads:
				case scenario == "spawn-become" && len(names) == threads+2 && names[threads] == "new" && names[threads+1] == "new":
					threads += 2
				default:
					t.Fatalf("killed at request %d: threads are %v", n, names)
				}
				after := g.view()
				equal(t, "descriptors", after.FDs, fds)
				equal(t, "masks", after.Masks, masks)
				if bad := g.word(8); bad != 0 {
					t.Fatalf("killed at request %d: fault %#x", n, g.word(16))
				}
				if done {
					if n < 20 {
						t.Errorf("finished after %d requests: the count is wrong", n)
					}
					t.Logf("%d requests", n)
					break
				}
			}
		})
	}
}
