package tracer

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/tracer/procfs"
)

// ErrGone says that the task has ended. It also matches unix.ESRCH, and is
// the same error that procfs returns.
var ErrGone = procfs.ErrGone

var (
	// ErrTimeout says that no stop came in the time given.
	ErrTimeout = errors.New("no stop in time")
	// ErrRunning says that the operation needs a stopped tracee.
	ErrRunning = errors.New("task is not stopped")
	// ErrShort says that a full transfer met the end of its file.
	ErrShort = errors.New("transfer ended early")
	// ErrFull says that a table in scratch memory has no room left; a bigger
	// InjectOptions.ScratchSize gives more.
	ErrFull = errors.New("scratch memory is full")
	// ErrNoPlace says that no memory of the task fits what is to be put there.
	ErrNoPlace = errors.New("no suitable memory")
	// ErrNoMemory says that the kernel gives the task no memory for our work: it
	// is at a limit of its own (RLIMIT_AS, vm.max_map_count), or there is none.
	ErrNoMemory = errors.New("no memory for what is to be done in the task")
	// ErrCompat says that the task runs 32-bit code.
	ErrCompat = errors.New("task runs 32-bit code")
	// ErrState says that a register or xstate value would not be accepted by
	// the kernel, or would kill the task that gets it.
	ErrState = errors.New("invalid processor state")
)

// CallError is a system call of a program that failed inside the task.
type CallError struct {
	NR    uint64
	Name  string
	Args  []uint64 // as the row held them, before cells were loaded
	Row   int      // index within its program
	Errno unix.Errno
}

func (c *CallError) Error() string {
	var args []string
	for _, a := range c.Args {
		args = append(args, formatArg(a))
	}
	return fmt.Sprintf("%s(%s) in the task: %v", c.Name, strings.Join(args, ", "), c.Errno)
}

// Unwrap makes errors.Is(err, unix.ENOENT) work.
func (c *CallError) Unwrap() error { return c.Errno }

// FaultError is a signal that the processor raised while injected code ran:
// an argument cell that cannot be read, most likely.
type FaultError struct {
	Signal unix.Signal
	IP     Addr
}

func (f *FaultError) Error() string {
	return fmt.Sprintf("program raised %v at %v", f.Signal, f.IP)
}

// mapError is why memory for our work could not be mapped.
func mapError(what string, err error) error {
	if errors.Is(err, unix.ENOMEM) {
		err = fmt.Errorf("%w: %w", ErrNoMemory, err)
	}
	return fmt.Errorf("map %s: %w", what, err)
}

func formatArg(a uint64) string {
	if a < 4096 || int64(a) < 0 && int64(a) > -4096 {
		return fmt.Sprint(int64(a))
	}
	return fmt.Sprintf("%#x", a)
}
