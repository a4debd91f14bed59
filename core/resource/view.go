package resource

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// View is a process as /proc shows it at one moment.
type View struct {
	PID      procfs.PID
	Self     bool // the process itself asked: its relations to others are its own business
	Proc     *procfs.Proc
	Status   *procfs.Status
	Stat     *procfs.Stat
	Mappings []procfs.Mapping
	FDs      []procfs.FD
	Timers   []procfs.Timer
	Children []procfs.PID
	Siblings []*procfs.Status // of its threads but the first; none at a glance
	Root     string           // its root directory as seen from ours, "/" where they are the same

	// CallsCaught tells whether the emulated calls are available to it.
	CallsCaught bool
	// ParentHears is set if its parent is crshim itself, which shares an eventfd
	// with it and only reads that: the first process of a container.
	ParentHears bool
	// BenignFilters is how many of its seccomp filters are known to let our
	// own calls pass: those that we run under as well, and crshim's own.
	BenignFilters int
	// External has what leads to others saved as no more than a place that
	// something else takes at restart, instead of refused.
	External bool
	// Stopped tells whether it is stopped as by SIGSTOP; CheckStopped finds out.
	Stopped bool
	// Running leaves the descriptors out of a survey: they change while we look
	// at one after the other, so that what is seen of them need never have been.
	Running bool
	// Suspended tells that it is stopped only to be frozen for a while: what is
	// restored of it runs.
	Suspended bool
	// SaveFiles has the contents of regular files that are open for writing go
	// into the image.
	SaveFiles bool
	// Image is where the image goes; nil if there is none.
	Image *os.File

	threads map[procfs.PID]*procfs.Status // Siblings by number
	limits  []procfs.Limit                // by RLIMIT number, nil before anything was asked

	tree      *Tree           // that it is saved with; nil before that is known
	memory    *View           // whose memory it has; nil for its own
	covered   map[int32]bool  // descriptors whose open files are saved with another one
	index     *pageIndex      // of its memory; nil before Tree.Index
	lent      map[int32]bool  // descriptors that it has for the sake of the tree
	standards map[int32]int32 // of those, what standardOf says to the one whose they are

	mounts     map[string]bool       // by number, nil before they were asked for
	namespaces map[string]uint64     // by kind, as far as they were asked for
	places     map[procfs.PID]string // working directories that threads have of their own

	pidfd  int                  // of the process; 0 before it was needed
	owners map[int32]fileSignal // who gets signals, by descriptor, as far as it was asked

	// What is known of other processes, by the text of a link; nil before it
	// was asked for.
	sameMounts *bool // what inOwnMounts has found
	others     map[string][]holder
	shared     map[string]map[int32]procfs.PID // by descriptor
	mapped     map[inodeID]procfs.PID          // nameless files that they have mapped
	// Its sockets, by inode number.
	sockets     map[uint64]*socketView
	connections map[ends]*procfs.FD // of TCP, by their addresses
	unix        unixView
	names       map[inodeID]string // of files that the process has to do with
}

// Look reads the view of a process. It holds /proc/PID open until Close.
func Look(pid procfs.PID, self bool) (*View, error) {
	v, err := look(pid, self, (*procfs.Proc).Mappings)
	if err != nil || v.Status.Threads == 1 {
		return v, err
	}
	if err := v.readSiblings(); err != nil {
		v.Close()
		return nil, fmt.Errorf("look at threads of pid %d: %w", pid, err)
	}
	return v, nil
}

// Glance is Look without the flags of mappings, for which the kernel walks all
// pages of the process, and without the other threads: it costs little however
// large the process is.
func Glance(pid procfs.PID, self bool) (*View, error) {
	return look(pid, self, (*procfs.Proc).Maps)
}

func look(pid procfs.PID, self bool, mappings func(*procfs.Proc) ([]procfs.Mapping, error)) (*View, error) {
	proc, err := procfs.Open(pid)
	if err != nil {
		return nil, &fault.Error{Code: fault.NoSuchProcess, Object: fmt.Sprintf("pid %d", pid), Err: err}
	}
	v := &View{PID: pid, Self: self, Proc: proc}
	if err := v.read(mappings); err != nil {
		proc.Close()
		if errors.Is(err, procfs.ErrGone) {
			return nil, &fault.Error{Code: fault.NoSuchProcess, Object: fmt.Sprintf("pid %d", pid), Err: err}
		}
		return nil, fmt.Errorf("look at pid %d: %w", pid, err)
	}
	return v, nil
}

func (v *View) read(mappings func(*procfs.Proc) ([]procfs.Mapping, error)) (err error) {
	if v.Status, err = v.Proc.Status(); err != nil {
		return err
	}
	if v.Stat, err = v.Proc.Stat(); err != nil {
		return err
	}
	if v.Status.Kthread || v.Stat.State == 'Z' || v.Stat.State == 'X' {
		return nil // the rest of its /proc is empty; Survey refuses it
	}
	if v.Mappings, err = mappings(v.Proc); err != nil {
		return &fault.Error{Code: fault.NotPermitted, Object: v.Name(), Err: err}
	}
	if v.FDs, err = v.Proc.FDs(); err != nil {
		return &fault.Error{Code: fault.NotPermitted, Object: v.Name(), Err: err}
	}
	if v.Timers, err = v.Proc.Timers(); err != nil {
		return err
	}
	if v.Children, err = v.Proc.Children(); err != nil {
		return err
	}
	if v.Root, err = v.Proc.Link("root"); err != nil {
		return err
	}
	v.findLinked()
	return nil
}

// Hide takes a range out of the mappings: what is there is ours.
func (v *View) Hide(ours procfs.Range) {
	var rest []procfs.Mapping
	for _, m := range v.Mappings {
		for _, r := range without([]procfs.Range{m.Range}, ours) {
			part := m
			part.Range = r
			if m.Inode != 0 {
				part.Offset += uint64(r.Start - m.Start)
			}
			rest = append(rest, part)
		}
	}
	v.Mappings = rest
}

func (v *View) readSiblings() error {
	all, err := procfs.LookAtThreads(v.Proc, (*procfs.Proc).Status)
	v.Siblings = slices.DeleteFunc(all, func(status *procfs.Status) bool { return status.Pid == v.PID })
	v.threads = make(map[procfs.PID]*procfs.Status, len(all))
	for _, status := range v.Siblings {
		v.threads[status.Pid] = status
	}
	return err
}

// StatusOf is the status of one of its threads, nil if the view knows none such.
func (v *View) StatusOf(tid procfs.PID) *procfs.Status {
	if tid == v.PID {
		return v.Status
	}
	return v.threads[tid]
}

// Close ends the view.
func (v *View) Close() {
	v.Proc.Close()
	if v.pidfd != 0 {
		_ = unix.Close(v.pidfd) // it holds nothing back
	}
}

// Name is how messages call the process.
func (v *View) Name() string {
	return fmt.Sprintf("pid %d (%s)", v.PID, v.Stat.Comm)
}

// FDName is how messages call one of its descriptors.
func (v *View) FDName(fd int32) string {
	return fmt.Sprintf("fd %d of %s", fd, v.Name())
}

// MappingName is how messages call one of its mappings.
func (v *View) MappingName(m *procfs.Mapping) string {
	if m.Name == "" {
		return fmt.Sprintf("mapping %v of %s", m.Range, v.Name())
	}
	return fmt.Sprintf("mapping %v %s of %s", m.Range, m.Name, v.Name())
}

// Survey asks every part and returns all that stands in the way of saving.
func (v *View) Survey() fault.List {
	switch {
	case v.Status.Kthread:
		return fault.List{{Code: fault.KernelThread, Object: v.Name()}}
	case (v.Stat.State == 'Z' || v.Stat.State == 'X') && v.Status.Threads > 1:
		return fault.List{{Code: fault.LeaderEnded, Object: v.Name(), Detail: fmt.Sprintf("%d others run on", v.Status.Threads-1)}}
	case v.Stat.State == 'Z' || v.Stat.State == 'X':
		return fault.List{{Code: fault.Zombie, Object: v.Name()}}
	}
	var list fault.List
	for _, part := range Parts {
		if part.Save != nil {
			list = append(list, part.Save().Survey(v)...)
		}
	}
	return append(list, v.surveyThreads()...)
}

// CheckStopped names what only the stopped task shows: the architecture that
// it is running in, and calls that the kernel does not make for it. It comes
// before anything is done in the task.
func (v *View) CheckStopped(e *tracer.Tracee) error {
	if stop, ok := e.Stopped(); ok && stop.GroupStop() {
		v.Stopped = true
	}
	regs, err := e.Regs()
	if err != nil {
		return fmt.Errorf("read registers of %s: %w", v.Name(), err)
	}
	if regs.Is32() {
		return &fault.Error{Code: fault.OtherArchitecture, Object: v.Name()}
	}
	dispatched, err := e.SyscallsDispatched()
	if err != nil {
		return err
	}
	if dispatched {
		return &fault.Error{Code: fault.SyscallDispatch, Object: v.Name(), Detail: fmt.Sprintf("task %d", e.TID())}
	}
	return nil
}

// Limit is a resource limit of the process as it was when it was first asked for
// any.
func (v *View) Limit(resource int) (procfs.Limit, error) {
	all, err := v.allLimits()
	if err != nil {
		return procfs.Limit{}, err
	}
	return all[resource], nil
}

func (v *View) allLimits() (all []procfs.Limit, err error) {
	if v.limits == nil {
		v.limits, err = v.Proc.Limits()
	}
	return v.limits, err
}

// Resident is how much memory the process has in pages of its own, in bytes.
func (v *View) Resident() uint64 {
	var n uint64
	for i := range v.Mappings {
		n += v.Mappings[i].Anonymous
	}
	return n
}

// VPID is the pid in the innermost pid namespace of the process.
func (v *View) VPID() procfs.PID { return v.Status.NStgid[len(v.Status.NStgid)-1] }
