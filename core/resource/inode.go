package resource

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/core/object"
	"github.com/crshim/crshim/tracer/procfs"
)

// InodeKind is a kind of file that exists only for those who have it open or
// mapped. No name leads to it, and so the image carries it: once, where it is
// met first, be that a mapping or a descriptor.
type InodeKind struct {
	// Match tells by its mapping whether a mapped file is of this kind.
	Match func(m *procfs.Mapping) bool
	// Refuse names why one cannot be saved, or nil. The name is what /proc
	// shows of the file.
	Refuse func(v *View, file *os.File, name string) error
	// Dump writes the records, the first with ref as its parent.
	Dump func(s *Saver, file *os.File, name string, ref object.Ref) error
	// Kind is that of the first record.
	Kind image.Kind
	// Load reads those records and stages the making of the file.
	Load func(b *Builder, ref object.Ref) (*stagedInode, error)
}

// InodeKinds is the table of them, asked in order.
var InodeKinds = []*InodeKind{&memfdInode}

// inodeID is how stat(2) tells files apart.
type inodeID struct{ dev, ino uint64 }

func mappedID(m *procfs.Mapping) inodeID { return inodeID{unix.Mkdev(m.Major, m.Minor), m.Inode} }

// inodeKindOf returns the kind of the file behind a mapping, nil if it is one
// with a name, or none.
func inodeKindOf(m *procfs.Mapping) *InodeKind {
	for _, k := range InodeKinds {
		if k.Match(m) {
			return k
		}
	}
	return nil
}

// linkText is what /proc/PID/fd shows of the file of a mapping.
func linkText(m *procfs.Mapping) string {
	if m.Deleted {
		return m.Name + " (deleted)"
	}
	return m.Name
}

// openMapped opens the file behind a mapping for reading: through a descriptor
// that the process still has for it, else through the mapping itself, which
// takes CAP_CHECKPOINT_RESTORE (proc(5), map_files).
func (v *View) openMapped(m *procfs.Mapping) (*os.File, error) {
	id := mappedID(m)
	for i := range v.FDs {
		if f := &v.FDs[i]; f.Dev == id.dev && f.Ino == id.ino && f.Flags&unix.O_PATH == 0 {
			return os.Open(fmt.Sprintf("/proc/%d/fd/%d", v.PID, f.Number))
		}
	}
	return os.Open(fmt.Sprintf("/proc/%d/%s", v.PID, procfs.MapFileName(m.Range)))
}

// refuseMapped names why the file behind a mapping cannot be saved, or nil.
func (k *InodeKind) refuseMapped(v *View, m *procfs.Mapping) error {
	file, err := v.openMapped(m)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }() // only read from
	if err := k.Refuse(v, file, linkText(m)); err != nil {
		return err
	}
	pid, err := v.usesInode(linkText(m), mappedID(m))
	if err == nil && pid != 0 {
		err = fmt.Errorf("pid %d has it, too", pid)
	}
	return err
}

// usesInode returns another process that has the file open or mapped, 0 if
// none is known. What we may not look into belongs to other users.
func (v *View) usesInode(target string, id inodeID) (procfs.PID, error) {
	holders, err := v.elsewhere(target)
	if err != nil {
		return 0, err
	}
	for _, h := range holders {
		if h.pid == procfs.PID(os.Getpid()) {
			continue // ours, to look at it
		}
		var st unix.Stat_t
		if err := unix.Stat(fmt.Sprintf("/proc/%d/fd/%d", h.pid, h.fd), &st); err == nil && (inodeID{st.Dev, st.Ino}) == id {
			return h.pid, nil
		}
	}
	if v.mapped == nil {
		if err := v.readMapped(); err != nil {
			return 0, err
		}
	}
	return v.mapped[id], nil
}

// readMapped reads once which nameless files the other processes have mapped.
func (v *View) readMapped() error {
	pids, err := procfs.List()
	if err != nil {
		return err
	}
	v.mapped = make(map[inodeID]procfs.PID)
	for _, pid := range pids {
		if pid == v.PID {
			continue
		}
		proc, err := procfs.Open(pid)
		if err != nil {
			continue
		}
		maps, err := proc.Maps()
		proc.Close()
		if err != nil {
			continue
		}
		for i := range maps {
			if maps[i].Deleted {
				v.mapped[mappedID(&maps[i])] = pid
			}
		}
	}
	return nil
}

// dumpMapped writes the file behind a mapping at its first sight, and returns
// its reference.
func (k *InodeKind) dumpMapped(s *Saver, m *procfs.Mapping, ref object.Ref) error {
	file, err := s.openMapped(m)
	if err != nil {
		return fmt.Errorf("open %s: %w", m.Name, err)
	}
	defer func() { _ = file.Close() }() // only read from
	return k.Dump(s, file, linkText(m), ref)
}

// stagedInode is such a file in the caller.
type stagedInode struct {
	made     *stagedOpen // open for reading and writing
	taken    bool        // by an open file of the image; else the commit closes it
	readOnly *stagedOpen // open for reading alone, if a mapping wants that
	// shut stages what forbids further mappings; nil if nothing does. It comes
	// after the mappings that were there before it.
	shut func()
}

// loadInode returns the file of that reference, made at its first sight.
func (b *Builder) loadInode(ref object.Ref) (*stagedInode, error) {
	return sharedInode(b, ref, func(ref object.Ref) (*stagedInode, error) {
		next, err := b.R.Peek()
		if err != nil {
			return nil, err
		}
		for _, k := range InodeKinds {
			if k.Kind == next {
				return k.Load(b, ref)
			}
		}
		return nil, badImage(fault.ImageRecord, fmt.Sprintf("file %d", ref), "record of kind %v", next)
	})
}

// shutNow is called when no mapping follows that belongs before.
func (n *stagedInode) shutNow() {
	if n.shut != nil {
		n.shut()
		n.shut = nil
	}
}

// open stages one more open file of it, with an access mode of its own.
func (n *stagedInode) open(b *Builder, access uint32) *stagedOpen {
	if access != unix.O_RDWR || n.taken {
		return b.reopen(n.made, access)
	}
	n.taken = true
	return n.made
}

// The contents of such a file, piece by piece.
const (
	contentsKind  image.Kind = 6420
	contentsPiece            = 28 << 10 // whole pages that fit one record
)

type contentsRecord struct {
	Offset uint64
	Data   []byte `fmt:"size"`
}

// dumpContents writes what is not a hole (lseek(2), SEEK_DATA).
func dumpContents(w *image.Writer, file *os.File, owner object.Ref) error {
	const seekData, seekHole = 3, 4
	buf := make([]byte, contentsPiece)
	for at := int64(0); ; {
		from, err := file.Seek(at, seekData)
		if errors.Is(err, unix.ENXIO) {
			return nil // no data from there on
		}
		if err != nil {
			return err
		}
		if at, err = file.Seek(from, seekHole); err != nil {
			return err
		}
		for from < at {
			n, err := file.ReadAt(buf[:min(contentsPiece, at-from)], from)
			if n == 0 {
				return fmt.Errorf("read at %d: %w", from, err)
			}
			if err := w.Put(uint32(owner), &contentsRecord{Offset: uint64(from), Data: buf[:n]}); err != nil {
				return err
			}
			from += int64(n)
		}
	}
}

// loadContents stages the writing of the pieces that follow into a file of
// that size.
func loadContents(b *Builder, to *stagedOpen, size uint64) error {
	for {
		kind, err := b.R.Peek()
		if err != nil || kind != contentsKind {
			return err
		}
		piece, _, err := image.Expect[contentsRecord](b.R)
		if err != nil {
			return err
		}
		n := uint64(len(piece.Data))
		if n == 0 || piece.Offset > size || n > size-piece.Offset {
			return badImage(fault.ImageValue, to.path, "%d bytes at %d", n, piece.Offset)
		}
		p := b.Stage()
		b.Expect(p.Pwrite(to.fd, p.Bytes(piece.Data), n, int64(piece.Offset)).Full(), fault.FileState, to.path)
		if err := b.filled(int(n)); err != nil {
			return err
		}
	}
}
