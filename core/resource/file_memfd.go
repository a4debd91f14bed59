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

// memfd is a file in memory, memfd_create(2). It has no name by which others
// could open it, and so it is carried in the image.
var memfd = FileKind{
	Name:    "memfd",
	Support: Full,
	Note: "Name, contents with their holes, size, seals, mode; flags and offset of each open file; mappings of it. Of huge pages as well, taken " +
		"from the pool of the restarter. Refused if another process has it, too, as far as /proc shows.",
	Records: []image.Spec{
		image.Row[memfdOpenRecord](memfdOpenKind, "FD_MEMFD", image.InFiles, "an open memfd; its parent is the reference of the open file"),
		image.Row[memfdRecord](memfdKind, "MEMFD", image.Anywhere, "a memfd, where it is met first; its parent is the reference of the file; FILE_DATA follow"),
		image.Row[memfdPool](memfdPoolKind, "MEMFD_POOL", image.Anywhere, "the memfd is of the huge page pool; behind MEMFD"),
		fileTailRow,
	},
	Match: func(_ *View, f *procfs.FD) bool {
		return f.Nlink == 0 && strings.HasPrefix(f.Target, memfdPrefix) && strings.HasSuffix(f.Target, memfdSuffix)
	},
	Refuse: refuseMemfd,
	Dump:   dumpMemfd,
	Kind:   memfdOpenKind,
	Load:   loadMemfd,
}

const (
	memfdOpenKind image.Kind = 6418
	memfdKind     image.Kind = 6419
)

const (
	memfdPrefix = "/memfd:"
	memfdSuffix = " (deleted)"
)

type memfdOpenRecord struct {
	File  uint32 `doc:"reference of the file"`
	Flags uint32 `fmt:"oct" doc:"open flags"`
	Pos   uint64 `doc:"offset"`
}

type memfdRecord struct {
	Size  uint64 `doc:"bytes"`
	Seals uint32 `fmt:"flags" flags:"1=SEAL 2=SHRINK 4=GROW 8=WRITE 10=FUTURE_WRITE 20=EXEC" doc:"F_GET_SEALS of fcntl(2)"`
	Mode  uint32 `fmt:"oct" doc:"permission bits"`
	Name  string
}

func refuseMemfd(v *View, f *procfs.FD) *fault.Error {
	refuse := func(err error, format string, args ...any) *fault.Error {
		return &fault.Error{Code: fault.Memfd, Detail: f.Target + fmt.Sprintf(format, args...), Err: err}
	}
	if f.Flags&unix.O_PATH != 0 {
		return refuse(nil, ", opened with O_PATH")
	}
	c, err := openContents(v, readerOf(v, f))
	if err != nil {
		return refuse(err, "")
	}
	if err := errors.Join(refuseMemfdInode(v, c, f.Target), c.close()); err != nil {
		return refuse(err, "")
	}
	pid, err := v.usesInode(f)
	if err != nil || pid != 0 {
		return refuse(err, ", pid %d", pid)
	}
	return nil
}

// memfdInode is the file itself, be it open or mapped.
var memfdInode = InodeKind{
	Match:  func(m *procfs.Mapping) bool { return m.Special() == procfs.SpecialMemfd },
	Code:   fault.MemoryMemfd,
	Shared: mappedElsewhere,
	Refuse: refuseMemfdInode,
	Dump:   dumpMemfdInode,
	Kind:   memfdKind,
	Load:   makeMemfd,
}

// refuseMemfdInode tries what the dump will do.
func refuseMemfdInode(_ *View, c *contents, _ string) error {
	_, err := unix.FcntlInt(uintptr(c.fd), unix.F_GET_SEALS, 0)
	return err
}

func dumpMemfd(s *Saver, f *procfs.FD, ref object.Ref) error {
	return dumpCarried(s, f, func(inode object.Ref) error {
		return s.W.Put(uint32(ref), &memfdOpenRecord{File: uint32(inode), Flags: f.Flags &^ unix.O_CLOEXEC, Pos: uint64(f.Pos)})
	}, dumpMemfdInode)
}

func dumpMemfdInode(s *Saver, c *contents, ref object.Ref, name string) error {
	st, err := c.stat()
	if err != nil {
		return err
	}
	c.size = st.Size
	seals, err := c.seals()
	if err != nil {
		return fmt.Errorf("read seals: %w", err)
	}
	name = strings.TrimSuffix(strings.TrimPrefix(name, memfdPrefix), memfdSuffix)
	if err := s.W.Put(uint32(ref), &memfdRecord{Size: uint64(st.Size), Seals: uint32(seals), Mode: st.Mode & 0o7777, Name: name}); err != nil {
		return err
	}
	page, err := c.poolPage()
	if err != nil {
		return err
	}
	if page != 0 {
		if err := s.W.Put(0, &memfdPool{PageSize: page}); err != nil {
			return err
		}
		c.alone = false // hugetlbfs does not tell holes
	}
	if err := c.dump(s.W, uint32(ref)); err != nil {
		return err
	}
	return c.dumpTail(s.W, uint32(ref))
}

// poolPage is the size of its pages if it is of the huge page pool, else 0.
func (c *contents) poolPage() (uint64, error) {
	if c.view != nil {
		return 0, nil // which cannot be had of one
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(c.fd, &fs); err != nil {
		return 0, fmt.Errorf("ask for its file system: %w", err)
	}
	if fs.Type != unix.HUGETLBFS_MAGIC {
		return 0, nil
	}
	return uint64(fs.Bsize), nil
}

func loadMemfd(b *Builder, ref object.Ref) (*stagedOpen, error) {
	rec, head, err := image.Expect[memfdOpenRecord](b.R)
	if err != nil {
		return nil, err
	}
	what := fmt.Sprintf("open file %d", ref)
	access := rec.Flags & unix.O_ACCMODE
	if head.Parent != uint32(ref) || access == unix.O_ACCMODE || rec.Pos > 1<<63-1 {
		return nil, badImage(fault.ImageValue, what, "owner %d, flags %#o, offset %#x", head.Parent, rec.Flags, rec.Pos)
	}
	carried, err := b.loadCarried(object.Ref(rec.File))
	if err != nil {
		return nil, err
	}
	file, ok := carried.(*stagedInode)
	if !ok {
		return nil, badImage(fault.ImageValue, what, "file %d is no memfd", rec.File)
	}
	file.shutNow()
	open := file.made
	if access != unix.O_RDWR || file.taken {
		open = b.reopen(file.made, access)
	} else {
		file.taken = true
	}
	b.setFlags(open, rec.Flags)
	b.Expect(b.Stage().Lseek(open.fd, int64(rec.Pos), unix.SEEK_SET), fault.FileState, open.path)
	return open, nil
}

func makeMemfd(b *Builder, ref object.Ref) (carriedInode, error) {
	rec, head, err := image.Expect[memfdRecord](b.R)
	if err != nil {
		return nil, err
	}
	if head.Parent != uint32(ref) || rec.Size > 1<<63-1 {
		return nil, badImage(fault.ImageValue, fmt.Sprintf("memfd %d", ref), "%d bytes", rec.Size)
	}
	flags := unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	if rec.Seals&unix.F_SEAL_EXEC != 0 {
		flags |= unix.MFD_NOEXEC_SEAL // Linux 6.3, as the seal
	}
	page, err := loadMemfdPool(b, rec)
	if err != nil {
		return nil, err
	}
	if page != 0 {
		flags |= unix.MFD_HUGETLB | poolFlags(page)
	}
	if err := b.checkFileSize(memfdPrefix+rec.Name, rec.Size); err != nil {
		return nil, err
	}
	p := b.Stage()
	made := b.nameless(p.MemfdCreate(rec.Name, flags), memfdPrefix+rec.Name)
	b.Expect(p.Ftruncate(made.fd, int64(rec.Size)), fault.FileState, made.path)
	if page != 0 {
		err = b.fillPool(made, rec.Size, page)
	} else {
		err = b.loadContents(made.fd, rec.Size, made.path)
	}
	if err == nil {
		err = b.loadTail(made.fd, rec.Size, made.path)
	}
	if err != nil {
		return nil, err
	}
	b.Expect(b.Stage().Call(unix.SYS_FCHMOD, made.fd, tracer.Imm(rec.Mode&0o7777)), fault.FileState, made.path)
	file := &stagedInode{made: made}
	if seals := rec.Seals &^ unix.F_SEAL_EXEC; seals != 0 {
		file.shut = func() {
			b.Expect(b.Stage().Fcntl(made.fd, unix.F_ADD_SEALS, tracer.Imm(seals)), fault.FileState, made.path)
		}
	}
	if err := b.Objects.Add(object.Inode, ref, file); err != nil {
		return nil, badImage(fault.ImageValue, made.path, "%v", err)
	}
	return file, nil
}

// loadMemfdPool reads the size of its pages, 0 if it is not of the huge page pool.
func loadMemfdPool(b *Builder, of *memfdRecord) (uint64, error) {
	kind, err := b.R.Peek()
	if err != nil || kind != memfdPoolKind {
		return 0, err
	}
	rec, _, err := image.Expect[memfdPool](b.R)
	if err != nil {
		return 0, err
	}
	if !poolPage(rec.PageSize) || of.Size%rec.PageSize != 0 {
		return 0, badImage(fault.ImageValue, memfdPrefix+of.Name, "%d bytes in pages of %d", of.Size, rec.PageSize)
	}
	return rec.PageSize, nil
}
