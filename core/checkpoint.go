package core

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/core/resource"
	"github.com/crshim/crshim/core/task"
	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// Disposition is what becomes of the target once it is saved.
type Disposition int

// The dispositions of the thaw step.
const (
	LeaveRunning Disposition = iota // in the state that it was in before
	LeaveStopped                    // as by SIGSTOP
	KillTarget                      // SIGKILL, before it runs again
)

// CheckpointRequest says what to save, where to, and who asks.
type CheckpointRequest struct {
	// Caller waits in the call on whose behalf this is done; nil if crshim
	// itself asks.
	Caller *Caller
	// PID is the target as the caller names it: in its own pid namespace.
	PID procfs.PID
	// Target is the same process in our namespace.
	Target procfs.PID
	// Out takes the image. OutFD is its number in the caller, -1 without one.
	Out   *os.File
	OutFD tracer.FD
	// Then is what becomes of the target.
	Then Disposition
	// External saves what leads to others as a place that is empty (View).
	External bool
	// SaveFiles saves the contents of files that are open for writing (View).
	SaveFiles bool
	// Suspended are processes that are stopped only because somebody has frozen
	// them by signals (Freeze).
	Suspended []Stopped
	// Saved, if set, is called when the image has been written and before the
	// target is let go or killed: a target must not be lost with its image.
	Saved func() error
}

// Checkpointed tells about a checkpoint that has succeeded.
type Checkpointed struct {
	CRID   int64
	Bytes  int64
	Timing []Timing
}

// Checkpoint saves a process. A caller that has been caught gets its result
// here, the crid or an errno; one that has not is left waiting for the answer
// of whoever called.
func (e *Engine) Checkpoint(req CheckpointRequest) (*Checkpointed, error) {
	c := &checkpoint{engine: e, req: req, watch: stopwatch{engine: e}}
	if req.Caller != nil {
		process, err := task.Process(req.Caller.TID)
		if err != nil {
			return nil, err
		}
		c.process = process
		c.waiting = e.claims.Enter(*req.Caller)
		defer e.claims.Leave(c.waiting)
	}
	release, err := e.claims.Hold(c.waiting, c.processes()...)
	if err != nil {
		return nil, err
	}
	defer release()
	if err := checkOutput(req.Out); err != nil {
		return nil, err
	}
	return tracer.Run(c.run)
}

// checkpoint is one checkpoint on its way.
type checkpoint struct {
	engine  *Engine
	req     CheckpointRequest
	watch   stopwatch
	waiting *task.Waiting
	process procfs.PID // the caller's thread group, 0 without a caller

	tracer  *tracer.Tracer
	caught  *tracer.Tracee       // the caller, stopped at the exit of its call
	frozen  *task.Tree           // in a self-checkpoint the caller itself, alone
	members []*member            // of the tree, the root first
	places  map[*task.Member]int // theirs among them
	tree    *resource.Tree
	within  *Container // nil if the tree is none
	forest  *forest
	inside  *resource.Namespaces
	bytes   int64
	asleep  map[procfs.PID]resource.Asleep
}

// self tells whether the caller saves itself.
func (c *checkpoint) self() bool { return c.process == c.req.Target }

func (c *checkpoint) processes() []procfs.PID {
	if c.process == 0 || c.self() {
		return []procfs.PID{c.req.Target}
	}
	return []procfs.PID{c.req.Target, c.process}
}

// look takes a view of a process.
func (c *checkpoint) look(pid procfs.PID, by func(pid procfs.PID, self bool) (*resource.View, error)) (*resource.View, error) {
	v, err := by(pid, c.self())
	if err != nil {
		return nil, err
	}
	v.BenignFilters, v.CallsCaught = c.engine.filters(pid)
	v.ParentHears = c.engine.launcher(v.Stat.PPid) != nil
	v.Suspended = slices.Contains(c.req.Suspended, Stopped{PID: pid, Start: v.Stat.StartTime})
	v.Image, v.External, v.SaveFiles = c.req.Out, c.req.External, c.req.SaveFiles
	return v, nil
}

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
	if by := task.TracedBy(c.req.Target); by != 0 && !c.self() {
		return &fault.Error{Code: fault.TracedByOther, Object: fmt.Sprintf("pid %d", c.req.Target), Detail: fmt.Sprintf("by pid %d", by)}
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

// run is everything that needs a stopped task.
func (c *checkpoint) run(t *tracer.Tracer) (done *Checkpointed, err error) {
	c.tracer = t
	defer func() {
		for _, m := range c.members {
			m.view.Close()
		}
		if lost := c.release(done, err); lost != nil && err == nil {
			done, err = nil, lost
		}
	}()
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"predump", c.predump},
		{"freeze", c.freeze},
		{"survey", c.survey},
		{"dump", c.dump},
		{"thaw", c.thaw},
		{"postdump", func() error { return nil }}, // nothing is written after the thaw yet
	} {
		if err := c.watch.step(step.name, step.do); err != nil {
			return nil, err
		}
	}
	return &Checkpointed{CRID: c.engine.crid.Add(1), Bytes: c.bytes, Timing: c.watch.steps}, nil
}

func (c *checkpoint) freeze() (err error) {
	switch {
	case c.frozen != nil: // the caller is all there is
	case c.self():
		c.frozen, err = task.Freeze(c.tracer, &c.engine.claims, c.req.Target, c.caught)
	default:
		c.frozen, err = task.FreezeTree(c.tracer, &c.engine.claims, c.req.Target, c.caught, c.process)
	}
	return err
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
	refused, err := checkRelations(relatives(views, parent))
	if err = errors.Join(err, refused.Err()); err != nil {
		return err
	}
	if err := c.surveyContainer(); err != nil {
		return err
	}
	if len(c.members) > 1 {
		return nil // who has which files is seen when they can be brought together
	}
	return c.tree.Survey().Err()
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

// dump writes the image. Its reader learns from the stream itself if it fails.
func (c *checkpoint) dump() (err error) {
	out, err := imageWriter(c.req.Out, c.process)
	if err != nil {
		return err
	}
	var resident uint64
	for _, m := range c.members {
		resident += m.view.Resident()
	}
	trim := reserve(c.req.Out, resident)
	defer func() { err = errors.Join(err, trim()) }()
	w := image.NewWriter(out, Records)
	var unkept error
	err = c.borrow(func() error {
		if err := c.write(w); err != nil {
			return err
		}
		if c.req.Saved != nil {
			unkept = c.req.Saved() // here, since a doomed target goes on if this fails
		}
		return unkept
	})
	c.bytes = w.Offset()
	if err == nil || unkept != nil {
		return err
	}
	err = writeError(err)
	if c.bytes == 0 {
		return err // refused, as by the survey
	}
	_ = w.Fail(image.Error{Errno: int32(fault.Errno(err)), Text: err.Error()}) // the first error counts
	return err
}

// write asks every process about itself, and then saves one after the other.
func (c *checkpoint) write(w *image.Writer) (err error) {
	root := c.members[0]
	if len(c.members) > 1 {
		if err := c.tree.Gather(root.remote); err != nil {
			return err
		}
		if err := c.tree.Survey().Err(); err != nil {
			return err
		}
	}
	if err := c.describe(); err != nil {
		return err
	}
	in := readback(c.req.Out)
	if in != nil {
		defer func() { _ = in.Close() }() // only read from
	}
	for _, m := range c.members {
		if err := c.prepare(m, w, in); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, m.saver.Close()) }()
	}
	c.tree.Index()
	defer c.tree.Close()
	for _, m := range c.members {
		if err := m.saver.Ask(); err != nil {
			return err
		}
	}
	if err := c.askContainer(); err != nil {
		return err
	}
	if err := c.writeHead(w); err != nil {
		return err
	}
	for _, m := range c.members {
		if err := m.saver.Dump(); err != nil {
			return err
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	for _, m := range c.members {
		if err := m.takeBack(); err != nil {
			return err
		}
	}
	return c.tree.Return(root.remote)
}

func (c *checkpoint) thaw() error {
	frozen := c.frozen
	c.frozen = nil
	switch c.req.Then {
	case LeaveStopped:
		return frozen.Stop()
	case KillTarget:
		return frozen.Kill()
	}
	return frozen.Thaw()
}

// release lets go whatever is still held, the caller with its result.
func (c *checkpoint) release(done *Checkpointed, err error) error {
	var errs []error
	if c.frozen != nil {
		errs = append(errs, c.frozen.Thaw())
	}
	if c.caught != nil {
		value := result(err)
		if err == nil {
			value = done.CRID
		}
		if sig, ok := signalOf(fault.Errno(err)); ok {
			errs = append(errs, unix.Tgkill(int(c.process), int(c.caught.TID()), sig))
		}
		errs = append(errs, c.caught.SetResult(value), c.caught.Detach(0))
	}
	return errors.Join(errs...)
}
