package shim

import "unsafe"

// commOfStages is the name by which ps shows the stages.
const commOfStages = "crshim"

var comm = append([]byte(commOfStages), 0)

// commName is that name as prctl(PR_SET_NAME) takes it.
func commName() uintptr { return uintptr(unsafe.Pointer(&comm[0])) }
