package resource

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/core/object"
	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// stagedSegment is a segment of the image: the one that is still there, or one
// made anew. It is attached as a whole until the commit; the mappings of the
// image are second views of that.
type stagedSegment struct {
	rec      *sysvRecord
	by       *Builder // in whose memory it is; the children have that as well
	id       uint64
	whole    *stagedMapping
	readOnly *stagedMapping // attached with SHM_RDONLY, if a mapping wants that
	// copy holds what goes into a segment that is still there, at the commit:
	// until then it stays as it is. nil for a new one.
	copy *stagedMapping
	data []procfs.Range // what is not a hole, as offsets
}

func loadSegment(b *Builder, ref object.Ref) (carriedInode, error) {
	rec, head, err := image.Expect[sysvRecord](b.R)
	if err != nil {
		return nil, err
	}
	seg := &stagedSegment{rec: rec, by: b, id: uint64(rec.ID)}
	if head.Parent != uint32(ref) || rec.Size == 0 || rec.Size > 1<<46 || rec.ID > 1<<31-1 || rec.Mode&^(0o777|shmDest|shmLocked) != 0 || b.mem == nil {
		return nil, badImage(fault.ImageValue, seg.name(), "%d bytes, mode %#o", rec.Size, rec.Mode)
	}
	if err := b.Flush(); err != nil {
		return nil, err
	}
	there, err := seg.find(b)
	if err == nil && !there {
		err = seg.create(b)
	}
	if err != nil {
		return nil, err
	}
	if seg.whole, err = seg.attach(b, 0); err != nil {
		return nil, err
	}
	if there {
		if seg.copy, err = b.mem.mapAside(b, seg.length(), unix.MAP_PRIVATE|unix.MAP_NORESERVE); err != nil {
			return nil, err
		}
		b.mem.refill = append(b.mem.refill, seg)
	}
	if err := b.Flush(); err != nil {
		return nil, err
	}
	if err := seg.fill(b); err != nil {
		return nil, err
	}
	if !there && rec.Mode&shmDest != 0 {
		seg.remove(b)
	}
	if err := b.Objects.Add(object.Inode, ref, seg); err != nil {
		return nil, badImage(fault.ImageValue, seg.name(), "%v", err)
	}
	return seg, nil
}

func (g *stagedSegment) name() string { return fmt.Sprintf("segment %d, key %#x", g.rec.ID, g.rec.Key) }

// length is whole pages.
func (g *stagedSegment) length() uint64 {
	return (g.rec.Size + procfs.PageSize - 1) &^ (procfs.PageSize - 1)
}

// find tells whether the segment is still there. One that somebody has attached
// meanwhile would get its old contents under that one's hands.
func (g *stagedSegment) find(b *Builder) (bool, error) {
	p := b.Remote.Program()
	at := p.Buffer(shmDescSize)
	row := p.Call(unix.SYS_SHMCTL, tracer.Imm(g.id), tracer.Imm(unix.IPC_STAT), tracer.Ptr(at)).Tolerate()
	if err := p.Run(); err != nil {
		return false, err
	}
	if row.Err() != nil {
		return false, nil // gone, or another one that is none of our business
	}
	raw := make([]byte, shmDescSize)
	if err := b.Remote.ReadMem(at, raw); err != nil {
		return false, err
	}
	now, err := parseShmDesc(raw)
	rec := g.rec
	if err != nil || now.Size != rec.Size || now.CTime != rec.CTime || now.CUID != rec.CUID || now.CGID != rec.CGID ||
		now.CPID != rec.CPID || now.Mode&shmDest != rec.Mode&shmDest {
		return false, err
	}
	if now.NAttch > b.Caller.ownAttaches(g.id) {
		return false, &fault.Error{Code: fault.SegmentInUse, Object: g.name()}
	}
	return true, nil
}

// create makes it anew: with its id where the caller may choose that, which
// takes CAP_CHECKPOINT_RESTORE in the user namespace of its IPC namespace
// (/proc/sys/kernel/shm_next_id).
func (g *stagedSegment) create(b *Builder) error {
	rec := g.rec
	row, err := g.shmget(b, rec.Key)
	if err != nil {
		return err
	}
	if errors.Is(row.Err(), unix.EEXIST) && rec.Mode&shmDest != 0 {
		if row, err = g.shmget(b, 0); err != nil { // its key had become free for others
			return err
		}
	}
	if err := row.Err(); err != nil {
		return &fault.Error{Code: fault.SegmentFailed, Object: g.name(), Err: err}
	}
	g.id = row.Result()
	b.root().segments = append(b.root().segments, g.id)
	if g.id != uint64(rec.ID) {
		b.Warn("System V shared memory has id %d, not %d: the program may know it by that", g.id, rec.ID)
	}
	p := b.Stage()
	if rec.UID != b.Caller.Status.Uid[1] || rec.GID != b.Caller.Status.Gid[1] {
		var desc bytes.Buffer
		_ = binary.Write(&desc, binary.LittleEndian, shmDesc{UID: rec.UID, GID: rec.GID, Mode: rec.Mode & 0o777}) // takes everything
		b.Expect(p.Call(unix.SYS_SHMCTL, tracer.Imm(g.id), tracer.Imm(unix.IPC_SET), tracer.Ptr(p.Bytes(desc.Bytes()))), fault.SegmentFailed, g.name())
	}
	if rec.Mode&shmLocked != 0 {
		const shmLock = 11
		b.Expect(p.Call(unix.SYS_SHMCTL, tracer.Imm(g.id), tracer.Imm(shmLock), tracer.Imm(0)), fault.SegmentFailed, g.name())
	}
	return nil
}

// shmget tries a key; the row tells how it went. The first process of a tree does
// it for all: the others do not live to undo it.
func (g *stagedSegment) shmget(b *Builder, key uint32) (*tracer.Row, error) {
	p := b.root().Remote.Program()
	next := p.Openat(tracer.Int(unix.AT_FDCWD), "/proc/sys/kernel/shm_next_id", unix.O_WRONLY|unix.O_CLOEXEC, 0).Tolerate()
	text := fmt.Sprint(g.rec.ID)
	p.Write(next, p.Bytes([]byte(text)), uint64(len(text))).Tolerate()
	p.Close(next).Tolerate()
	flags := unix.IPC_CREAT | unix.IPC_EXCL | int(g.rec.Mode&0o777)
	row := p.Call(unix.SYS_SHMGET, tracer.Imm(key), tracer.Imm(g.rec.Size), tracer.Int(flags)).Tolerate()
	row.Undo(unix.SYS_SHMCTL, row, tracer.Imm(unix.IPC_RMID), tracer.Imm(0))
	return row, p.Run()
}

// remove marks it as removed, which it was: it goes with its last user.
func (g *stagedSegment) remove(b *Builder) {
	b.Expect(b.Stage().Call(unix.SYS_SHMCTL, tracer.Imm(g.id), tracer.Imm(unix.IPC_RMID), tracer.Imm(0)), fault.SegmentFailed, g.name())
}

// attach maps it as a whole.
func (g *stagedSegment) attach(b *Builder, flags int) (*stagedMapping, error) {
	m, err := b.mem.reserveAside(b, g.length())
	if err != nil {
		return nil, err
	}
	row := b.Stage().Call(unix.SYS_SHMAT, tracer.Imm(g.id), tracer.Ptr(m.at.Start), tracer.Int(flags))
	b.Expect(row, fault.SegmentFailed, g.name())
	return m, nil
}

// fill reads the contents into a new segment, or aside.
func (g *stagedSegment) fill(b *Builder) error {
	to := g.whole
	if g.copy != nil {
		to = g.copy
	}
	for {
		kind, err := b.R.Peek()
		if err != nil || kind != fileDataKind {
			return err
		}
		piece, _, err := image.Expect[fileData](b.R)
		if err != nil {
			return err
		}
		n := uint64(len(piece.Data))
		if n == 0 || piece.Offset > g.length() || n > g.length()-piece.Offset {
			return badImage(fault.ImageValue, g.name(), "%d bytes at %d", n, piece.Offset)
		}
		if err := b.Tracee.WriteMem(to.at.Start+procfs.Addr(piece.Offset), piece.Data); err != nil {
			return fmt.Errorf("write %s: %w", g.name(), err)
		}
		r := procfs.Range{Start: procfs.Addr(piece.Offset), End: procfs.Addr(piece.Offset + n)}
		const most = 1 << 30 // bytes that one call moves whole
		if last := len(g.data) - 1; last >= 0 && g.data[last].End == r.Start && g.data[last].Len() < most {
			g.data[last].End = r.End
		} else {
			g.data = append(g.data, r)
		}
	}
}

// mapping adds the making of a mapping of the image.
func (g *stagedSegment) mapping(b *Builder, m *stagedMapping, _ int) (*tracer.Row, error) {
	const shmRdonly = 0o10000
	if m.private() || m.vma.Flags&image.VMGrowsDown != 0 || (m.vma.Pgoff+m.final.Pages())*procfs.PageSize > g.length() {
		return nil, badImage(fault.ImageRange, fmt.Sprintf("mapping %v", m.final), "not within %s", g.name())
	}
	base, err := g.wholeOf(b)
	if err != nil {
		return nil, err
	}
	has := unix.PROT_READ | unix.PROT_WRITE
	if m.vma.Flags&image.VMShared == 0 {
		base, has = g.readOnly, unix.PROT_READ
		if base == nil || b.adopted && b != g.by {
			if base, err = g.attach(b, shmRdonly); err != nil {
				return nil, err
			}
		}
		if b == g.by {
			g.readOnly = base
		}
	}
	m.open = m.prot() != has
	return b.secondView(base, m), nil
}

func (g *stagedSegment) shutNow() {}

// commit adds what gives a segment that was still there its contents. The
// caller copies within its own memory.
func (g *stagedSegment) commit(b *Builder, p *tracer.Program) {
	holes := []procfs.Range{{End: procfs.Addr(g.length())}}
	p.Munlock(g.whole.at) // MCL_FUTURE of mlockall(2) would forbid to drop pages
	for _, r := range g.data {
		holes = without(holes, r)
		iov := func(at procfs.Range) tracer.Addr {
			return p.Bytes(quads(uint64(at.Start+r.Start), r.Len()))
		}
		p.Call(unix.SYS_PROCESS_VM_WRITEV, tracer.Imm(uint64(b.VPID)), tracer.Ptr(iov(g.copy.at)), tracer.Imm(1), tracer.Ptr(iov(g.whole.at)), tracer.Imm(1), tracer.Imm(0))
	}
	for _, h := range holes {
		// The end of the last page may be beyond the size.
		h = procfs.Range{Start: (h.Start + procfs.Addr(procfs.PageSize) - 1).PageDown(), End: h.End.PageDown()}
		if !h.Empty() {
			p.Madvise(shift(h, g.whole.at.Start), unix.MADV_REMOVE)
		}
	}
}
