package procfs

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// setAnonName is prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME), Linux 5.17 with
// CONFIG_ANON_VMA_NAME.
func setAnonName(b []byte, name string) error {
	c, err := unix.BytePtrFromString(name)
	if err != nil {
		return err
	}
	_, _, errno := unix.Syscall6(unix.SYS_PRCTL, unix.PR_SET_VMA, unix.PR_SET_VMA_ANON_NAME,
		uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), uintptr(unsafe.Pointer(c)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// setComm names the calling thread.
func setComm(name string) error {
	c, err := unix.BytePtrFromString(name)
	if err != nil {
		return err
	}
	_, _, errno := unix.Syscall(unix.SYS_PRCTL, unix.PR_SET_NAME, uintptr(unsafe.Pointer(c)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// sigevent is equivalent to struct sigevent of <asm-generic/siginfo.h>.
type sigevent struct {
	value  uint64
	signo  int32
	notify int32
	tid    int32
	_      [44]byte
}

const (
	sigevSignal   = 0
	sigevNone     = 1
	sigevThreadID = 4
)

func timerCreate(clock int32, ev *sigevent) (id int32, err error) {
	_, _, errno := unix.Syscall(unix.SYS_TIMER_CREATE, uintptr(clock), uintptr(unsafe.Pointer(ev)),
		uintptr(unsafe.Pointer(&id)))
	if errno != 0 {
		return 0, errno
	}
	return id, nil
}

func timerDelete(id int32) error {
	if _, _, errno := unix.Syscall(unix.SYS_TIMER_DELETE, uintptr(id), 0, 0); errno != 0 {
		return errno
	}
	return nil
}
