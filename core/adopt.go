package core

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/resource"
	"github.com/crshim/crshim/core/task"
	"github.com/crshim/crshim/tracer"
)

// A task of a restarter's own making takes the place of a child that would be
// forked: what such a child inherits is handed over to it (resource.Adopt). Until
// all are in place it can go back, as the root can.

// adopt catches the tasks that have mustered, and checks that they stand where the
// image has them. Nothing is done to any of them before.
func (r *restart) adopt(t *tracer.Tracer) error {
	for i, a := range r.team {
		p := &plant{process: r.forest.living[i+1], caller: a}
		r.plants = append(r.plants, p)
		var err error
		if p.tracee, err = task.Catch(t, a.waiting); err != nil {
			if task.Over(a.process) || !a.waiting.Answered() && a.waiting.Valid() != nil {
				return taskMissing(a.process) // killed since it came
			}
			return err
		}
		if p.view, err = resource.Look(p.tracee.TID(), true); err != nil {
			return err
		}
	}
	for _, p := range r.plants[1:] {
		if err := r.checkTask(p); err != nil {
			return err
		}
	}
	if r.team != nil {
		r.warn("the processes of the tree have the ids that their restarter gave them: a program that has noted the id of another one does not know it any more")
	}
	return nil
}

// checkTask refuses a task that cannot become what the image has in its place.
func (r *restart) checkTask(p *plant) error {
	if err := r.checkCaller(p); err != nil {
		return err
	}
	wrong := func(code fault.Code, format string, args ...any) error {
		return &fault.Error{Code: code, Object: p.view.Name(), Detail: fmt.Sprintf(format, args...)}
	}
	root, parent := r.plants[0].view, r.plants[p.parent].view
	switch now, stat := p.view.Status, p.view.Stat; {
	case now.Uid != root.Status.Uid || now.Gid != root.Status.Gid:
		return wrong(fault.TaskUser, "of user %d", now.Uid[1])
	case stat.PPid != parent.PID:
		return wrong(fault.TaskPlace, "of %d, not %d", stat.PPid, parent.PID)
	case stat.ExitSignal != p.ExitSignal:
		return wrong(fault.TaskPlace, "signal %d, not %d", stat.ExitSignal, p.ExitSignal)
	case p.Shares != 0:
		return wrong(fault.TaskPlace, "shares descriptors or directories with its parent")
	}
	leads := p.view.Stat.Session == p.view.PID
	if p.leads = p.VSession == p.VPID; leads != p.leads {
		return wrong(fault.TaskSession, "session %d", p.view.Stat.Session)
	}
	if session := r.sessionOf(p); !leads && p.view.Stat.Session != session {
		return wrong(fault.TaskSession, "session %d, not %d", p.view.Stat.Session, session)
	}
	return nil
}

// sessionOf is the session that a task has to be in, 0 if whoever led that is not
// in the image.
func (r *restart) sessionOf(p *plant) PID {
	for _, leader := range r.plants {
		if leader.VPID == p.VSession {
			return leader.view.Stat.Session
		}
	}
	if p.VSession != r.plants[0].VSession {
		return 0
	}
	return r.plants[0].view.Stat.Session
}

// enlist prepares a task for the zombies that it will have.
func (r *restart) enlist(p *plant) error {
	for i := range r.forest.ended {
		if parent := r.forest.ended[i].parent; r.plants[parent] == p {
			return r.expectChildren(parent)
		}
	}
	return nil
}

// lendImage gives a task the image, under a number that nobody else wants.
func (r *restart) lendImage(p *plant) (tracer.FD, error) {
	fd, err := p.remote.SendFD(r.in)
	if err != nil {
		return -1, fmt.Errorf("hand the image to %s: %w", p.view.Name(), err)
	}
	prog := p.remote.Program()
	row := prog.Call(unix.SYS_FCNTL, tracer.Imm(uint64(fd)), tracer.Imm(unix.F_DUPFD_CLOEXEC), tracer.Imm(uint64(r.plants[p.parent].builder.Beyond())))
	row.Undo(unix.SYS_CLOSE, row)
	prog.Close(fd)
	if err := prog.Run(); err != nil {
		return -1, &fault.Error{Code: fault.DescriptorLimit, Object: "the image", Err: err}
	}
	return row.FD(), nil
}

// dismiss lets the tasks go that the restart has not made anything of.
func (r *restart) dismiss() error {
	var errs []error
	for _, p := range r.plants {
		switch {
		case p.caller == nil || p.gone || p.tracee == nil:
		case p.lost:
			errs = append(errs, p.tracee.Kill())
		default:
			errs = append(errs, p.tracee.SetResult(-int64(unix.EAGAIN)), p.tracee.Detach(0))
		}
	}
	return errors.Join(errs...)
}

// tell has the calls of the tasks end.
func (r *restart) tell(err error) {
	for i, a := range r.team {
		if err != nil {
			a.end(0, rootLost(a.process))
		} else {
			a.end(r.plants[i+1].builder.Threads[0].State.Regs.Result(), nil)
		}
	}
}
