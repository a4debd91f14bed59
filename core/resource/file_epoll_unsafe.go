package resource

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/tracer/procfs"
)

// kcmpEpoll compares the file behind a descriptor with the one that an epoll
// instance of the same process watches under that number (KCMP_EPOLL_TFD of
// kcmp(2), Linux 4.13): 0 if it is the same.
func kcmpEpoll(pid procfs.PID, fd, epfd int32) (int, error) {
	slot := struct{ efd, tfd, toff uint32 }{uint32(epfd), uint32(fd), 0}
	order, _, errno := unix.Syscall6(unix.SYS_KCMP, uintptr(pid), uintptr(pid), kcmpEpollTFD, uintptr(fd), uintptr(unsafe.Pointer(&slot)), 0)
	if errno != 0 {
		return 0, errno
	}
	return int(order), nil
}
