package resource

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// tracing is what a process debugs. The process itself is the one to ask: /proc
// tells it of those that are traced only, who may be anywhere.
var tracing = Part{
	Name:    "what it traces",
	Support: Refused,
	Note:    "A process that traces others (ptrace(2)), of the tree or not, is refused. Why: docs/decisions/017.",
	Save:    func() Saving { return new(tracingSave) },
}

type tracingSave struct {
	nothingToRefuse // of a process that runs; see Tracees
	any             *tracer.Row
}

// Ask asks whether there is anybody to wait for but children whose end is told by
// SIGCHLD: __WCLONE is for children that end by another signal, and for all who
// are traced (eligible_child of kernel/exit.c). Nothing is taken by asking.
func (t *tracingSave) Ask(_ *Saver, p *tracer.Program) {
	const all = 0
	t.any = p.Call(unix.SYS_WAITID, tracer.Imm(all), tracer.Imm(0), tracer.Imm(0),
		tracer.Imm(unix.WEXITED|unix.WNOHANG|unix.WNOWAIT|unix.WCLONE), tracer.Imm(0)).Tolerate()
}

func (t *tracingSave) Answered(s *Saver) error {
	err := t.any.Err()
	if errors.Is(err, unix.ECHILD) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("ask whom %s traces: %w", s.Name(), err)
	}
	tracees, err := Tracees()
	if err != nil {
		return err
	}
	if refused := s.tracesAny(tracees); refused != nil {
		return refused
	}
	for _, pid := range s.Children {
		child, err := statOf(pid)
		if err != nil {
			return err
		}
		if child.ExitSignal != int32(unix.SIGCHLD) {
			return nil // it is this one that may be waited for
		}
	}
	return &fault.Error{Code: fault.TracesOthers, Object: s.Name()}
}

func (*tracingSave) Dump(*Saver) error { return nil }

func statOf(pid procfs.PID) (*procfs.Stat, error) {
	proc, err := procfs.Open(pid)
	if err != nil {
		return nil, err
	}
	defer proc.Close()
	return proc.Stat()
}

// Tracees tells of each task that traces others one of those, as far as /proc
// shows it. Every task of the machine is looked at.
func Tracees() (map[procfs.PID]procfs.PID, error) {
	pids, err := procfs.List()
	if err != nil {
		return nil, err
	}
	tracees := make(map[procfs.PID]procfs.PID)
	for _, pid := range pids {
		proc, err := procfs.Open(pid)
		if err != nil {
			continue // it has ended
		}
		threads, err := procfs.LookAtThreads(proc, (*procfs.Proc).Status)
		proc.Close()
		if err != nil {
			continue // it has ended, or is not ours to see
		}
		for _, status := range threads {
			if status.TracerPid != 0 {
				tracees[status.TracerPid] = status.Pid
			}
		}
	}
	return tracees, nil
}

// SurveyTracing refuses a process of a tree that traces one of those, and one that is
// traced by somebody who is not in the tree.
func (v *View) SurveyTracing(tree []*View, tracees map[procfs.PID]procfs.PID) (refused fault.List) {
	if traces := v.tracesAny(tracees); traces != nil {
		refused = append(refused, traces)
	}
	inTree := func(tid procfs.PID) bool {
		return slices.ContainsFunc(tree, func(o *View) bool { return o.StatusOf(tid) != nil })
	}
	if by := v.tracedBy(); by != 0 && !inTree(by) {
		refused = append(refused, &fault.Error{Code: fault.TracedByOther, Object: v.Name(), Detail: fmt.Sprintf("by pid %d", by)})
	}
	return refused
}

// tracedBy is who traces the process, or one of its threads; 0 if nobody does.
func (v *View) tracedBy() procfs.PID {
	if v.Status.TracerPid != 0 {
		return v.Status.TracerPid
	}
	for _, status := range v.threads {
		if status.TracerPid != 0 {
			return status.TracerPid
		}
	}
	return 0
}

func (v *View) tracesAny(tracees map[procfs.PID]procfs.PID) *fault.Error {
	for tracer, tracee := range tracees {
		if tracer == v.PID || v.StatusOf(tracer) != nil {
			return &fault.Error{Code: fault.TracesOthers, Object: v.Name(), Detail: fmt.Sprintf("task %d", tracee)}
		}
	}
	return nil
}
