package core

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/resource"
	"github.com/crshim/crshim/core/task"
	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// predump refuses what can be refused without disturbing the target. Whether
// the caller may know anything about it comes first.
func (c *checkpoint) predump() (err error) {
	if c.waiting != nil {
		if c.caught, err = task.Catch(c.tracer, c.waiting); err != nil {
			return err
		}
		if !c.self() {
			if err := c.permit(c.req.PID); err != nil {
				return err
			}
		}
	}
	if c.self() && task.Alone(c.req.Target) {
		c.frozen, err = task.Freeze(c.tracer, &c.engine.claims, c.req.Target, c.caught)
		return err
	}
	if !c.self() {
		if refused := task.Traced(c.req.Target, c.req.Target); refused != nil {
			return refused
		}
	}
	pids := []procfs.PID{c.req.Target}
	if !c.self() {
		if pids, err = task.Descendants(c.req.Target); err != nil {
			return err
		}
	}
	c.asleep = resource.Sleepers(pids)
	if len(pids) > 1 {
		return nil // what they share is seen when they stand still
	}
	return c.glance()
}

// glance looks at a running process and refuses what stands in the way.
func (c *checkpoint) glance() error {
	v, err := c.look(c.req.Target, resource.Glance)
	if err != nil {
		return err
	}
	defer v.Close()
	v.Running = true
	if len(v.Survey()) == 0 {
		return nil
	}
	v.Running = false // refused in any case, so name everything
	return v.Survey().Err()
}

// permit has the kernel decide, with the caller's own rights, whether it may
// look into the target: kcmp(2) asks for what a tracer that only reads needs
// (PTRACE_MODE_READ_REALCREDS). The same call finds the target by the name
// that the caller has for it.
func (c *checkpoint) permit(pid procfs.PID) error {
	return c.caught.Inject(tracer.InjectOptions{}, func(r *tracer.Remote) error {
		const kcmpVM = 1
		p := r.Program()
		self := p.Call(unix.SYS_GETPID)
		p.Call(unix.SYS_KCMP, self, tracer.Imm(uint64(pid)), tracer.Imm(kcmpVM), tracer.Imm(0), tracer.Imm(0))
		err := p.Run()
		switch {
		case err == nil:
			return nil
		case errors.Is(err, unix.EPERM):
			return &fault.Error{Code: fault.CallPermission, Object: "checkpoint", Err: err}
		case errors.Is(err, unix.ESRCH):
			return &fault.Error{Code: fault.CallProcess, Object: "checkpoint", Err: err}
		case errors.Is(err, tracer.ErrNoMemory):
			return &fault.Error{Code: fault.TargetMemory, Object: "the caller", Err: err}
		case errors.Is(err, unix.ENOSYS):
			return &fault.Error{Code: fault.NoKcmp, Object: "checkpoint", Err: err}
		}
		return fmt.Errorf("ask for the caller's rights: %w", err)
	})
}

// survey looks again at what can no longer change.
func (c *checkpoint) survey() error {
	views, err := c.lookAll()
	if err != nil {
		return err
	}
	c.places = make(map[*task.Member]int, len(c.members))
	for i, m := range c.members {
		c.places[m.Member] = i
		for _, e := range m.Tasks {
			if err := m.view.CheckStopped(e); err != nil {
				return err
			}
		}
		if err := c.permitMember(m.view); err != nil {
			return err
		}
	}
	parent := func(i int) int { return c.places[c.members[i].Parent] }
	c.tree = resource.NewTree(views, parent)
	c.relatives = relatives(views, parent, c.tree.Maker)
	refused, err := checkRelations(c.relatives)
	if err = errors.Join(err, refused.Err()); err != nil {
		return err
	}
	if err := c.surveyContainer(); err != nil {
		return err
	}
	if len(c.members) > 1 {
		return nil // who has which files is seen when they can be brought together
	}
	if err := c.tree.Survey().Err(); err != nil {
		return err
	}
	return c.checkAccepted()
}

// lookAll takes a view of each process of the tree, several at a time.
func (c *checkpoint) lookAll() ([]*resource.View, error) {
	members := c.frozen.Members
	views, errs := make([]*resource.View, len(members)), make([]error, len(members))
	var all sync.WaitGroup
	var next atomic.Int64
	for range min(runtime.GOMAXPROCS(0), len(members)) {
		all.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(members)); i = next.Add(1) - 1 {
				views[i], errs[i] = c.look(members[i].PID, resource.Look)
			}
		})
	}
	all.Wait()
	for i, m := range members {
		if views[i] != nil {
			c.members = append(c.members, &member{Member: m, view: views[i]})
		}
	}
	return views, errors.Join(errs...)
}

// permitMember asks again, as a process may have changed its user meanwhile.
func (c *checkpoint) permitMember(v *resource.View) error {
	if c.caught == nil || c.self() || v.PID == c.process {
		return nil
	}
	if v.PID == c.req.Target {
		return c.permit(c.req.PID)
	}
	// The caller's name for it is that of its own namespace.
	caller, err := task.Level(c.caught.TID())
	if err != nil {
		return err
	}
	if names := v.Status.NStgid; caller <= len(names) {
		return c.permit(names[caller-1])
	}
	return &fault.Error{Code: fault.CallPermission, Object: "checkpoint", Detail: v.Name()}
}
