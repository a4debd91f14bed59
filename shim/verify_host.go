package shim

import (
	"os"

	"github.com/cespare/xxhash/v2"

	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/tracer"
)

// hostMachine is what a checkpoint taken here would say about the machine.
func hostMachine() image.Machine {
	m := image.Machine{
		PageSize:    uint32(os.Getpagesize()),
		XsaveSize:   uint32(tracer.XstateSize()),
		XFeatures:   tracer.XFeatures(),
		CallProfile: 13,
	}
	copy(m.Arch[:], machineName)
	if code, err := vdso(); err == nil {
		m.VdsoSize, m.VdsoSum = uint32(len(code)), xxhash.Sum64(code)
	}
	return m
}
