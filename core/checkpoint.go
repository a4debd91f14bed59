package core

import (
	"errors"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
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

	tracer    *tracer.Tracer
	caught    *tracer.Tracee       // the caller, stopped at the exit of its call
	frozen    *task.Tree           // in a self-checkpoint the caller itself, alone
	members   []*member            // of the tree, the root first
	places    map[*task.Member]int // theirs among them
	tree      *resource.Tree
	relatives []*relative // the members
	within    *Container  // nil if the tree is none
	forest    *forest
	inside    *resource.Namespaces
	bytes     int64
	pauses    int // in which connections could be accepted
	asleep    map[procfs.PID]resource.Asleep
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
	steps := []struct {
		name string
		do   func() error
	}{
		{"predump", c.predump},
		{"freeze", c.freeze},
		{"survey", c.survey},
		{"dump", c.dump},
		{"thaw", c.thaw},
		{"postdump", func() error { return nil }}, // nothing is written after the thaw yet
	}
	for i := 0; i < len(steps); i++ {
		err := c.watch.step(steps[i].name, steps[i].do)
		if errors.Is(err, errUnaccepted) {
			i = 0 // predump, whose checks stand
			err = c.letAccept()
		}
		if err != nil {
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
	if err != nil {
		return err
	}
	for _, m := range c.frozen.Members {
		for _, e := range m.Tasks {
			if err := c.asleep[e.TID()].Shorten(e); err != nil {
				return err
			}
		}
	}
	return nil
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
