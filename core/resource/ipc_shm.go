package resource

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

type segmentRecord struct {
	IPCOwner
	Locked uint32 `doc:"1 if locked into memory (SHM_LOCK)"`
	Size   uint64 `doc:"bytes"`
}

// length is whole pages.
func (r *segmentRecord) length() uint64 {
	return (r.Size + procfs.PageSize - 1) &^ (procfs.PageSize - 1)
}

// unattached is a segment that no process has; while it is saved the first process
// has it.
type unattached struct {
	segmentRecord
	contents *contents
}

// askSegments attaches those that nobody has attached, for as long as the container is frozen.
func (i *Namespaces) askSegments() error {
	found, err := i.list(&sysvShm)
	if err != nil {
		return err
	}
	for _, o := range found {
		desc, err := parseShmDesc(o.raw)
		if err != nil {
			return err
		}
		perm := ipcPerm{Key: desc.Key, UID: desc.UID, GID: desc.GID, CUID: desc.CUID, CGID: desc.CGID, Mode: desc.Mode}
		seg := &unattached{segmentRecord: segmentRecord{IPCOwner: sysvShm.owner(o.id, &perm), Size: desc.Size}}
		name := sysvShm.name(&seg.IPCOwner)
		if desc.Mode&shmLocked != 0 {
			seg.Locked = 1
		}
		var own uint64
		for _, v := range i.s.together() {
			own += v.ownAttaches(uint64(o.id))
		}
		switch {
		case desc.NAttch > own:
			return i.refuse(name, nil, "attached %d times from outside of the container", desc.NAttch-own)
		case own > 0:
			continue // saved with those who have it
		}
		if err := i.attachSegment(seg, name); err != nil {
			return err
		}
		i.segments = append(i.segments, seg)
	}
	return nil
}

// attachSegment maps a segment, to read what is in it.
func (i *Namespaces) attachSegment(seg *unattached, name string) error {
	const shmRdonly = 0o10000
	p := i.s.Remote.Program()
	row := p.Call(unix.SYS_SHMAT, tracer.Imm(uint64(seg.ID)), tracer.Imm(0), tracer.Imm(shmRdonly))
	undo := row.Undo(unix.SYS_SHMDT, row)
	if err := p.Run(); err != nil {
		return i.asked(name, err)
	}
	size := seg.length()
	start := procfs.Addr(row.Result())
	view := &memoryView{s: i.s, at: procfs.Range{Start: start, End: start + procfs.Addr(size)}, size: size, undo: undo}
	seg.contents = &contents{fd: -1, view: view, size: int64(size)}
	maps, err := i.s.Proc.Mappings()
	if err != nil {
		return err
	}
	for k := range maps {
		if maps[k].Start == start && maps[k].Flags&procfs.VMHugeTLB != 0 {
			return i.refuse(name, nil, "of huge pages")
		}
	}
	return view.findData(true)
}

func (i *Namespaces) dumpSegments() error {
	for _, seg := range i.segments {
		if err := i.s.W.Put(0, &seg.segmentRecord); err != nil {
			return err
		}
		err := seg.contents.dump(i.s.W, seg.ID)
		if err = errors.Join(err, seg.contents.close()); err != nil {
			return fmt.Errorf("save %s: %w", sysvShm.name(&seg.IPCOwner), err)
		}
	}
	return nil
}

func loadUnattached(b *Builder, to into) error {
	rec, name, err := expectOwned(b, &sysvShm, func(r *segmentRecord) *IPCOwner { return &r.IPCOwner })
	if err != nil {
		return err
	}
	if rec.Size == 0 || rec.Size > 1<<46 || rec.Locked > 1 {
		return badImage(fault.ImageValue, name, "%d bytes", rec.Size)
	}
	if !to.make {
		err := b.eachPieceOf(name, rec.length(), func(*fileData) error { return nil })
		if err == nil {
			err = sysvShm.expect(b, &rec.IPCOwner)
		}
		return err
	}
	if err := sysvShm.create(b, &rec.IPCOwner, unix.SYS_SHMGET, tracer.Imm(rec.Size), rec.makeMode()); err != nil {
		return err
	}
	p := b.Remote.Program()
	at := p.Call(unix.SYS_SHMAT, tracer.Imm(uint64(rec.ID)), tracer.Imm(0), tracer.Imm(0))
	at.Undo(unix.SYS_SHMDT, at)
	if err := b.makeIPC(p, name); err != nil {
		return err
	}
	start := tracer.Addr(at.Result())
	if err := b.eachPieceOf(name, rec.length(), func(data *fileData) error {
		return b.Tracee.WriteMem(start+tracer.Addr(data.Offset), data.Data)
	}); err != nil {
		return err
	}
	p = b.Remote.Program()
	p.Call(unix.SYS_SHMDT, tracer.Ptr(start))
	if rec.Locked != 0 {
		const shmLock = 11
		p.Call(unix.SYS_SHMCTL, tracer.Imm(uint64(rec.ID)), tracer.Imm(shmLock), tracer.Imm(0))
	}
	sysvShm.set(p, &rec.IPCOwner, shmDesc{UID: rec.UID, GID: rec.GID, Mode: rec.Mode})
	return b.makeIPC(p, name)
}
