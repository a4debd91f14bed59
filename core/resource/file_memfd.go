package resource

import (
	"bytes"
	"errors"
	"fmt"
	"os"
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
	Note: "Name, contents with their holes, size, seals, mode; flags and offset of each open file. Refused if it is mapped, of huge " +
		"pages, or another process has it, too, as far as /proc shows.",
	Records: []image.Spec{
		image.Row[memfdOpenRecord](memfdOpenKind, "FD_MEMFD", image.InFiles, "an open memfd; its parent is the reference of the open file"),
		image.Row[memfdRecord](memfdKind, "MEMFD", image.InFiles, "a memfd, where it is met first; its parent is the reference of the file; MEMFD_DATA follow"),
		image.Row[memfdDataRecord](memfdDataKind, "MEMFD_DATA", image.InFiles, "a piece of a memfd; what no piece covers is zero"),
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
	memfdDataKind image.Kind = 6420
)

const (
	memfdPrefix = "/memfd:"
	memfdSuffix = " (deleted)"
	memfdPiece  = 28 << 10 // whole pages that fit one record
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

type memfdDataRecord struct {
	Offset uint64
	Data   []byte `fmt:"size"`
}

// openMemfd opens the file anew, for reading: the offset of the process must
// not move.
func openMemfd(v *View, f *procfs.FD) (*os.File, error) {
	return os.Open(fmt.Sprintf("/proc/%d/fd/%d", v.PID, f.Number))
}

func refuseMemfd(v *View, f *procfs.FD) *fault.Error {
	refuse := func(err error, format string, args ...any) *fault.Error {
		return &fault.Error{Code: fault.Memfd, Detail: f.Target + fmt.Sprintf(format, args...), Err: err}
	}
	switch {
	case f.Flags&unix.O_ASYNC != 0:
		return &fault.Error{Code: fault.FileOwner, Detail: f.Target}
	case f.Flags&unix.O_PATH != 0:
		return refuse(nil, ", opened with O_PATH")
	case len(f.Values("lock")) > 0:
		return &fault.Error{Code: fault.FileLocked, Detail: f.Target}
	}
	if err := readableMemfd(v, f); err != nil {
		return refuse(err, "")
	}
	pid, err := v.usesInode(f)
	if err != nil || pid != 0 {
		return refuse(err, ", pid %d", pid)
	}
	return nil
}

// readableMemfd tries what the dump will do.
func readableMemfd(v *View, f *procfs.FD) error {
	file, err := openMemfd(v, f)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }() // only read from
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(file.Fd()), &fs); err != nil {
		return err
	}
	if fs.Type == unix.HUGETLBFS_MAGIC {
		return errors.New("it is of huge pages")
	}
	_, err = unix.FcntlInt(file.Fd(), unix.F_GET_SEALS, 0)
	return err
}

// usesInode returns a process that has the file open or mapped, 0 if none is
// known.
func (v *View) usesInode(f *procfs.FD) (procfs.PID, error) {
	holders, err := v.elsewhere(f.Target)
	if err != nil {
		return 0, err
	}
	for _, h := range holders {
		var st unix.Stat_t
		if err := unix.Stat(fmt.Sprintf("/proc/%d/fd/%d", h.pid, h.fd), &st); err == nil && st.Dev == f.Dev && st.Ino == f.Ino {
			return h.pid, nil
		}
	}
	pids, err := procfs.List()
	if err != nil {
		return 0, err
	}
	line := fmt.Appendf(nil, " %02x:%02x %d ", unix.Major(f.Dev), unix.Minor(f.Dev), f.Ino)
	for _, pid := range pids {
		if pid == v.PID {
			continue // the memory part looks at its own mappings
		}
		maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
		if err != nil {
			continue // not ours to look into, or gone
		}
		if bytes.Contains(maps, line) {
			return pid, nil
		}
	}
	return 0, nil
}

func dumpMemfd(s *Saver, f *procfs.FD, ref object.Ref) error {
	inode, first := s.Objects.Add(object.Inode, inodeID{f.Dev, f.Ino})
	rec := memfdOpenRecord{File: uint32(inode), Flags: f.Flags &^ unix.O_CLOEXEC, Pos: uint64(f.Pos)}
	if err := s.W.Put(uint32(ref), &rec); err != nil || !first {
		return err
	}
	file, err := openMemfd(s.View, f)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }() // only read from
	seals, err := unix.FcntlInt(file.Fd(), unix.F_GET_SEALS, 0)
	if err != nil {
		return fmt.Errorf("read seals: %w", err)
	}
	name := strings.TrimSuffix(strings.TrimPrefix(f.Target, memfdPrefix), memfdSuffix)
	if err := s.W.Put(uint32(inode), &memfdRecord{Size: uint64(f.Size), Seals: uint32(seals), Mode: f.Mode & 0o7777, Name: name}); err != nil {
		return err
	}
	return dumpData(s.W, file, uint32(inode))
}

// dumpData writes what is not a hole (lseek(2), SEEK_DATA).
func dumpData(w *image.Writer, file *os.File, owner uint32) error {
	const seekData, seekHole = 3, 4
	buf := make([]byte, memfdPiece)
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
			n, err := file.ReadAt(buf[:min(memfdPiece, at-from)], from)
			if n == 0 {
				return fmt.Errorf("read at %d: %w", from, err)
			}
			if err := w.Put(owner, &memfdDataRecord{Offset: uint64(from), Data: buf[:n]}); err != nil {
				return err
			}
			from += int64(n)
		}
	}
}

// stagedMemfd is a memfd in the caller.
type stagedMemfd struct {
	made  *stagedOpen
	taken bool // by an open file of the image; else the commit closes it
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
	file, err := sharedInode(b, object.Ref(rec.File), b.makeMemfd)
	if err != nil {
		return nil, err
	}
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

func (b *Builder) makeMemfd(ref object.Ref) (*stagedMemfd, error) {
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
	p := b.Stage()
	made := b.nameless(p.MemfdCreate(rec.Name, flags), memfdPrefix+rec.Name)
	expect := func(row *tracer.Row) { b.Expect(row, fault.FileState, made.path) }
	expect(p.Ftruncate(made.fd, int64(rec.Size)))
	for {
		kind, err := b.R.Peek()
		if err != nil {
			return nil, err
		}
		if kind != memfdDataKind {
			break
		}
		data, _, err := image.Expect[memfdDataRecord](b.R)
		if err != nil {
			return nil, err
		}
		size := uint64(len(data.Data))
		if size == 0 || data.Offset > rec.Size || size > rec.Size-data.Offset {
			return nil, badImage(fault.ImageValue, made.path, "%d bytes at %d", size, data.Offset)
		}
		p := b.Stage()
		expect(p.Pwrite(made.fd, p.Bytes(data.Data), size, int64(data.Offset)).Full())
		if err := b.filled(int(size)); err != nil {
			return nil, err
		}
	}
	p = b.Stage()
	expect(p.Call(unix.SYS_FCHMOD, made.fd, tracer.Imm(rec.Mode&0o7777)))
	if seals := rec.Seals &^ unix.F_SEAL_EXEC; seals != 0 {
		expect(p.Fcntl(made.fd, unix.F_ADD_SEALS, tracer.Imm(seals)))
	}
	file := &stagedMemfd{made: made}
	if err := b.Objects.Add(object.Inode, ref, file); err != nil {
		return nil, badImage(fault.ImageValue, made.path, "%v", err)
	}
	return file, nil
}
