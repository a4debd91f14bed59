package syscalls

import (
	"errors"
	"fmt"

	"github.com/crshim/crshim/core"
	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/task"
	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// handleRestart is int restart(int crid, int fd, unsigned long flags).
//
// usage.txt has crid 0, and rstr.c passes the caller's own pid; both mean the
// same here. With the pid of another task the caller becomes a process of the tree
// that that one restarts; fd is ignored. It returns only if it fails.
func handleRestart(c *Context) (int64, error) {
	crid, fd := c.Int(0), c.Int(1)
	if c.Ulong(2) != 0 {
		return 0, &fault.Error{Code: fault.CallFlags, Object: "restart"}
	}
	own, err := ownPID(c.TID)
	if err != nil {
		return 0, err
	}
	switch {
	case fd == -1 && crid > 0:
		return 0, &fault.Error{Code: fault.CallCRIDUnknown, Object: "restart", Detail: fmt.Sprintf("crid %d", crid)}
	case crid != 0 && crid != own:
		return join(c, crid)
	}
	in, err := takeDescriptor(c, fd)
	if err != nil {
		return 0, err
	}
	defer func() { _ = in.Close() }() // the caller holds the file as well
	done, err := c.Engine.Restart(core.RestartRequest{Caller: c.caller(), In: in, InFD: tracer.FD(fd)})
	if errors.Is(err, task.ErrAnswered) {
		return 0, errRestartNoIntr // frozen by somebody else meanwhile: it calls again
	}
	if err != nil {
		return 0, err
	}
	return done.Value, nil
}

// join waits in the restart of another task.
func join(c *Context, crid int) (int64, error) {
	root, err := task.Resolve(c.TID, crid)
	if err != nil {
		return 0, &fault.Error{Code: fault.CallCRID, Object: "restart", Detail: fmt.Sprintf("crid %d", crid)}
	}
	value, err := c.Engine.Join(c.caller(), root)
	if errors.Is(err, task.ErrAnswered) {
		return 0, errRestartNoIntr
	}
	return value, err
}

// ownPID is what getpid() tells the caller.
func ownPID(tid procfs.PID) (int, error) {
	p, err := procfs.Open(tid)
	if err != nil {
		return 0, &fault.Error{Code: fault.CallerGone, Object: "restart", Err: err}
	}
	defer func() { _ = p.Close() }()
	status, err := p.Status()
	if err != nil {
		return 0, &fault.Error{Code: fault.CallerGone, Object: "restart", Err: err}
	}
	return int(status.NStgid[len(status.NStgid)-1]), nil
}
