package syscalls

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core"
	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/task"
)

// caller is the waiting task as the engine knows it.
func (c *Context) caller() *core.Caller {
	return &core.Caller{TID: c.TID, Answer: c.Answer, Valid: c.Valid}
}

// takeDescriptor duplicates a descriptor of the caller, sharing its open file
// (pidfd_getfd(2)).
func takeDescriptor(c *Context, fd int) (*os.File, error) {
	pid, err := task.Process(c.TID)
	if err != nil {
		return nil, err
	}
	pidfd, err := unix.PidfdOpen(int(pid), 0)
	if err != nil {
		return nil, &fault.Error{Code: fault.CallerGone, Object: c.Call.Name, Err: err}
	}
	defer func() { _ = unix.Close(pidfd) }() // only looked through
	if err := c.Valid(); err != nil {
		return nil, &fault.Error{Code: fault.CallerGone, Object: c.Call.Name, Err: err}
	}
	own, err := unix.PidfdGetfd(pidfd, fd, 0)
	switch {
	case errors.Is(err, unix.EBADF):
		return nil, &fault.Error{Code: fault.CallDescriptor, Object: c.Call.Name, Detail: fmt.Sprintf("fd %d", fd), Err: err}
	case errors.Is(err, unix.EPERM):
		return nil, &fault.Error{Code: fault.SupervisorLimited, Object: c.Call.Name, Err: err}
	case err != nil:
		return nil, fmt.Errorf("take fd %d of the caller: %w", fd, err)
	}
	return os.NewFile(uintptr(own), fmt.Sprintf("fd %d of the caller", fd)), nil
}
