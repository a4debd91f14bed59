package resource

import (
	"fmt"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// sysMseal is mseal(2), since Linux 6.10: memory that is sealed keeps its place,
// its rights and its contents until the process ends.
const sysMseal = 462

// mayBeReplaced refuses a caller whose own memory is sealed.
func mayBeReplaced(caller *View) error {
	for i := range caller.Mappings {
		if m := &caller.Mappings[i]; m.Flags&procfs.VMSealed != 0 {
			return &fault.Error{Code: fault.CallerSealed, Object: caller.Name(), Detail: caller.MappingName(m)}
		}
	}
	return nil
}

// seal has a mapping sealed at the very end, once it is in place.
func (r *memoryRestore) seal(b *Builder, m *stagedMapping) {
	if len(r.sealed) == 0 { // nothing is sealed by that, but a kernel without the call says so
		row := b.Stage().Call(sysMseal, tracer.Imm(0), tracer.Imm(0), tracer.Imm(0))
		b.Expect(row, fault.StageFailed, fmt.Sprintf("seal of mapping %v", m.final))
	}
	r.sealed = append(r.sealed, m.final)
}
