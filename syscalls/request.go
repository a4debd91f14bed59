package syscalls

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/tracer/procfs"
)

// Arch is the system call interface by which a call was made.
type Arch int

// The two interfaces of an x86-64 kernel that are caught. An i386 program, and a 64-bit one that uses int $0x80, makes
// its calls by I386.
const (
	X8664 Arch = iota
	I386
)

func (a Arch) String() string {
	switch a {
	case X8664:
		return "x86-64"
	case I386:
		return "i386"
	}
	return fmt.Sprintf("Arch(%d)", int(a))
}

// Outcome is what a waiting caller is given: the errno if it is not 0, else the value. Errnos beyond the documented
// ones reach the kernel's exit path: 513 is its ERESTARTNOINTR, "make the call again".
type Outcome struct {
	Value int64
	Errno unix.Errno
}

// Return is the outcome of a call that succeeded.
func Return(value int64) Outcome { return Outcome{Value: value} }

// Fail is the outcome of a call that failed.
func Fail(errno unix.Errno) Outcome { return Outcome{Errno: errno} }

// Request is one call that waits for its outcome.
type Request struct {
	// TID is the thread that waits, in our pid namespace; 0 if it is not visible there.
	TID  procfs.PID
	Arch Arch
	NR   int
	// Args are the six argument registers as they were. Context.Int and the like read them by their C types.
	Args [6]uint64
	// Answer ends the wait. It fails with ENOENT in the chain if the caller is gone.
	Answer func(Outcome) error
	// Valid fails once the caller no longer waits. Only after it has succeeded does something that was opened by TID
	// surely belong to the caller.
	Valid func() error
}
