package core

import (
	"errors"
	"fmt"
	"os"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/core/object"
	"github.com/crshim/crshim/core/resource"
	"github.com/crshim/crshim/core/task"
	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// RestartRequest says what to restart and in whose place.
type RestartRequest struct {
	// Caller waits in restart() and is to become the task of the image.
	Caller *Caller
	// InFD is the image's number in the caller.
	InFD tracer.FD
	// In is the image as we hold it.
	In *os.File
}

// Restarted tells about a restart that has succeeded.
type Restarted struct {
	PID    procfs.PID
	Value  int64 // what the interrupted call returns, for the trace
	Timing []Timing
}

// Restart rebuilds the process of an image in the caller's place. If that
// fails, a caller that has been caught goes on as if it had not called, with
// an errno; one that has not is left waiting for the answer of whoever called.
func (e *Engine) Restart(req RestartRequest) (*Restarted, error) {
	r := &restart{engine: e, in: req.In, inFD: req.InFD, watch: stopwatch{engine: e}, warned: make(map[string]bool)}
	process, err := task.Process(req.Caller.TID)
	if err != nil {
		return nil, err
	}
	waiting := e.claims.Enter(*req.Caller)
	defer e.claims.Leave(waiting)
	release, err := e.claims.Hold(waiting, process)
	if err != nil {
		return nil, err
	}
	defer release()
	r.acquire = func(t *tracer.Tracer) (*tracer.Tracee, error) { return task.Catch(t, waiting) }
	r.caller = process
	e.musters.begin(process)
	failed := true
	defer func() { e.musters.dismiss(process, failed) }()
	if err := r.open(); err != nil {
		return nil, err
	}
	defer r.close()
	if err := r.muster(waiting); err != nil {
		return nil, err
	}
	done, err := r.withTeam(waiting)
	failed = err != nil
	return done, err
}

// withTeam restarts the caller together with those that it has mustered.
func (r *restart) withTeam(waiting *task.Waiting) (done *Restarted, err error) {
	defer func() { r.tell(err) }()
	if len(r.team) > 0 {
		processes := make([]procfs.PID, len(r.team))
		for i, a := range r.team {
			processes[i] = a.process
		}
		release, err := r.engine.claims.Hold(waiting, processes...)
		if err != nil {
			return nil, err
		}
		defer release()
	}
	return tracer.Run(r.run)
}

// Blank makes the process that a restart fills, on the thread of its tracer.
type Blank func(*tracer.Tracer) (*tracer.Tracee, error)

// Opened is an image whose head has been read and fits this machine.
type Opened struct {
	r *restart
	// PID is the process's number when it was saved, in its own namespace.
	PID procfs.PID
	// LastPID is the highest number that a process of the tree had.
	LastPID procfs.PID
	// CallsCaught tells whether the emulated calls were available to it.
	CallsCaught bool
	// Policy may be set before Into.
	Policy resource.Policy
	// KeepPIDs makes it an error if a process of the tree cannot have its number.
	KeepPIDs bool
	// Container is that of the processes, nil if they are none. The blank process
	// is to be the first one of such a container.
	Container *Container
	// Ready, if set, is told the numbers of the first process and of process 2
	// of its namespace, 0 without one, when all are in place and before they run.
	Ready func(first, second PID) error
	// OnTerminal, if set, says that the restarter is in the foreground of its
	// terminal. It is told what belongs there, after Ready, unless the processes
	// had no terminal or were in its background.
	OnTerminal func(Foreground) error
}

// Open reads the head of an image. Into or Close must follow.
func (e *Engine) Open(in *os.File) (*Opened, error) {
	r := &restart{engine: e, in: in, inFD: -1, watch: stopwatch{engine: e}, blank: true, warned: make(map[string]bool)}
	if err := r.open(); err != nil {
		return nil, err
	}
	if r.forest.rewritten {
		r.close()
		return nil, badForest("process %d is called %d by TREE", r.forest.living[0].VPID, r.forest.living[0].named)
	}
	return &Opened{r: r, PID: procfs.PID(r.forest.living[0].VPID), LastPID: r.forest.last(), CallsCaught: r.machine.CallProfile != 0, Container: r.within}, nil
}

// Into rebuilds the process in a blank process. It ends with the process
// running; on failure there is none.
func (o *Opened) Into(blank Blank) (*Restarted, error) {
	o.r.acquire, o.r.policy, o.r.keepPIDs, o.r.ready = blank, o.Policy, o.KeepPIDs || o.Container != nil, o.Ready
	o.r.onTerminal = o.OnTerminal
	defer o.Close()
	return tracer.Run(o.r.run)
}

// Close ends the reading.
func (o *Opened) Close() { o.r.close() }

// restart is one restart on its way.
type restart struct {
	engine     *Engine
	in         *os.File
	inFD       tracer.FD
	acquire    Blank
	policy     resource.Policy
	keepPIDs   bool
	ready      func(first, second PID) error
	onTerminal func(Foreground) error
	numbers    bool // the processes get those that they had
	inner      bool // or at least those within pid namespaces that are made
	lost       bool // the caller is no longer itself
	blank      bool // the process was made for this restart and ends if it fails
	watch      stopwatch
	warned     map[string]bool

	caller      procfs.PID // 0 without one
	source      image.Source
	closeSource func()
	reader      *image.Reader
	fpu         *image.HeadArch
	machine     *image.Machine
	forest      *forest
	within      *Container // nil if the processes are none

	tracee    *tracer.Tracee
	taskIn    tracer.FD
	plants    []*plant        // the processes as they grow, the caller first
	groups    map[int32]names // process groups by what they were
	regrouped bool            // the first process has left the group that the others were made in

	born     map[int]*born            // before the image comes to them, by their places
	leaders  map[int32]*tracer.Tracee // of sessions, who are to end as the image has it
	unwanted *tracer.Tracee           // who leads a session for the moment

	team []*arrival // those behind the first, if they were there before; nil if they are made
}

// open carries out what needs no process yet.
func (r *restart) open() error {
	if err := r.watch.step("receive", r.receive); err != nil {
		return imageError(err)
	}
	if err := r.watch.step("decode", r.decode); err != nil {
		r.close()
		return imageError(err)
	}
	return nil
}

func (r *restart) close() {
	_ = r.reader.Drain() // only what was read counts
	r.closeSource()
}

func (r *restart) receive() (err error) {
	if r.source, r.closeSource, err = openSource(r.in, r.caller); err != nil {
		return &fault.Error{Code: fault.ImageRead, Object: "image", Err: err}
	}
	r.reader = image.NewReader(r.source, Records)
	return nil
}

func (r *restart) decode() (err error) {
	if r.fpu, r.machine, r.forest, r.within, err = readHead(r.reader); err != nil {
		return err
	}
	own, err := ThisMachine()
	if err != nil {
		return err
	}
	return CheckMachine(r.fpu, r.machine, own)
}

func (r *restart) run(t *tracer.Tracer) (done *Restarted, err error) {
	if err := r.watch.step("catch", func() (err error) {
		r.tracee, err = r.acquire(t)
		return err
	}); err != nil {
		return nil, err
	}
	// The view is taken before anything of ours is in the caller.
	view, err := resource.Look(r.tracee.TID(), true)
	if err != nil {
		return nil, errors.Join(err, r.giveUp(err))
	}
	r.plants = []*plant{{process: r.forest.living[0], tracee: r.tracee, view: view}}
	r.born, r.leaders, r.groups = make(map[int]*born), make(map[int32]*tracer.Tracee), make(map[int32]names)
	defer r.closePlants()
	defer func() { err = errors.Join(err, r.dismiss()) }()
	if err := r.adopt(t); err != nil {
		return nil, errors.Join(err, r.giveUp(err))
	}
	if err := r.rebuild(); err != nil {
		err = imageError(err)
		return nil, errors.Join(err, r.giveUp(err))
	}
	if err := r.tellReady(); err != nil {
		return nil, errors.Join(err, r.giveUp(err))
	}
	if err := r.tellForeground(); err != nil {
		return nil, errors.Join(err, r.giveUp(err))
	}
	done = &Restarted{PID: r.tracee.TID(), Value: r.plants[0].builder.Threads[0].State.Regs.Result()}
	if err := r.watch.step("record", r.letGo); err != nil {
		return nil, err
	}
	done.Timing = r.watch.steps
	return done, nil
}

// warn says something once, though it may be true of many processes.
func (r *restart) warn(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if !r.warned[text] {
		r.warned[text] = true
		r.engine.warn("%s", text)
	}
}

// scratchSize holds the commit of a process with tens of thousands of
// mappings in one program; what is not used costs nothing.
const scratchSize = 16 << 20

// giveUp lets a caller go on with the errno, and ends what cannot go on.
func (r *restart) giveUp(err error) error {
	if r.blank || r.lost {
		return r.tracee.Kill()
	}
	return errors.Join(r.tracee.SetResult(result(err)), r.tracee.Detach(0))
}

// rebuild stages the image and puts it in the stopped task's place.
func (r *restart) rebuild() (err error) {
	failed := true
	defer func() {
		if r.plants[0].builder != nil {
			_ = r.reader.Drain() // what it can say, the reader has said already
		}
		err = errors.Join(err, r.giveBack(failed))
	}()
	if err := r.watch.step("stage", r.stage); err != nil {
		return err
	}
	if err := r.watch.step("commit", r.commit); err != nil {
		return err
	}
	failed = false
	return nil
}

func (r *restart) stage() (err error) {
	root := r.plants[0]
	if root.remote, err = root.tracee.Borrow(tracer.InjectOptions{ScratchSize: scratchSize}); err != nil {
		return err
	}
	if err := r.checkCaller(root); err != nil {
		return err
	}
	if err := r.checkFirst(); err != nil {
		return err
	}
	r.taskIn = r.inFD
	if r.taskIn < 0 {
		if r.taskIn, err = root.remote.SendFD(r.in); err != nil {
			return fmt.Errorf("hand the image to %s: %w", root.view.Name(), err)
		}
	}
	// A caller is in a container already, whose mounts are as they are.
	if err := r.contents(func(int, []byte) error { return nil }); err != nil {
		return err
	}
	if err := r.load(root); err != nil {
		return err
	}
	if err := r.grow(); err != nil {
		return err
	}
	if err := r.readTail(); err != nil {
		return err
	}
	for _, p := range r.plants {
		if err := p.builder.Spawn(); err != nil {
			return err
		}
	}
	if err := r.arrange(); err != nil {
		return err
	}
	return r.reader.Close() // the image's offset moves only now: nothing is left to fail
}

// checkCaller refuses callers that would leave something behind.
func (r *restart) checkCaller(p *plant) error {
	view := p.view
	if err := view.CheckStopped(p.tracee); err != nil {
		return err
	}
	if n := view.Status.Threads; n > 1 {
		return &fault.Error{Code: fault.CallerThreads, Object: view.Name(), Detail: fmt.Sprintf("%d threads", n)}
	}
	benign, _ := r.engine.filters(view.PID)
	if n := view.Status.SeccompFilters - benign; view.Status.Seccomp != 0 && n > 0 {
		return &fault.Error{Code: fault.CallerFilter, Object: view.Name(), Detail: fmt.Sprintf("%d filters", n)}
	}
	return nil
}

// readTail reads to the end: the checksum over everything, and the mark that
// nothing is missing. Only then is the caller's own state given up.
func (r *restart) readTail() error {
	if _, _, err := image.Expect[image.Sum](r.reader); err != nil {
		return err
	}
	if _, _, err := image.Expect[image.Tail](r.reader); err != nil {
		return err
	}
	return r.reader.Drain()
}

// imageError puts an unreadable image into the table's words.
func imageError(err error) error {
	var known *fault.Error
	if errors.As(err, &known) {
		return err
	}
	code := fault.Code(0)
	var remote *image.RemoteError
	switch {
	case errors.As(err, &remote):
		code = fault.ImageRemote
	case errors.Is(err, tracer.ErrNoMemory):
		return &fault.Error{Code: fault.StageMemory, Object: "the image", Err: err}
	case errors.Is(err, image.ErrTruncated):
		code = fault.ImageEnded
	case errors.Is(err, image.ErrSum):
		code = fault.ImageSum
	case errors.Is(err, image.ErrFormat):
		code = fault.ImageFormat
	case errors.Is(err, object.ErrBadRef):
		code = fault.ImageValue
	default:
		return err
	}
	return &fault.Error{Code: code, Object: "image", Err: err}
}
