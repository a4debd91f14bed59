package seccomp

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// waitKillableRecv is SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV of <linux/seccomp.h>, since Linux 5.19.
const waitKillableRecv = 1 << 5

// data is equivalent to struct seccomp_data.
type data struct {
	NR   int32
	Arch uint32
	IP   uint64
	Args [6]uint64
}

// notif is equivalent to struct seccomp_notif.
type notif struct {
	ID    uint64
	PID   uint32
	Flags uint32
	Data  data
}

// notifResp is equivalent to struct seccomp_notif_resp.
type notifResp struct {
	ID    uint64
	Val   int64
	Error int32 // negative
	Flags uint32
}

// notifSizes is equivalent to struct seccomp_notif_sizes.
type notifSizes struct {
	Notif, NotifResp, Data uint16
}

// The requests of seccomp_unotify(2), from <linux/seccomp.h>.
const (
	ioctlRecv    = 0xc0502100
	ioctlSend    = 0xc0182101
	ioctlIDValid = 0x40082102
)

// seccompNewListener is seccomp(SECCOMP_SET_MODE_FILTER) on the calling thread.
func seccompNewListener(f Filter) (int, error) {
	prog := unix.SockFprog{Len: uint16(len(f)), Filter: unsafe.SliceData(f)}
	fd, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
		unix.SECCOMP_FILTER_FLAG_NEW_LISTENER|waitKillableRecv, uintptr(unsafe.Pointer(&prog)))
	runtime.KeepAlive(f)
	if errno != 0 {
		return -1, errno
	}
	return int(fd), nil
}

// getNotifSizes is seccomp(SECCOMP_GET_NOTIF_SIZES): what this kernel reads and writes.
func getNotifSizes() (notifSizes, error) {
	var sizes notifSizes
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_GET_NOTIF_SIZES, 0, uintptr(unsafe.Pointer(&sizes)))
	if errno != 0 {
		return notifSizes{}, errno
	}
	return sizes, nil
}

// recv is SECCOMP_IOCTL_NOTIF_RECV. The buffer must be zero and is as large as the kernel's structure, which may be
// larger than ours.
func recv(fd uintptr, size uint16) (notif, error) {
	buf := make([]uint64, (max(size, uint16(unsafe.Sizeof(notif{})))+7)/8)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, ioctlRecv, uintptr(unsafe.Pointer(&buf[0])))
	if errno != 0 {
		return notif{}, errno
	}
	return *(*notif)(unsafe.Pointer(&buf[0])), nil
}

// send is SECCOMP_IOCTL_NOTIF_SEND; see recv for size.
func send(fd uintptr, size uint16, resp notifResp) error {
	buf := make([]uint64, (max(size, uint16(unsafe.Sizeof(resp)))+7)/8)
	*(*notifResp)(unsafe.Pointer(&buf[0])) = resp
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, ioctlSend, uintptr(unsafe.Pointer(&buf[0])))
	if errno != 0 {
		return errno
	}
	return nil
}

// idValid is SECCOMP_IOCTL_NOTIF_ID_VALID.
func idValid(fd uintptr, id uint64) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, ioctlIDValid, uintptr(unsafe.Pointer(&id)))
	if errno != 0 {
		return errno
	}
	return nil
}
