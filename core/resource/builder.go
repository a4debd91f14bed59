package resource

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/core/object"
	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// Builder is one process on its way out of an image: the caller of restart,
// that is about to become the process that was saved.
type Builder struct {
	R       *image.Reader
	Caller  *View // the caller as it was before the stage
	Tracee  *tracer.Tracee
	Remote  *tracer.Remote
	Layout  *Layout
	Objects *object.Loaded
	Threads []*LoadedThread // the leader first
	Policy  Policy
	Warn    func(format string, args ...any)
	VPID    procfs.PID // the caller's pid in its own namespace
	// XstateSize is how many bytes of extended state the image has for a task.
	XstateSize int

	memory   *tracer.Memory
	in       *os.File  // the image, as we hold it
	taskIn   tracer.FD // the image, as the task holds it
	seekable bool      // a regular file: contents can be read later than their record

	overMachine bool // the caller's capabilities are those over the machine

	rootFile *stagedFile // that directory, where it is not the caller's own
	fds      *descriptors
	ptys     []*stagedPty
	control  *loadedControl   // nil without a controlling terminal
	LedGroup bool             // the process led its process group
	deleted  []*stagedDeleted // to be finished once all their descriptors are open
	tcp      []*inetSocket
	inside   map[ends]*inside // connections of which one end has been read
	pairs    []*completePair
	mptcp    *bool                  // whether the caller may make such sockets; nil before it was asked
	unix     *unixRestore           // nil before the first unix socket
	mem      *memoryRestore         // once its Load has begun
	segments []uint64               // System V shared memory that was made, by id
	veths    map[uint32]*linkRecord // first ends of pairs, by index, until the other one comes
	late     map[int32]bool         // descriptors that threads close themselves
	keys     []uint64               // protection keys that were allocated
	parts    []Restoring            // nil where Parts has none for the process
	spawned  *tracer.Siblings       // the threads behind the first, nil without any

	changes     []fileChange     // right before the commit
	callerLocks map[inodeID]bool // files of which the caller holds POSIX locks; nil before it was asked
	rolledBack  map[inodeID]bool // files that get back the contents that the image has

	stage   *tracer.Program
	expects []expectation
	filling uint64 // bytes of contents that the pending program will read

	secure   *tracer.Row  // the caller's securebits
	ids      *credentials // the caller's, once they were asked for
	dumpable uint64       // what the process is to be, PR_SET_DUMPABLE

	sched     callerScheduling
	now       []byte // what clocks has found
	sandbox   loadedSandbox
	parent    *Builder       // from whose stage it was forked, nil for the first
	shares    uint32         // what it has together with that one, image.SharesMask
	madeIPC   bool           // what was in the IPC namespace has been made in a new one
	adjusts   bool           // it has semaphore adjustments
	adjusted  int            // how many
	adopted   bool           // it was not forked from there, but is to be as if it were
	lasting   []procfs.Range // what undo calls read; the commit unmaps it
	stopped   bool           // it is to be stopped, as by SIGSTOP
	queued    uint64         // signals to be pending
	moreFiles bool           // the soft limit on descriptors is raised to the hard one
	loaded    bool           // all is read, and the end of the stage has begun
}

// expectation says in the project's words what it means that a row failed.
type expectation struct {
	row    *tracer.Row
	code   fault.Code
	object string
}

// NewBuilder prepares to rebuild a process, whose number was saved, in place of
// the stopped caller. The builder must be closed.
func NewBuilder(v *View, saved procfs.PID, r *image.Reader, in *os.File, taskIn tracer.FD, source image.Source, e *tracer.Tracee, rem *tracer.Remote) (*Builder, error) {
	memory, err := e.Memory()
	if err != nil {
		return nil, err
	}
	users, err := v.Proc.NS("user")
	if err != nil {
		return nil, err
	}
	_, seekable := source.(*image.FileSource)
	b := &Builder{
		R: r, Caller: v, Tracee: e, Remote: rem,
		Layout:  NewLayout(v.Mappings, addressSpace()),
		Objects: object.NewLoaded(),
		Warn:    func(string, ...any) {},
		memory:  memory, in: in, taskIn: taskIn, seekable: seekable,
		fds: newDescriptors(v, taskIn), overMachine: users == initialUser,
	}
	b.VPID = v.VPID()
	for _, p := range Parts {
		var part Restoring
		if p.Restore != nil {
			part = p.Restore()
		}
		b.parts = append(b.parts, part)
	}
	leader := newLoadedThread()
	leader.TID, leader.Saved = b.VPID, saved
	b.Threads = append(b.Threads, leader)
	b.Layout.Occupy(rem.Scratch())
	return b, b.undoStage()
}

// Inherit has the builder of a child find what its parent has staged, and what it
// has together with it (image.Process.Shares). That is the parent's to bring back,
// whose commit comes later: the child has nothing of it by itself. A sibling that
// has made it stands for the parent in all of this.
func (b *Builder) Inherit(parent *Builder, shares uint32) error {
	if b.shares = shares; shares&image.SharesFiles != 0 {
		b.fds.numbering = parent.fds.numbering
	}
	b.Objects = parent.Objects.Child()
	b.Policy.Descriptors, b.Policy.Stopped = nil, false // of the first process alone
	b.parent = parent
	if !b.sharesMemory() {
		return nil
	}
	b.Layout = parent.Layout
	return b.undoStage() // what lies in that memory is the parent's to drop
}

// forked tells whether the process has come from its parent just now: what it is
// that has.
func (b *Builder) forked() bool { return b.parent != nil && !b.adopted }

// root is the builder of the first process.
func (b *Builder) root() *Builder {
	for b.parent != nil {
		b = b.parent
	}
	return b
}

// descends tells whether the process comes down from that one, or is it.
func (b *Builder) descends(from *Builder) bool {
	for ; b != nil; b = b.parent {
		if b == from {
			return true
		}
	}
	return false
}

// MayChoosePIDs tells whether the process may choose the numbers of new ones, in
// its own pid namespace.
func (b *Builder) MayChoosePIDs() bool { return b.mayRestore() }

// Close ends the builder, once nothing reads the task's memory any more.
func (b *Builder) Close() error { return b.memory.Close() }

// undoStage registers what takes the whole stage back, whoever has to do it:
// all that lies where the caller had nothing is dropped.
func (b *Builder) undoStage() error {
	if err := b.Remote.Keep(); err != nil {
		return err
	}
	gaps := b.Layout.Gaps(b.Remote.Scratch())
	if b.sharesMemory() {
		gaps = nil
	}
	for _, gap := range gaps {
		if err := b.Remote.Undo(unix.SYS_MUNMAP, uint64(gap.Start), gap.Len()); err != nil {
			return err
		}
	}
	for _, key := range b.keys {
		if err := b.Remote.Undo(unix.SYS_PKEY_FREE, key); err != nil {
			return err
		}
	}
	for _, id := range b.segments {
		if err := b.Remote.Undo(unix.SYS_SHMCTL, id, unix.IPC_RMID, 0); err != nil {
			return err
		}
	}
	for _, gap := range b.fds.gaps() {
		if err := b.Remote.Undo(unix.SYS_CLOSE_RANGE, uint64(gap.first), uint64(gap.last), 0); err != nil {
			return err
		}
	}
	return b.undoAdjusting()
}

// leads tells whether a thread is the first of its process.
func (b *Builder) leads(t *LoadedThread) bool { return t == b.Threads[0] }

// Load reads the records of the process and stages all of it but its threads. The
// process may still be at it when Load returns: Settle must follow.
func (b *Builder) Load() error {
	if b.forked() {
		b.Caller.limits = b.parent.Caller.limits
	}
	for i, part := range b.parts {
		if part != nil {
			if err := part.Load(b); err != nil {
				return fmt.Errorf("load %s: %w", Parts[i].Name, err)
			}
		}
		if err := b.loadThread(b.Threads[0], i); err != nil {
			return err
		}
	}
	if err := b.loadSiblings(); err != nil {
		return err
	}
	b.loaded = true
	if b.stage == nil {
		return nil
	}
	if err := b.stage.Start(); err != nil {
		return b.flushed(err)
	}
	return nil
}

// Settle ends what Load has begun, once. Before it nothing of the process may be
// relied upon.
func (b *Builder) Settle() error {
	if !b.loaded {
		return nil
	}
	b.loaded = false
	if b.stage != nil {
		if err := b.flushed(b.stage.Finish()); err != nil {
			return err
		}
	}
	return b.decide()
}

// Commit puts the staged process into the caller's place with one program, and
// one of each further thread. From the first call on there is no way back; it
// completes even if we die.
func (b *Builder) Commit() error {
	if err := b.changeFiles(); err != nil {
		return err
	}
	p := b.Remote.Program()
	if err := b.letGo(p); err != nil {
		return err
	}
	leader := b.Threads[0]
	for i, part := range b.parts {
		if part != nil {
			if err := part.Commit(b, p); err != nil {
				return fmt.Errorf("prepare commit of %s: %w", Parts[i].Name, err)
			}
		}
		if leader.parts[i] != nil {
			if err := leader.parts[i].Commit(b, leader, p); err != nil {
				return fmt.Errorf("prepare commit of %s: %w", Parts[i].Name, err)
			}
		}
	}
	if err := b.prepareSiblings(p); err != nil {
		return err
	}
	if err := b.finish(p); err != nil {
		return err
	}
	if err := b.Remote.Become(leader.State); err != nil {
		return fmt.Errorf("prepare commit: %w", err)
	}
	if b.spawned != nil {
		b.spawned.Release(p)
	}
	if err := p.Run(); err != nil {
		return &fault.Error{Code: fault.CommitFailed, Object: b.Caller.Name(), Err: err}
	}
	if err := b.settleSiblings(); err != nil {
		return &fault.Error{Code: fault.CommitFailed, Object: b.Caller.Name(), Err: err}
	}
	for _, part := range b.parts {
		if c, ok := part.(interface{ Committed(*Builder) }); ok {
			c.Committed(b)
		}
	}
	if b.sharesMemory() {
		return nil // CommitSharing does the rest
	}
	return b.wake()
}

// wake has the first thread be in the call that it was in.
func (b *Builder) wake() error {
	leader := b.Threads[0]
	if err := b.resumeSleep(leader, b.Remote.Interrupted); err != nil {
		return &fault.Error{Code: fault.CommitFailed, Object: b.Caller.Name(), Err: err}
	}
	return b.Remote.Become(leader.State)
}

// Stage returns the program that gathers staging calls until Flush.
func (b *Builder) Stage() *tracer.Program {
	if b.loaded {
		panic("resource: call is staged before Settle")
	}
	if b.stage == nil {
		b.stage = b.Remote.Program()
	}
	return b.stage
}

// Expect says what the failure of a staging row means.
func (b *Builder) Expect(row *tracer.Row, code fault.Code, object string) *tracer.Row {
	b.expects = append(b.expects, expectation{row, code, object})
	return row
}

// Flush runs the gathered staging calls.
func (b *Builder) Flush() error {
	if b.stage == nil {
		return nil
	}
	return b.flushed(b.stage.Run())
}

// flushed tells in the project's words how the gathered calls have ended.
func (b *Builder) flushed(err error) error {
	expects := b.expects
	b.stage, b.expects, b.filling = nil, nil, 0
	if err == nil {
		return b.fds.confirm(b.Remote)
	}
	if errors.Is(err, tracer.ErrShort) {
		return image.ErrTruncated
	}
	var call *tracer.CallError
	if !errors.As(err, &call) {
		return err
	}
	for _, x := range expects {
		if errors.As(x.row.Err(), &call) {
			return &fault.Error{Code: x.code, Object: x.object, Err: err}
		}
	}
	return &fault.Error{Code: fault.StageFailed, Object: b.Caller.Name(), Err: err}
}

// moveScratch makes room where a mapping of the image belongs.
func (b *Builder) moveScratch() error {
	if err := b.Flush(); err != nil {
		return err
	}
	from := b.Remote.Scratch()
	to, ok := b.Layout.Find(from.Len(), 0, procfs.PageSize)
	if !ok {
		return &fault.Error{Code: fault.StageRoom, Object: b.Caller.Name()}
	}
	if err := b.Remote.Move(to.Start); err != nil {
		return fmt.Errorf("move scratch: %w", err)
	}
	b.Layout.Release(from)
	b.Layout.Occupy(to)
	return b.undoStage()
}
