package syscalls

import (
	"errors"

	"github.com/crshim/crshim/core"
	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/task"
	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// handleCheckpoint is int checkpoint(pid_t pid, int fd, unsigned long flags).
//
// The order of the checks is that of 2009: flags, descriptor, process, rights.
func handleCheckpoint(c *Context) (int64, error) {
	pid, fd := c.Int(0), c.Int(1)
	if c.Ulong(2) != 0 {
		return 0, &fault.Error{Code: fault.CallFlags, Object: "checkpoint"}
	}
	out, err := takeDescriptor(c, fd)
	if err != nil {
		return 0, err
	}
	defer func() { _ = out.Close() }() // the caller holds the file as well
	target, err := task.Resolve(c.TID, pid)
	if err != nil {
		return 0, err
	}
	done, err := c.Engine.Checkpoint(core.CheckpointRequest{
		Caller: c.caller(),
		PID:    core.PID(pid),
		Target: target,
		Out:    out,
		OutFD:  tracer.FD(fd),
	})
	if errors.Is(err, task.ErrAnswered) {
		return 0, errRestartNoIntr // frozen by somebody else meanwhile: it calls again
	}
	if err != nil {
		return 0, err
	}
	// A caller that has ended since will not ask for its crid.
	if err := c.Remember(int(done.CRID)); err != nil && !errors.Is(err, procfs.ErrGone) {
		return 0, err
	}
	return done.CRID, nil
}
