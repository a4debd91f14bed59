package procfs

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Requests and flags of <linux/userfaultfd.h>.
const (
	uffdioAPI      = 0xc018aa3f
	uffdioRegister = 0xc020aa00

	uffdUserModeOnly         = 1
	uffdAPI                  = 0xaa
	uffdFeatureWPUnpopulated = 1 << 13
	uffdFeatureWPAsync       = 1 << 15
	uffdModeWP               = 2
)

// watch registers r with a userfaultfd for asynchronous write protection. The
// error wraps ENOSYS or EINVAL where the kernel has no such thing.
func watch(r Range) (fd int, err error) {
	n, _, errno := unix.Syscall(unix.SYS_USERFAULTFD, unix.O_CLOEXEC|uffdUserModeOnly, 0, 0)
	if errno != 0 {
		return -1, errno
	}
	fd = int(n)
	api := [3]uint64{uffdAPI, uffdFeatureWPAsync | uffdFeatureWPUnpopulated, 0}
	_, _, errno = unix.Syscall(unix.SYS_IOCTL, n, uffdioAPI, uintptr(unsafe.Pointer(&api)))
	if errno == 0 {
		reg := [4]uint64{uint64(r.Start), r.Len(), uffdModeWP, 0}
		_, _, errno = unix.Syscall(unix.SYS_IOCTL, n, uffdioRegister, uintptr(unsafe.Pointer(&reg)))
	}
	if errno != 0 {
		unix.Close(fd)
		return -1, errno
	}
	return fd, nil
}
