package resource

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// run makes the call in the calling thread.
func (c credCall) run() error {
	var args [5]uintptr
	for i, arg := range c.args {
		switch arg := arg.(type) {
		case uint64:
			args[i] = uintptr(arg)
		case []byte:
			if len(arg) > 0 {
				args[i] = uintptr(unsafe.Pointer(&arg[0])) //nolint:govet // kept alive below
			}
		}
	}
	_, _, errno := unix.RawSyscall6(c.nr, args[0], args[1], args[2], args[3], args[4], 0)
	runtime.KeepAlive(c.args)
	if errno != 0 {
		return errno
	}
	return nil
}
