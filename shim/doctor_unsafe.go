package shim

import (
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

func iovec(b []byte) []unix.Iovec {
	v := unix.Iovec{Base: &b[0]}
	v.SetLen(len(b))
	return []unix.Iovec{v}
}

func remoteIovec(b []byte) []unix.RemoteIovec {
	return []unix.RemoteIovec{{Base: uintptr(unsafe.Pointer(&b[0])), Len: len(b)}}
}

// kcmpFile compares two descriptors of one process (KCMP_FILE of include/uapi/linux/kcmp.h).
func kcmpFile(pid, fd1, fd2 int) (same bool, err error) {
	const kcmpFileType = 0
	r, _, errno := unix.Syscall6(unix.SYS_KCMP, uintptr(pid), uintptr(pid), kcmpFileType, uintptr(fd1), uintptr(fd2), 0)
	if errno != 0 {
		return false, fmt.Errorf("kcmp: %w", errno)
	}
	return r == 0, nil
}

// tidAddress asks for the clear_child_tid address, which only CONFIG_CHECKPOINT_RESTORE makes readable.
func tidAddress() error {
	var addr uintptr
	return unix.Prctl(unix.PR_GET_TID_ADDRESS, uintptr(unsafe.Pointer(&addr)), 0, 0, 0)
}

// mmMapSize asks how big struct prctl_mm_map is.
func mmMapSize() (uint32, error) {
	var size uint32
	err := unix.Prctl(unix.PR_SET_MM, unix.PR_SET_MM_MAP_SIZE, uintptr(unsafe.Pointer(&size)), 0, 0)
	return size, err
}

// cloneWithPID calls clone3 for a process with a given pid. It is for a pid that is taken, so that it never succeeds:
// a child made so would share this program's threads with nobody.
func cloneWithPID(pid int) error {
	tid := int32(pid)
	args := struct { // struct clone_args of include/uapi/linux/sched.h
		flags, pidfd, childTID, parentTID, exitSignal, stack, stackSize, tls, setTID, setTIDSize, cgroup uint64
	}{setTID: uint64(uintptr(unsafe.Pointer(&tid))), setTIDSize: 1, exitSignal: uint64(unix.SIGCHLD)}
	r, _, errno := unix.RawSyscall(unix.SYS_CLONE3, uintptr(unsafe.Pointer(&args)), unsafe.Sizeof(args), 0)
	runtime.KeepAlive(&tid)
	if errno == 0 {
		if r == 0 {
			unix.RawSyscall(unix.SYS_EXIT_GROUP, 1, 0, 0)
		}
		return fmt.Errorf("clone3 made process %d although pid %d is taken", r, pid)
	}
	return errno
}

// userfaultfdFeatures opens a userfaultfd for user-mode faults, which needs no privilege, and asks for its features.
func userfaultfdFeatures() (uint64, error) {
	const (
		userModeOnly = 1          // UFFD_USER_MODE_ONLY
		uffdAPI      = 0xAA       // UFFD_API
		ioctlAPI     = 0xC018AA3F // UFFDIO_API: _IOWR(0xAA, 0x3F, struct uffdio_api)
	)
	fd, _, errno := unix.Syscall(unix.SYS_USERFAULTFD, unix.O_CLOEXEC|userModeOnly, 0, 0)
	if errno != 0 {
		return 0, fmt.Errorf("userfaultfd: %w", errno)
	}
	defer unix.Close(int(fd))
	arg := struct{ api, features, ioctls uint64 }{api: uffdAPI}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, ioctlAPI, uintptr(unsafe.Pointer(&arg))); errno != 0 {
		return 0, fmt.Errorf("ioctl UFFDIO_API: %w", errno)
	}
	return arg.features, nil
}

// askCollapse tries to make one huge page of ordinary ones. A kernel that knows the advice may still find none free.
func askCollapse() finding {
	const (
		hugePage     = 2 << 20
		madvCollapse = 25 // MADV_COLLAPSE
	)
	mem, err := unix.Mmap(-1, 0, 2*hugePage, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return finding{unknown, fmt.Sprintf("mmap: %v", err)}
	}
	defer unix.Munmap(mem)
	skip := int(-uintptr(unsafe.Pointer(&mem[0])) % hugePage)
	mem[skip] = 1
	err = unix.Madvise(mem[skip:skip+hugePage], madvCollapse)
	if errors.Is(err, unix.ENOMEM) || errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EBUSY) {
		return finding{yes, "no huge page was free just now"}
	}
	return judge(err, "", unix.EINVAL)
}
