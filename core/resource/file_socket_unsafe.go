package resource

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// sockopt reads an option of a socket of ours as bytes (getsockopt(2)) and
// returns the length that the kernel gives.
func sockopt(fd, level, name int, value []byte) (int, error) {
	n := uint32(len(value))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(name),
		uintptr(unsafe.Pointer(unsafe.SliceData(value))), uintptr(unsafe.Pointer(&n)), 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
