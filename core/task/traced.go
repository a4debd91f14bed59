package task

import (
	"errors"
	"fmt"
	"os"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/tracer/procfs"
)

// TracedBy returns the task that traces tid, 0 if there is none or tid is gone.
func TracedBy(tid procfs.PID) procfs.PID {
	status, err := statusOf(tid)
	if err != nil {
		return 0
	}
	return status.TracerPid
}

// Traced refuses a process of a tree one of whose tasks somebody traces: by the
// name of who does it, if that is in the tree as well. It is nil if nobody but we
// traces them, or if they are gone.
func Traced(pid, root procfs.PID) *fault.Error {
	proc, err := procfs.Open(pid)
	if err != nil {
		return nil
	}
	defer proc.Close()
	threads, err := procfs.LookAtThreads(proc, (*procfs.Proc).Status)
	if err != nil {
		return nil
	}
	for _, thread := range threads {
		by := thread.TracerPid
		if by == 0 {
			continue
		}
		process, err := Process(by)
		if err != nil {
			process = by // it has ended since
		}
		if int(process) == os.Getpid() {
			continue // one that is being stopped
		}
		if below, err := Below(process, root); err == nil && (below || process == root) {
			return &fault.Error{Code: fault.TracesOthers, Object: fmt.Sprintf("pid %d", process), Detail: fmt.Sprintf("task %d of the same tree", thread.Pid)}
		}
		return &fault.Error{Code: fault.TracedByOther, Object: fmt.Sprintf("pid %d", pid), Detail: fmt.Sprintf("by pid %d", by)}
	}
	return nil
}

// reworded names a tracer that is in the tree, which who attaches to one task does
// not know.
func reworded(err error, pid, root procfs.PID) error {
	var refused *fault.Error
	if errors.As(err, &refused) && refused.Code == fault.TracedByOther {
		if found := Traced(pid, root); found != nil {
			*refused = *found
		}
	}
	return err
}
