package resource

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// ownerEx is struct f_owner_ex of fcntl(2).
type ownerEx struct {
	Type int32
	PID  int32
}

// The values of ownerEx.Type.
const (
	fOwnerTID  = 0
	fOwnerPID  = 1
	fOwnerPGRP = 2
)

// fileOwner is F_GETOWN_EX. The number is of our own pid namespace, 0 if there
// is nobody, or nobody any more.
func fileOwner(fd int) (ownerEx, error) {
	var owner ownerEx
	_, _, errno := unix.Syscall(unix.SYS_FCNTL, uintptr(fd), unix.F_GETOWN_EX, uintptr(unsafe.Pointer(&owner)))
	if errno != 0 {
		return ownerEx{}, errno
	}
	return owner, nil
}
