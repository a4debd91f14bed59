package resource

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// peekUnix is recvmsg(2) that leaves the message where it is, of a socket of
// ours. The address comes as the kernel has it: unix.Recvmsg ends an abstract
// name at its first NUL.
func peekUnix(fd int, data, control []byte, flags int) (n int, from string, controlLen, got int, err error) {
	var name [2 + sunPathSize]byte
	iov := unix.Iovec{Base: unsafe.SliceData(data), Len: uint64(len(data))}
	msg := unix.Msghdr{Name: &name[0], Namelen: uint32(len(name)), Iov: &iov, Iovlen: 1,
		Control: unsafe.SliceData(control), Controllen: uint64(len(control))}
	r, _, errno := unix.Syscall(unix.SYS_RECVMSG, uintptr(fd), uintptr(unsafe.Pointer(&msg)),
		uintptr(flags|unix.MSG_PEEK|unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC))
	if errno != 0 {
		return 0, "", 0, 0, errno
	}
	if msg.Namelen > 2 {
		from = string(name[2:min(int(msg.Namelen), len(name))])
	}
	return int(r), from, int(msg.Controllen), int(msg.Flags), nil
}
