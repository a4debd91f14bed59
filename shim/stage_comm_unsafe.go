package shim

import "unsafe"

var comm = [16]byte{'c', 'r', 's', 'h', 'i', 'm'}

// commName is the name of our processes as prctl(PR_SET_NAME) takes it.
func commName() uintptr { return uintptr(unsafe.Pointer(&comm)) }
