package core

import (
	"errors"
	"fmt"
	"io"
	"os"

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

	tracer *tracer.Tracer
	caught *tracer.Tracee // the caller, stopped at the exit of its call
	frozen *task.Frozen   // the target; in a self-checkpoint the caller itself
	view   *resource.View
	bytes  int64
	lent   bool // the target has a descriptor of ours
	asleep map[procfs.PID]resource.Asleep
}

// self tells whether the caller saves itself.
func (c *checkpoint) self() bool { return c.process == c.req.Target }

func (c *checkpoint) processes() []procfs.PID {
	if c.process == 0 || c.self() {
		return []procfs.PID{c.req.Target}
	}
	return []procfs.PID{c.req.Target, c.process}
}

// look takes a view of the target.
func (c *checkpoint) look(by func(pid procfs.PID, self bool) (*resource.View, error)) (*resource.View, error) {
	v, err := by(c.req.Target, c.self())
	if err != nil {
		return nil, err
	}
	v.BenignFilters, v.CallsCaught = c.engine.filters(c.req.Target)
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
			if err := c.permit(); err != nil {
				return err
			}
		}
	}
	if c.self() && task.Alone(c.req.Target) {
		c.frozen = &task.Frozen{PID: c.req.Target, Tasks: []*tracer.Tracee{c.caught}, Caller: c.caught}
		return nil
	}
	if by := task.TracedBy(c.req.Target); by != 0 && !c.self() {
		return &fault.Error{Code: fault.TracedByOther, Object: fmt.Sprintf("pid %d", c.req.Target), Detail: fmt.Sprintf("by pid %d", by)}
	}
	v, err := c.look(resource.Glance)
	if err != nil {
		return err
	}
	defer v.Close()
	v.Running = true
	c.asleep = v.Sleepers()
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
		if c.view != nil {
			c.view.Close()
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
	if c.frozen != nil {
		return nil // the caller is all there is
	}
	var own *tracer.Tracee
	if c.self() {
		own = c.caught
	}
	c.frozen, err = task.Freeze(c.tracer, &c.engine.claims, c.req.Target, own)
	return err
}

// permit has the kernel decide, with the caller's own rights, whether it may
// look into the target: kcmp(2) asks for what a tracer that only reads needs
// (PTRACE_MODE_READ_REALCREDS). The same call finds the target by the name
// that the caller has for it.
func (c *checkpoint) permit() error {
	return c.caught.Inject(tracer.InjectOptions{}, func(r *tracer.Remote) error {
		const kcmpVM = 1
		p := r.Program()
		self := p.Call(unix.SYS_GETPID)
		p.Call(unix.SYS_KCMP, self, tracer.Imm(uint64(c.req.PID)), tracer.Imm(kcmpVM), tracer.Imm(0), tracer.Imm(0))
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
func (c *checkpoint) survey() (err error) {
	if c.caught != nil && !c.self() {
		if err := c.permit(); err != nil { // the target may have changed its user meanwhile
			return err
		}
	}
	if c.view, err = c.look(resource.Look); err != nil {
		return err
	}
	for _, e := range c.frozen.Tasks {
		if err := c.view.CheckStopped(e); err != nil {
			return err
		}
	}
	return c.view.Survey().Err()
}

// dump writes the image. Its reader learns from the stream itself if it fails.
func (c *checkpoint) dump() (err error) {
	out, err := imageWriter(c.req.Out, c.process)
	if err != nil {
		return err
	}
	trim := reserve(c.req.Out, c.view.Resident())
	defer func() { err = errors.Join(err, trim()) }()
	w := image.NewWriter(out, Records)
	e := c.frozen.Leader()
	var unkept error
	err = e.Inject(tracer.InjectOptions{}, func(r *tracer.Remote) (err error) {
		defer func() {
			if errors.Is(err, unix.EPIPE) && e != c.caught {
				err = errors.Join(err, dropSIGPIPE(c.view, r))
			}
		}()
		threads, err := c.threads(r)
		if err != nil {
			return err
		}
		fd, err := c.lendOutput(r)
		if err != nil {
			return err
		}
		s, err := resource.NewSaver(c.view, w, fd, threads, r)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, s.Close()) }()
		s.Doomed = c.req.Then == KillTarget && !c.self()
		if in := readback(c.req.Out); in != nil {
			defer func() { _ = in.Close() }() // only read from
			s.Readback, s.Position = in, func() (int64, error) { return c.req.Out.Seek(0, io.SeekCurrent) }
		}
		if err := s.Ask(); err != nil {
			return err
		}
		if err := writeHead(w, c.view); err != nil {
			return err
		}
		if err := s.Dump(); err != nil {
			return err
		}
		if err := w.Close(); err != nil {
			return err
		}
		if c.lent {
			p := r.Program()
			p.Close(fd)
			if err := p.Run(); err != nil {
				return err
			}
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

// threads are what is saved of each task: its state as it was stopped.
func (c *checkpoint) threads(leader *tracer.Remote) ([]*resource.SavedThread, error) {
	var threads []*resource.SavedThread
	for _, e := range c.frozen.Tasks {
		t := &resource.SavedThread{TID: e.TID(), Tracee: e, Status: c.view.StatusOf(e.TID()), Called: e == c.frozen.Caller, Asleep: c.asleep[e.TID()]}
		if t.Status == nil {
			return nil, fmt.Errorf("save task %d: %w", e.TID(), tracer.ErrGone)
		}
		var err error
		if e == c.frozen.Leader() {
			t.State, err = leader.State()
		} else {
			t.State, err = e.State()
		}
		if err != nil {
			return nil, err
		}
		threads = append(threads, t)
	}
	return threads, nil
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
