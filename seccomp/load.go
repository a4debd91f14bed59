package seccomp

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Why Load fails on a host where it can never succeed.
var (
	// ErrTooOld says that the kernel is older than 5.19.
	ErrTooOld = errors.New("kernel lacks seccomp's WAIT_KILLABLE_RECV (Linux 5.19)")
	// ErrNested says that a filter above has a listener already; the kernel allows one in a chain.
	ErrNested = errors.New("another seccomp listener is in place above")
	// ErrUnsupported says that the kernel has no seccomp filters.
	ErrUnsupported = errors.New("kernel has no seccomp filters")
	// ErrPrivileges says that no_new_privs is needed and cannot be set.
	ErrPrivileges = errors.New("cannot set no_new_privs")
)

// Load attaches the filter to the calling thread and returns the descriptor of its listener, which is close-on-exec.
// The caller has locked the thread, and execs on it or ends with it: a filter cannot be taken off.
//
// Without CAP_SYS_ADMIN the kernel demands no_new_privs; Load sets it then and only then, so that set-user-id programs
// keep working below root.
func (f Filter) Load() (fd int, err error) {
	fd, err = seccompNewListener(f)
	if errors.Is(err, unix.EACCES) {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return -1, fmt.Errorf("load filter: %w: %w", ErrPrivileges, err)
		}
		fd, err = seccompNewListener(f)
	}
	switch {
	case err == nil:
		return fd, nil
	case errors.Is(err, unix.EINVAL):
		return -1, fmt.Errorf("load filter: %w: %w", ErrTooOld, err)
	case errors.Is(err, unix.EBUSY):
		return -1, fmt.Errorf("load filter: %w: %w", ErrNested, err)
	case errors.Is(err, unix.ENOSYS):
		return -1, fmt.Errorf("load filter: %w: %w", ErrUnsupported, err)
	}
	return -1, fmt.Errorf("load filter: %w", err)
}
