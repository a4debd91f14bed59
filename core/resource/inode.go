package resource

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/core/object"
	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// InodeKind is a kind of file that exists only for those who have it open or
// mapped. No name leads to it, and so the image carries it: once, where it is
// met first, be that a mapping or a descriptor.
type InodeKind struct {
	// Match tells by its mapping whether a mapped file is of this kind.
	Match func(m *procfs.Mapping) bool
	Code  fault.Code // of one whose mapping cannot be saved
	// Refuse names why one cannot be saved, or nil. The name is what /proc
	// shows of the file.
	Refuse func(v *View, c *contents, name string) error
	// Shared says who else has the file behind a mapping, or nil.
	Shared func(v *View, m *procfs.Mapping) error
	// Dump writes the records, the first with ref as its parent.
	Dump func(s *Saver, c *contents, ref object.Ref, name string) error
	// Kind is that of the first record.
	Kind image.Kind
	// Load reads those records and stages the making of the file.
	Load func(b *Builder, ref object.Ref) (carriedInode, error)
}

// InodeKinds is the table of them, asked in order.
var InodeKinds = []*InodeKind{&memfdInode, &deletedInode, &sysvSegment}

// inodeID is how stat(2) tells files apart.
type inodeID struct{ dev, ino uint64 }

// sysvDevice stands for the device of System V shared memory. Its inodes bear
// the numbers of the segments (ipc/shm.c, newseg), which other files of their
// device may have as well.
const sysvDevice = 1<<64 - 1

func idOf(f *procfs.FD) inodeID { return inodeID{f.Dev, f.Ino} }

func mappedID(m *procfs.Mapping) inodeID {
	if m.Special() == procfs.SpecialSysV {
		return inodeID{sysvDevice, m.Inode}
	}
	return inodeID{unix.Mkdev(m.Major, m.Minor), m.Inode}
}

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
// that the process still has for it, or as its program file, else through the mapping itself, which
// takes CAP_CHECKPOINT_RESTORE (proc(5), map_files).
func (v *View) openMapped(m *procfs.Mapping) (*contents, error) {
	id := mappedID(m)
	for i := range v.FDs {
		if f := &v.FDs[i]; idOf(f) == id && f.Flags&unix.O_PATH == 0 {
			return openContents(v, readerOf(v, f))
		}
	}
	link := procPath(v.PID, procfs.MapFileName(m.Range))
	var st unix.Stat_t
	if exe := procPath(v.PID, "exe"); unix.Stat(exe, &st) == nil && (inodeID{st.Dev, st.Ino}) == id {
		link = exe // which takes no capability
	}
	fd, err := openQuietly(link)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: link, Err: err}
	}
	return &contents{fd: fd, alone: true}, nil
}

// refuseMapped names why the file behind a mapping cannot be saved, or nil.
func (k *InodeKind) refuseMapped(v *View, m *procfs.Mapping) error {
	c, err := v.openMapped(m)
	switch {
	case err == nil:
		err = errors.Join(k.Refuse(v, c, linkText(m)), c.close())
	case errors.Is(err, unix.EPERM) && m.Flags&procfs.VMHugeTLB == 0 && (k == &deletedInode || v.viewable(mappedID(m)) != nil):
		err = nil // by what is mapped of it
	}
	if err != nil {
		return err
	}
	return k.Shared(v, m)
}

func mappedElsewhere(v *View, m *procfs.Mapping) error {
	pid, err := v.usesFile(linkText(m), mappedID(m))
	if err == nil && pid != 0 {
		err = fmt.Errorf("pid %d has it, too", pid)
	}
	return err
}

// inMemory tells whether the file of a mapping is one of tmpfs, whose
// mincore(2) tells what there is of it.
func inMemory(m *procfs.Mapping) bool {
	if m.Special() != procfs.SpecialNone {
		return true // the kernel's own
	}
	var fs unix.Statfs_t
	err := unix.Statfs(filepath.Dir(m.Name), &fs)
	var st unix.Stat_t
	return err == nil && fs.Type == unix.TMPFS_MAGIC &&
		unix.Stat(filepath.Dir(m.Name), &st) == nil && st.Dev == mappedID(m).dev
}

// contentsOf opens the file behind a mapping, or has the task map it as a
// whole, or takes what is mapped of it.
func (s *Saver) contentsOf(m *procfs.Mapping) (*contents, error) {
	c, err := s.openMapped(m)
	if !errors.Is(err, unix.EPERM) {
		return c, err
	}
	var by unopened
	if s.viewable(mappedID(m)) != nil {
		by, err = s.viewOf(mappedID(m))
	} else {
		by, err = s.pagesOf(mappedID(m))
	}
	if err != nil {
		return nil, err
	}
	return &contents{fd: -1, view: by}, nil
}

// usesInode returns another process that has the file behind a descriptor open
// or mapped, 0 if none is known.
func (v *View) usesInode(f *procfs.FD) (procfs.PID, error) {
	return v.usesFile(f.Target, idOf(f))
}

// usesFile does so for what /proc calls by that text. What we may not look into
// belongs to other users.
func (v *View) usesFile(target string, id inodeID) (procfs.PID, error) {
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
	mapped := make(map[inodeID]procfs.PID)
	err := v.eachOther(func(pid procfs.PID, maps []procfs.Mapping) {
		for i := range maps {
			if maps[i].Deleted {
				mapped[mappedID(&maps[i])] = pid
			}
		}
	})
	if err == nil {
		v.mapped = mapped
	}
	return err
}

// dumpMapped writes the file behind a mapping.
func (k *InodeKind) dumpMapped(s *Saver, m *procfs.Mapping, ref object.Ref) error {
	c, err := s.contentsOf(m)
	if err != nil {
		return err
	}
	return errors.Join(k.Dump(s, c, ref, linkText(m)), c.close())
}

// carriedInode is such a file in the caller.
type carriedInode interface {
	// mapping adds the making of a mapping of it, with that protection.
	mapping(b *Builder, m *stagedMapping, prot int) (*tracer.Row, error)
	// shutNow is called when no mapping follows that belongs before.
	shutNow()
}

// stagedInode is one that can be open.
type stagedInode struct {
	made     *stagedOpen // open for reading and writing
	taken    bool        // by an open file of the image; else the commit closes it
	readOnly *stagedOpen // open for reading alone, if a mapping wants that
	reader   *Builder    // whose process has opened it so; its descendants have that, too
	// shut stages what forbids further mappings; nil if nothing does. It comes
	// after the mappings that were there before it.
	shut func()
}

func (n *stagedInode) shutNow() {
	if n.shut != nil {
		n.shut()
		n.shut = nil
	}
}

func (n *stagedInode) mapping(b *Builder, m *stagedMapping, prot int) (*tracer.Row, error) {
	from := n.made
	if m.private() || m.vma.Flags&image.VMShared == 0 {
		from = n.forReading(b)
	}
	return b.Stage().Mmap(m.at, prot, m.mapFlags(), from.fd, m.vma.Pgoff*procfs.PageSize), nil
}

// forReading opens it for reading alone. What is mapped from there does not
// count as open for writing, as a program file must not be.
func (n *stagedInode) forReading(b *Builder) *stagedOpen {
	if n.readOnly == nil || !b.descends(n.reader) {
		n.readOnly, n.reader = b.reopen(n.made, unix.O_RDONLY), b
	}
	return n.readOnly
}

// loadCarried returns the file of that reference, made at its first sight.
func (b *Builder) loadCarried(ref object.Ref) (carriedInode, error) {
	return sharedInode(b, ref, func(ref object.Ref) (carriedInode, error) {
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

// dumpCarried writes an open file that the image carries: open writes the record
// of the open file, and dump, at the first sight of it, the file that is behind.
func dumpCarried(s *Saver, f *procfs.FD, open func(inode object.Ref) error,
	dump func(s *Saver, c *contents, inode object.Ref, target string) error) error {
	inode, first := s.Objects.Add(object.Inode, idOf(f))
	if err := open(inode); err != nil || !first {
		return err
	}
	c, err := openContents(s.View, readerOf(s.View, f))
	if err != nil {
		return err
	}
	return errors.Join(dump(s, c, inode, f.Target), c.close())
}
