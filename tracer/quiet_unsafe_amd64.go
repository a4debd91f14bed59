package tracer

import (
	"structs"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sigaction is struct kernel_sigaction (arch/x86/include/asm/signal.h).
type sigaction struct {
	_        structs.HostLayout
	handler  uintptr
	flags    uint64
	restorer uintptr
	mask     uint64
}

const (
	saNoCldStop = 1 // SA_NOCLDSTOP
	sigsetSize  = 8 // of the kernel's sigset_t
)

// quiet has the kernel send us no SIGCHLD for the stops of tracees: who waits
// for one is woken in any case (ptrace(2)), and the signal would wake a thread
// of the runtime besides. Those of children that end still come. It is a matter
// of speed alone.
var quiet = sync.OnceFunc(func() {
	var a sigaction
	if !changeSigaction(unix.SIGCHLD, nil, &a) || a.flags&saNoCldStop != 0 {
		return
	}
	a.flags |= saNoCldStop
	changeSigaction(unix.SIGCHLD, &a, nil)
})

// changeSigaction is rt_sigaction(2).
func changeSigaction(sig unix.Signal, to, was *sigaction) bool {
	_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(to)),
		uintptr(unsafe.Pointer(was)), sigsetSize, 0, 0)
	return errno == 0
}
