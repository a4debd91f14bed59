package resource

import (
	"bytes"
	"encoding/binary"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// Commit drops the caller's memory and moves the staged memory into place.
func (r *memoryRestore) Commit(b *Builder, p *tracer.Program) error {
	if b.sharesMemory() {
		return nil
	}
	for _, segment := range r.refill {
		segment.commit(b, p)
	}
	keep := make(map[procfs.Range]bool)
	for _, mv := range r.moves {
		keep[mv.from] = true
	}
	for _, old := range b.Layout.old {
		if !keep[old] {
			p.Munmap(old)
		}
	}
	if err := r.moveSpecials(b, p); err != nil {
		return err
	}
	for _, m := range r.mapped {
		if m.final.Empty() {
			p.Munmap(m.at)
		} else {
			move(p, m.at, m.final)
		}
	}
	for _, kind := range specials[1:] {
		if mv, ok := r.moves[kind]; ok && mv.from != mv.to {
			move(p, mv.from, mv.to)
		}
	}
	r.keys.commit(p)
	r.commitMore(b, p)
	for _, final := range r.sealed {
		p.Call(sysMseal, tracer.Ptr(final.Start), tracer.Imm(final.Len()), tracer.Imm(0))
	}
	if r.exeFrom != nil && !r.exeFrom.taken {
		// A file that is open for writing cannot be a program (ETXTBSY).
		p.Close(r.exeFrom.made.fd)
		b.fds.drop(r.exeFrom.made.fd)
	}
	r.commitMM(p)
	return nil
}

// move adds the move of a mapping as it is.
func move(p *tracer.Program, from, to procfs.Range) *tracer.Row {
	return p.Mremap(from, to.Len(), unix.MREMAP_MAYMOVE|unix.MREMAP_FIXED, to.Start)
}

// commitMM sets the fields of the kernel's mm_struct (prctl(2), PR_SET_MM_MAP;
// struct prctl_mm_map of include/uapi/linux/prctl.h).
func (r *memoryRestore) commitMM(p *tracer.Program) {
	auxv := make([]byte, 8*len(r.auxv))
	for i, w := range r.auxv {
		binary.LittleEndian.PutUint64(auxv[8*i:], w)
	}
	mm := r.mm
	fields := []uint64{mm.StartCode, mm.EndCode, mm.StartData, mm.EndData, mm.StartBrk, mm.Brk, mm.StartStack,
		mm.ArgStart, mm.ArgEnd, mm.EnvStart, mm.EnvEnd}
	pack := func(exe uint32) []byte {
		var buf bytes.Buffer
		for _, f := range fields {
			_ = binary.Write(&buf, binary.LittleEndian, f) // a bytes.Buffer takes everything
		}
		tail := []any{uint64(0), uint32(0), exe}
		if len(auxv) > 0 {
			tail = []any{uint64(p.Bytes(auxv)), uint32(len(auxv)), exe}
		}
		for _, t := range tail {
			_ = binary.Write(&buf, binary.LittleEndian, t)
		}
		return buf.Bytes()
	}
	const prSetMM, prSetMMMap = 35, 14
	set := func(exe uint32) *tracer.Row {
		b := pack(exe)
		return p.Prctl(prSetMM, tracer.Imm(prSetMMMap), tracer.Ptr(p.Bytes(b)), tracer.Imm(uint64(len(b))), tracer.Imm(0))
	}
	set(^uint32(0))
	if r.exeFD != nil {
		// Refused while the old program file is still mapped, which it is if the
		// image maps the caller's own program as well.
		r.exeRow = set(uint32(r.exeFD.fd)).Tolerate()
	}
}

// Committed tells what the commit could not bring back.
func (r *memoryRestore) Committed(b *Builder) {
	if r.exeRow != nil && r.exeRow.Err() != nil {
		b.Warn("/proc/PID/exe is not set to %s: %v", r.exe, r.exeRow.Err())
	}
}
