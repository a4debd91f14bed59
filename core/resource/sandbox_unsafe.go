package resource

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// loadFilter is seccomp(2) for the calling thread: SECCOMP_SET_MODE_FILTER.
func loadFilter(code []byte, flags uintptr) (int, error) {
	program := unix.SockFprog{Len: uint16(len(code) / insnSize), Filter: (*unix.SockFilter)(unsafe.Pointer(&code[0]))}
	fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&program)))
	if errno != 0 {
		return -1, errno
	}
	return int(fd), nil
}
