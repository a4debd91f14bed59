package resource

import (
	"bytes"
	"fmt"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// loadSpecial notes where the vdso or one of its data pages belongs. Its
// contents must be those of this kernel, which the caller has already.
func (r *memoryRestore) loadSpecial(b *Builder, m *stagedMapping) error {
	if err := r.clear(b, m.final); err != nil {
		return err
	}
	if !b.Layout.Claim(m.final) {
		return badImage(fault.ImageRange, fmt.Sprintf("mapping %v", m.final), "overlaps another or lies outside of user space")
	}
	kind := specials[m.more.Special]
	own, ok := findSpecial(b.Caller, kind)
	if _, twice := r.moves[kind]; twice || !ok || own.Len() != m.final.Len() {
		return &fault.Error{Code: fault.ImageVdso, Object: string(kind)}
	}
	r.moves[kind] = place{from: own, to: m.final}
	for {
		chunk, _, err := image.Expect[image.PageArray](b.R)
		if err != nil || chunk.Pages == 0 {
			return err
		}
		addrs, err := b.R.Addrs()
		if err != nil {
			return err
		}
		for _, addr := range addrs {
			saved, err := b.R.Raw(int(procfs.PageSize))
			if err != nil {
				return err
			}
			a := procfs.Addr(addr)
			if !m.final.Contains(a) || addr%procfs.PageSize != 0 {
				return badImage(fault.ImageRange, fmt.Sprintf("mapping %v", m.final), "page %v", a)
			}
			code, err := VDSO()
			if err != nil {
				return err
			}
			at := uint64(a - m.final.Start)
			if kind != procfs.SpecialVDSO || at >= uint64(len(code)) || !bytes.Equal(saved, code[at:at+procfs.PageSize]) {
				return &fault.Error{Code: fault.ImageVdso, Object: string(kind)}
			}
		}
	}
}

func findSpecial(v *View, kind procfs.Special) (procfs.Range, bool) {
	for i := range v.Mappings {
		if v.Mappings[i].Special() == kind {
			return v.Mappings[i].Range, true
		}
	}
	return procfs.Range{}, false
}

// checkSpecials refuses an image that lacks one of the kernel's own mappings,
// or has them in another order than this kernel.
func (r *memoryRestore) checkSpecials(b *Builder) error {
	for _, kind := range specials[1:] {
		_, have := findSpecial(b.Caller, kind)
		if _, want := r.moves[kind]; have && !want {
			return &fault.Error{Code: fault.ImageVdso, Object: string(kind), Detail: "not in the image"}
		}
	}
	return nil
}

// moveSpecials takes the vdso and its like out of the way of everything else,
// to places that neither the caller nor the image uses.
func (r *memoryRestore) moveSpecials(b *Builder, p *tracer.Program) error {
	for _, kind := range specials[1:] {
		mv, ok := r.moves[kind]
		if !ok || mv.from == mv.to {
			continue
		}
		aside, ok := b.Layout.Find(mv.from.Len(), 0, procfs.PageSize)
		if !ok {
			return &fault.Error{Code: fault.StageRoom, Object: string(kind)}
		}
		b.Layout.Occupy(aside)
		move(p, mv.from, aside)
		r.moves[kind] = place{from: aside, to: mv.to}
	}
	return nil
}
