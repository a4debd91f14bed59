package resource

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/core/object"
	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// deletedFile is a regular file without a name: one that was deleted while it
// was open, or that O_TMPFILE has made. Nobody can open it by name, and so it
// is carried in the image.
var deletedFile = FileKind{
	Name:    "deleted file",
	Support: Full,
	Note: "Contents with their holes, mode, owner, times; flags and offset of each open file. It comes back in the directory that it " +
		"was in, if that still is there and takes it, under the name that the kernel gives to nameless files. Refused if it has " +
		"another name yet, extended attributes, or another process has it, too, as far as /proc shows.",
	Records: []image.Spec{
		image.Row[deletedOpen](deletedOpenKind, "FD_DELETED", image.InFiles, "an open deleted file; its parent is the reference of the open file"),
		image.Row[deletedRecord](deletedKind, "DELETED_FILE", image.Anywhere, "a deleted file, where it is met first; its parent is the reference of the file; FILE_DATA follow"),
		image.Row[fileData](fileDataKind, "FILE_DATA", image.Anywhere, "a piece of a regular file; what no piece covers is zero"),
	},
	Match:  func(_ *View, f *procfs.FD) bool { return isDeleted(f) },
	Refuse: refuseDeleted,
	Dump:   dumpDeletedOpen,
	Kind:   deletedOpenKind,
	Load:   loadDeletedOpen,
}

const (
	deletedOpenKind image.Kind = 6460
	deletedKind     image.Kind = 6461
)

type deletedOpen struct {
	File  uint32 `doc:"reference of the file"`
	Flags uint32 `fmt:"oct" doc:"open flags"`
	Pos   uint64 `doc:"offset"`
}

type deletedRecord struct {
	Size  uint64 `doc:"bytes"`
	ATime int64  `doc:"time of last access, nanoseconds since the epoch"`
	MTime int64  `doc:"time of last modification"`
	Mode  uint32 `fmt:"oct" doc:"permission bits"`
	UID   uint32
	GID   uint32
	Flags uint32 `fmt:"oct" doc:"open flags of the open file that O_TMPFILE made, which may be linked to a name; 0 if there is none"`
	Path  string `doc:"the name that it had"`
}

const deletedSuffix = " (deleted)"

// isDeleted tells a file without a name from one that is called "x (deleted)".
func isDeleted(f *procfs.FD) bool {
	if f.Type() != unix.S_IFREG || memfdOrLike(f) {
		return false
	}
	return f.Nlink == 0 || strings.HasSuffix(f.Target, deletedSuffix) && !leadsTo(f)
}

// leadsTo tells whether the name of an open file still is its name.
func leadsTo(f *procfs.FD) bool {
	var st unix.Stat_t
	return unix.Lstat(f.Target, &st) == nil && st.Dev == f.Dev && st.Ino == f.Ino
}

func refuseDeleted(v *View, f *procfs.FD) *fault.Error {
	refuse := func(err error, format string, args ...any) *fault.Error {
		return &fault.Error{Code: fault.FileUnlinked, Detail: f.Target + fmt.Sprintf(format, args...), Err: err}
	}
	switch {
	case ofProcess.MatchString(f.Target):
		return &fault.Error{Code: fault.ProcFile, Detail: f.Target}
	case f.Nlink > 0:
		return refuse(nil, ", and %d other names", f.Nlink)
	}
	for i := range v.FDs {
		if o := &v.FDs[i]; o.Dev == f.Dev && o.Ino == f.Ino && o.Target != f.Target {
			return refuse(nil, ", also known as %s", o.Target)
		}
	}
	if err := copyable(v, readerOf(v, f)); err != nil {
		return refuse(err, "")
	}
	attribute, err := attributesOf(v, f)
	if err != nil || attribute != "" {
		return refuse(err, ", attribute %s", attribute)
	}
	pid, err := v.usesInode(f)
	if err != nil || pid != 0 {
		return &fault.Error{Code: fault.FileShared, Detail: fmt.Sprintf("%s, pid %d", f.Target, pid), Err: err}
	}
	return nil
}

// copyable tries what the dump will do, and refuses file systems whose files
// are more than their contents.
func copyable(v *View, f *procfs.FD) error {
	c, err := openContents(v, f)
	if err != nil {
		return err
	}
	return errors.Join(c.copyable(), c.close())
}

func (c *contents) copyable() error {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(c.fd, &fs); err != nil {
		return fmt.Errorf("statfs: %w", err)
	}
	switch fs.Type {
	case unix.HUGETLBFS_MAGIC, unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC, unix.CGROUP_SUPER_MAGIC, unix.CGROUP2_SUPER_MAGIC:
		return fmt.Errorf("it is on a file system of the kernel's own: %w", unix.EOPNOTSUPP)
	}
	return nil
}

// deletedInode is the file itself, be it open or mapped.
var deletedInode = InodeKind{
	Match:  isDeletedMapping,
	Code:   fault.MemoryUnlinked,
	Shared: mappedElsewhere,
	Refuse: refuseDeletedInode,
	Dump:   dumpDeleted,
	Kind:   deletedKind,
	Load:   func(b *Builder, ref object.Ref) (carriedInode, error) { return b.makeDeleted(ref) },
}

func isDeletedMapping(m *procfs.Mapping) bool {
	if !m.Deleted || m.Special() != procfs.SpecialNone || m.Name == "/secretmem" || m.Flags&procfs.VMHugeTLB != 0 {
		return false
	}
	var st unix.Stat_t
	named := unix.Lstat(linkText(m), &st) == nil && st.Ino == m.Inode // "(deleted)" is a part of its name
	return !named
}

func refuseDeletedInode(_ *View, c *contents, _ string) error {
	st, err := c.stat()
	if err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Nlink > 0 {
		return fmt.Errorf("it has %d other names: %w", st.Nlink, unix.EOPNOTSUPP)
	}
	buf := make([]byte, 1<<16) // XATTR_LIST_MAX
	n, err := unix.Flistxattr(c.fd, buf)
	if err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("listxattr: %w", err)
	}
	if name := lackedAttribute(buf[:max(n, 0)]); name != "" {
		return fmt.Errorf("attribute %s: %w", name, unix.EOPNOTSUPP)
	}
	return c.copyable()
}

func dumpDeletedOpen(s *Saver, f *procfs.FD, ref object.Ref) error {
	return dumpCarried(s, f, func(inode object.Ref) error {
		return s.W.Put(uint32(ref), &deletedOpen{File: uint32(inode), Flags: f.Flags &^ unix.O_CLOEXEC, Pos: uint64(f.Pos)})
	}, dumpDeleted)
}

// dumpDeleted writes a deleted file.
func dumpDeleted(s *Saver, c *contents, ref object.Ref, target string) error {
	st, err := c.stat()
	if err != nil {
		return err
	}
	c.size = st.Size
	uid, gid, err := s.idsInside(st.Uid, st.Gid)
	if err != nil {
		return err
	}
	rec := deletedRecord{
		Size: uint64(st.Size), ATime: st.Atim.Nano(), MTime: st.Mtim.Nano(),
		Mode: st.Mode & 0o7777, UID: uid, GID: gid, Path: strings.TrimSuffix(target, deletedSuffix),
	}
	for i := range s.FDs {
		if f := &s.FDs[i]; f.Dev == st.Dev && f.Ino == st.Ino && f.Flags&unix.O_TMPFILE == unix.O_TMPFILE {
			rec.Flags = f.Flags &^ unix.O_CLOEXEC
		}
	}
	if err := s.W.Put(uint32(ref), &rec); err != nil {
		return err
	}
	if err := c.dump(s.W, uint32(ref)); err != nil {
		return err
	}
	return c.dumpTail(s.W, uint32(ref))
}

// stagedDeleted is a deleted file in the caller.
type stagedDeleted struct {
	stagedInode
	rec *deletedRecord
}

func loadDeletedOpen(b *Builder, ref object.Ref) (*stagedOpen, error) {
	rec, head, err := image.Expect[deletedOpen](b.R)
	if err != nil {
		return nil, err
	}
	what := fmt.Sprintf("open file %d", ref)
	if head.Parent != uint32(ref) || rec.Flags&unix.O_ACCMODE == unix.O_ACCMODE || rec.Pos > 1<<63-1 {
		return nil, badImage(fault.ImageValue, what, "owner %d, flags %#o, offset %#x", head.Parent, rec.Flags, rec.Pos)
	}
	file, err := sharedInode(b, object.Ref(rec.File), b.makeDeleted)
	if err != nil {
		return nil, err
	}
	open := file.made
	if rec.Flags == file.rec.Flags && rec.Flags&unix.O_TMPFILE == unix.O_TMPFILE && !file.taken {
		file.taken = true
	} else {
		open = b.reopen(file.made, rec.Flags&(unix.O_ACCMODE|onlyAtOpen))
	}
	if rec.Flags&unix.O_PATH != 0 {
		return open, nil
	}
	open.flags, open.pos = rec.Flags, int64(rec.Pos)
	b.setFlags(open, rec.Flags)
	b.Expect(b.Stage().Lseek(open.fd, int64(rec.Pos), unix.SEEK_SET), fault.FileState, open.path)
	return open, nil
}

// onlyAtOpen are the flags that F_SETFL of fcntl(2) does not set.
const onlyAtOpen = unix.O_SYNC | unix.O_DSYNC | unix.O_PATH | unix.O_ASYNC

// makeDeleted reads the record of a deleted file and makes it, with what is in
// it. Its owner and mode come last (finishDeleted), as they decide who may
// open it again.
func (b *Builder) makeDeleted(ref object.Ref) (*stagedDeleted, error) {
	rec, head, err := image.Expect[deletedRecord](b.R)
	if err != nil {
		return nil, err
	}
	tmpfile := rec.Flags&unix.O_TMPFILE == unix.O_TMPFILE && rec.Flags&unix.O_ACCMODE != unix.O_RDONLY
	if head.Parent != uint32(ref) || rec.Size > 1<<63-1 || rec.Flags != 0 && (!tmpfile || rec.Flags&unix.O_PATH != 0) || !strings.HasPrefix(rec.Path, "/") {
		return nil, badImage(fault.ImageValue, fmt.Sprintf("deleted file %d", ref), "%d bytes, flags %#o, name %q", rec.Size, rec.Flags, rec.Path)
	}
	flags := unix.O_TMPFILE | unix.O_RDWR | unix.O_EXCL // which keeps it from getting a name by linkat(2)
	if tmpfile {
		flags = int(rec.Flags & (unix.O_TMPFILE | unix.O_ACCMODE | unix.O_NOFOLLOW | onlyAtOpen))
	}
	if err := b.checkFileSize(rec.Path, rec.Size); err != nil {
		return nil, err
	}
	fd, err := b.openNameless(rec.Path, flags)
	if err != nil {
		return nil, err
	}
	file := &stagedDeleted{stagedInode{made: &stagedOpen{fd: fd, path: rec.Path}}, rec}
	p := b.Stage()
	b.Expect(p.Call(unix.SYS_FCHMOD, fd, tracer.Imm(0o600)), fault.FileState, rec.Path) // whatever the umask
	b.Expect(p.Ftruncate(fd, int64(rec.Size)), fault.FileContents, rec.Path)
	if err := b.loadContents(fd, rec.Size, rec.Path); err != nil {
		return nil, err
	}
	if err := b.loadTail(fd, rec.Size, rec.Path); err != nil {
		return nil, err
	}
	b.deleted = append(b.deleted, file)
	if err := b.Objects.Add(object.Inode, ref, file); err != nil {
		return nil, badImage(fault.ImageValue, rec.Path, "%v", err)
	}
	return file, nil
}

// elsewhereDirs take a file whose own directory does not.
var elsewhereDirs = []string{"/var/tmp", "/tmp", "/dev/shm"}

// openNameless makes a nameless file in the directory of path, or in another
// one.
func (b *Builder) openNameless(path string, flags int) (tracer.FD, error) {
	if err := b.Flush(); err != nil { // the number is foreseen
		return -1, err
	}
	dir := path[:strings.LastIndexByte(path, '/')+1]
	var first error
	for _, try := range append([]string{dir}, elsewhereDirs...) {
		row, err := b.openTemporary(try, flags)
		if err == nil {
			err = row.Err()
		}
		if err == nil {
			if first != nil {
				b.Warn("%s comes back in %s: %v", path+deletedSuffix, try, first)
			}
			return b.fds.take(row), nil
		}
		if first == nil {
			first = err
		}
	}
	return -1, &fault.Error{Code: fault.FileContents, Object: path + deletedSuffix, Err: first}
}

// openTemporary tries one directory; the row tells how it went.
func (b *Builder) openTemporary(dir string, flags int) (*tracer.Row, error) {
	name, err := b.named(dir)
	if err != nil {
		return nil, err
	}
	p := b.Remote.Program()
	row := p.Openat(tracer.Int(unix.AT_FDCWD), name, flags|unix.O_CLOEXEC, 0o600).Tolerate()
	return row, p.Run()
}

// finishDeleted gives the deleted files their owner, mode and times, once all
// of them are open.
func (b *Builder) finishDeleted() error {
	if len(b.deleted) == 0 {
		return nil
	}
	owners := make(map[*stagedDeleted]*tracer.Row)
	for _, file := range b.deleted {
		rec, p := file.rec, b.Stage()
		if rec.UID != b.Caller.Status.Uid[3] || rec.GID != b.Caller.Status.Gid[3] {
			owners[file] = p.Call(unix.SYS_FCHOWN, file.made.fd, tracer.Imm(rec.UID), tracer.Imm(rec.GID)).Tolerate()
		}
		b.Expect(p.Call(unix.SYS_FCHMOD, file.made.fd, tracer.Imm(rec.Mode&0o7777)), fault.FileState, rec.Path)
		times := p.Bytes(itimerspec(rec.ATime, rec.MTime)) // two struct timespec
		b.Expect(p.Call(unix.SYS_UTIMENSAT, file.made.fd, tracer.Imm(0), tracer.Ptr(times), tracer.Imm(0)), fault.FileState, rec.Path)
	}
	if err := b.Flush(); err != nil {
		return err
	}
	for file, row := range owners {
		if err := row.Err(); err != nil {
			b.Warn("%s belongs to the restarter, not to uid %d and gid %d: %v", file.rec.Path+deletedSuffix, file.rec.UID, file.rec.GID, err)
		}
	}
	return nil
}
