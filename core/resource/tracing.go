package resource

import (
	"errors"
	"fmt"

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
	Note:    "A process that traces others (ptrace(2)), of the tree or not, is refused.",
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

// SurveyTracing refuses a process that traces one of those.
func (v *View) SurveyTracing(tracees map[procfs.PID]procfs.PID) fault.List {
	if refused := v.tracesAny(tracees); refused != nil {
		return fault.List{refused}
	}
	return nil
}

func (v *View) tracesAny(tracees map[procfs.PID]procfs.PID) *fault.Error {
	for tracer, tracee := range tracees {
		if tracer == v.PID || v.StatusOf(tracer) != nil {
			return &fault.Error{Code: fault.TracesOthers, Object: v.Name(), Detail: fmt.Sprintf("task %d", tracee)}
		}
	}
	return nil
}
