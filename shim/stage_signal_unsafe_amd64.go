package shim

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sigaction is equivalent to struct sigaction of the kernel on x86-64 (arch/x86/include/uapi/asm/signal.h).
type sigaction struct {
	handler  uintptr
	flags    uint64
	restorer uintptr
	mask     uint64
}

// The special values of sigaction.handler.
const (
	sigDefault = 0
	sigIgnore  = 1
)

// setSigaction is rt_sigaction(2), past os/signal: that keeps a handler installed where the default is asked for, and
// cannot set one for the program that is to be executed.
func setSigaction(sig unix.Signal, action sigaction) (old sigaction, err error) {
	_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(&action)),
		uintptr(unsafe.Pointer(&old)), unsafe.Sizeof(action.mask), 0, 0)
	if errno != 0 {
		return sigaction{}, fmt.Errorf("set action of %s: %w", unix.SignalName(sig), errno)
	}
	return old, nil
}
