package resource

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/core/object"
	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

type memorySave struct {
	brk *tracer.Row
	// segments of System V shared memory that are attached, by id
	segments map[uint64]*segmentAnswer
	whole    mmAnswer
	keys     []*tracer.Row                // what askKeys has asked
	policies map[procfs.Addr]policyAnswer // by the start of the mapping
}

func (s *memorySave) Ask(d *Saver, p *tracer.Program) {
	s.brk = p.Brk(0)
	if d.View.memory != nil {
		return
	}
	s.askSegments(d, p)
	s.whole = askMM(p, d.answer(p, 1))
	s.keys = askKeys(p, nowhere(d.Mappings, d.Remote.Scratch()))
}

func (s *memorySave) Dump(d *Saver) error {
	maps := slices.DeleteFunc(slices.Clone(d.Mappings), func(m procfs.Mapping) bool {
		return m.Special() == procfs.SpecialVSyscall // the same for every process, and not ours to map
	})
	if err := s.dumpMM(d, len(maps)); err != nil {
		return err
	}
	if d.View.memory != nil {
		return d.W.Put(0, &image.MMContext{LDTEntrySize: 8}) // all else is that one's
	}
	if err := s.dumpMore(d); err != nil {
		return err
	}
	if err := s.dumpKeys(d, maps); err != nil {
		return err
	}
	if err := s.askPolicies(d, maps); err != nil {
		return err
	}
	index, err := d.pageIndex()
	if err != nil {
		return err
	}
	for i := range maps {
		if err := s.dumpMapping(d, index, &maps[i]); err != nil {
			return fmt.Errorf("save %s: %w", d.MappingName(&maps[i]), err)
		}
	}
	if err := d.dumpHeld(); err != nil {
		return err
	}
	return d.W.Put(0, &image.MMContext{LDTEntrySize: 8})
}

func (s *memorySave) dumpMM(d *Saver, count int) error {
	st := d.Stat
	mm := image.MM{
		MapCount:  uint32(count),
		StartCode: uint64(st.StartCode), EndCode: uint64(st.EndCode),
		StartData: uint64(st.StartData), EndData: uint64(st.EndData),
		StartBrk: uint64(st.StartBrk), Brk: s.brk.Result(),
		StartStack: uint64(st.StartStack),
		ArgStart:   uint64(st.ArgStart), ArgEnd: uint64(st.ArgEnd),
		EnvStart: uint64(st.EnvStart), EnvEnd: uint64(st.EnvEnd),
	}
	if err := d.W.Put(d.vpid(), &mm); err != nil {
		return err
	}
	exe, err := d.Proc.Link("exe")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := d.W.Put(d.vpid(), &exeRecord{Path: exe}); err != nil {
		return err
	}
	auxv, err := d.Proc.Auxv()
	if err != nil {
		return err
	}
	words := make([]uint64, len(auxv)/8)
	for i := range words {
		words[i] = binary.LittleEndian.Uint64(auxv[8*i:])
	}
	return d.W.Put(d.vpid(), &auxvRecord{Words: words})
}

func (s *memorySave) dumpMapping(d *Saver, index *pageIndex, m *procfs.Mapping) error {
	pool := m.Flags&procfs.VMHugeTLB != 0
	file := m.Inode != 0 && !isSharedAnon(m) && m.Special() != procfs.SpecialHugeTLB
	vma := image.VMA{
		Type:  image.VMAAnon,
		Start: uint64(m.Start), End: uint64(m.End),
		Flags: rawOf(m.Flags),
	}
	if file {
		vma.Type = image.VMAFile
	}
	if m.Inode != 0 {
		vma.Pgoff = m.Offset / procfs.PageSize
	}
	if err := d.W.Put(0, &vma); err != nil {
		return err
	}
	if file {
		if err := d.W.Put(0, &image.FName{Name: linkText(m)}); err != nil {
			return err
		}
	}
	more, err := s.more(d, m, file)
	if err != nil {
		return err
	}
	shared, firstShared, err := s.sharedObject(d, m)
	if err != nil {
		return err
	}
	if shared != nil {
		more.Objref, more.Size = uint32(shared.ref), shared.size
	}
	kind, first := inodeKindOf(m), false
	if kind != nil {
		var ref object.Ref
		ref, first = d.Objects.Add(object.Inode, mappedID(m))
		more.Objref = uint32(ref)
	}
	sharedPool, firstPool := isSharedPool(m), false
	if sharedPool {
		var ref object.Ref
		ref, firstPool = d.Objects.Add(object.SharedMemory, mappedID(m))
		more.Objref, more.Size = uint32(ref), m.Len()
	}
	if more != (vmaMore{}) {
		if err := d.W.Put(0, &more); err != nil {
			return err
		}
	}
	if pool {
		if err := d.W.Put(0, &vmaPool{PageSize: m.KernelPageSize}); err != nil {
			return err
		}
	}
	if err := s.dumpPolicy(d, m); err != nil {
		return err
	}
	if first {
		if err := kind.dumpMapped(d, m, object.Ref(more.Objref)); err != nil {
			return err
		}
	}
	if firstShared {
		if err := shared.dumpHidden(d, index, m); err != nil {
			return err
		}
	}
	guards := index.guardsOf(m)
	if err := dumpGuards(d, guards); err != nil {
		return err
	}
	if m.Special() == procfs.SpecialVDSO {
		return s.dumpVDSO(d, m)
	}
	if sharedPool && !firstPool {
		return errors.Join(d.W.Put(0, new(inheritRecord)), d.W.EndPages())
	}
	pages := index.worthSaving(m)
	if sharedPool {
		if pages, err = poolContents(d, m); err != nil {
			return err
		}
	}
	if shared != nil {
		pages = shared.take(m, guards)
	}
	if pages, err = d.inherit(m, pages); err != nil {
		return err
	}
	// A key may keep the task itself from reading.
	if err := d.pages(pages, m.Perms.Read && !m.Perms.Shared && m.ProtectionKey == 0); err != nil {
		return err
	}
	return d.W.EndPages()
}

// dumpVDSO writes the contents as 2009 did; the reader compares them with its own.
func (s *memorySave) dumpVDSO(d *Saver, m *procfs.Mapping) error {
	code, err := VDSO()
	if err != nil {
		return err
	}
	var addrs []uint64
	for a := m.Start; a < m.End; a += procfs.Addr(procfs.PageSize) {
		addrs = append(addrs, uint64(a))
	}
	if uint64(len(code)) != m.Len() {
		return fmt.Errorf("vdso has %d bytes here: %w", len(code), unix.EOPNOTSUPP)
	}
	if err := d.W.Pages(addrs, nil); err != nil {
		return err
	}
	if err := d.W.Raw(code); err != nil {
		return err
	}
	return d.W.EndPages()
}

func (s *memorySave) more(d *Saver, m *procfs.Mapping, file bool) (vmaMore, error) {
	var more vmaMore
	if i := slices.Index(specials, m.Special()); i > 0 {
		more.Special = uint32(i)
	}
	more.Name, _ = m.AnonName()
	if !file || inodeKindOf(m) != nil {
		return more, nil
	}
	st, err := d.statMapped(m)
	if err != nil {
		return more, &fault.Error{Code: fault.MemoryUnreachable, Object: d.MappingName(m), Err: err}
	}
	more.Size, more.Inode, more.MTime = uint64(st.Size), st.Ino, st.Mtim.Nano()
	if m.Offset == 0 && m.Perms.Read {
		more.IDLen = uint32(copy(more.BuildID[:], d.buildIDOf(m)))
	}
	return more, nil
}

// statMapped looks at the file that the name of a mapping leads to, once for
// all processes that are saved together: they have the same mounts.
func (v *View) statMapped(m *procfs.Mapping) (st unix.Stat_t, err error) {
	name := rootedName{v.Root, m.Name}
	if v.tree != nil {
		if st, known := v.tree.stats[name]; known {
			return st, nil
		}
	}
	if err := unix.Stat(v.reach(m.Name), &st); err != nil {
		return st, err
	}
	if v.tree != nil {
		v.tree.stats[name] = st
	}
	return st, nil
}

// rootedName is a name as processes with that root directory know it.
type rootedName struct{ root, name string }

// buildIDOf is that of the file which begins at a mapping, nil if it has none.
func (d *Saver) buildIDOf(m *procfs.Mapping) []byte {
	if id, known := d.tree.buildIDs[mappedID(m)]; known {
		return id
	}
	var id []byte
	head := d.tree.page
	if err := d.memory.Read(m.Start, head); err == nil { // else it is behind the end of the file
		id = slices.Clone(buildID(head))
	}
	d.tree.buildIDs[mappedID(m)] = id
	return id
}

func dumpGuards(d *Saver, guards []procfs.Range) error {
	const most = 2000 // pairs that fit into one record
	for part := range slices.Chunk(guards, most) {
		var rec guardRecord
		for _, g := range part {
			rec.Bounds = append(rec.Bounds, uint64(g.Start), uint64(g.End))
		}
		if err := d.W.Put(0, &rec); err != nil {
			return err
		}
	}
	return nil
}
