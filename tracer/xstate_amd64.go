package tracer

import (
	"encoding/binary"
	"fmt"
	"sync"
)

// An xstate is what PTRACE_GETREGSET(NT_X86_XSTATE) gives: an XSAVE area in
// the standard format (Intel SDM 1, chapter 13), with the host's feature mask
// in its software-reserved bytes.
const (
	ntX86Xstate    = 0x202
	xstateMXCSR    = 24
	xstateReserved = 464 // xfeatures of the host that wrote it
	xstateHeader   = 512 // xstate_bv, xcomp_bv, 48 bytes of zeros
	xstateMin      = 576
	xstateMax      = 64 << 10 // far above any processor's; bounds hostile input
)

func cpuid(leaf, sub uint32) (a, b, c, d uint32)
func xgetbv() uint64

//go:noescape
func fxsaveMask(area *[528]byte) uint32

// xstateHost holds what this host's processor and kernel support.
var xstateHost = sync.OnceValue(func() (h struct {
	size     int
	features uint64
	mxcsr    uint32 // bits that may be set
}) {
	const osxsave = 1 << 27
	h.size, h.features, h.mxcsr = 512, 3, 0xffbf
	if _, _, c, _ := cpuid(1, 0); c&osxsave != 0 {
		_, b, _, _ := cpuid(0xd, 0)
		h.size, h.features = int(b), xgetbv()
	}
	// A processor without the mask has the default one (Intel SDM 1, 11.6.6).
	if mask := fxsaveMask(new([528]byte)); mask != 0 {
		h.mxcsr = mask
	}
	return h
})

// XstateSize is the size in bytes of an xstate of this host.
func XstateSize() int { return xstateHost().size }

// XFeatures is the mask of state components that this host supports (XCR0).
func XFeatures() uint64 { return xstateHost().features }

// XstateFeatures is the mask of the host that wrote b, or 0.
func XstateFeatures(b []byte) uint64 {
	if len(b) < xstateMin {
		return 0
	}
	return binary.LittleEndian.Uint64(b[xstateReserved:])
}

// ValidateXstate says whether SetXstate would succeed with b on this host
// (arch/x86/kernel/fpu/xstate.c, copy_uabi_to_xstate). A longer area than the
// host's is fine if it uses no component that the host lacks. The error
// matches ErrState.
func ValidateXstate(b []byte) error {
	if len(b) < xstateMin || len(b) > xstateMax {
		return fmt.Errorf("xstate of %d bytes: %w", len(b), ErrState)
	}
	if mxcsr := binary.LittleEndian.Uint32(b[xstateMXCSR:]); mxcsr&^xstateHost().mxcsr != 0 {
		return fmt.Errorf("xstate mxcsr %#x: %w", mxcsr, ErrState)
	}
	if used := binary.LittleEndian.Uint64(b[xstateHeader:]); used&^XFeatures() != 0 {
		return fmt.Errorf("xstate components %#x of which the host lacks %#x: %w",
			used, used&^XFeatures(), ErrState)
	}
	for _, c := range b[xstateHeader+8 : xstateMin] {
		if c != 0 {
			return fmt.Errorf("xstate in compacted format: %w", ErrState)
		}
	}
	return nil
}

// Xstate returns the vector and floating point state, XstateSize bytes.
func (e *Tracee) Xstate() ([]byte, error) {
	if err := e.ready(); err != nil {
		return nil, e.fault("read xstate of", err)
	}
	b, err := e.getRegset(ntX86Xstate, make([]byte, XstateSize()))
	return b, e.fault("read xstate of", err)
}

// SetXstate replaces the vector and floating point state. A short area is
// padded with zeros: the components it lacks get their initial state.
func (e *Tracee) SetXstate(b []byte) error {
	err := e.ready()
	if err == nil {
		err = ValidateXstate(b)
	}
	if err == nil {
		whole := make([]byte, XstateSize())
		copy(whole, b)
		err = e.setRegset(ntX86Xstate, whole)
	}
	return e.fault("write xstate of", err)
}
