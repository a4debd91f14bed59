package resource

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/core/object"
	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// regularFile is a file with a name: it is opened again by that name, with
// the flags and the offset that it had. Its contents stay where they are.
var regularFile = FileKind{
	Name:    "regular file",
	Support: Full,
	Note: "By name, with flags and offset. The contents stay where they are; `restart --files` says what becomes of a file that has " +
		"changed, and `checkpoint --save-files` takes those that are open for writing into the image. Of /proc, /sys and cgroups what " +
		"is read next is what the kernel says then; only what speaks of the process itself or of none.",
	Records: []image.Spec{
		image.Row[fileState](fileStateKind, "FILE_STATE", image.InFiles, "what a regular file was like; follows its name, its parent is the reference of the open file"),
		image.Row[savedRecord](savedKind, "FILE_SAVED", image.InFiles, "the contents of a regular file are in the image, where it is met first; FILE_DATA follow"),
	},
	Match:  func(_ *View, f *procfs.FD) bool { return f.Type() == unix.S_IFREG && !memfdOrLike(f) },
	Refuse: refuseNamed,
	Dump:   dumpNamed,
	Kind:   image.KindFDData,
	Load:   loadNamed,
	Skip:   skipNamed,
}

// directory differs by its type alone.
var directory = FileKind{
	Name:    "directory",
	Support: Full,
	Note:    "By name, with the position of readdir.",
	Match:   func(_ *View, f *procfs.FD) bool { return f.Type() == unix.S_IFDIR },
	Refuse:  refuseNamed,
	Dump:    dumpNamed,
	Kind:    image.KindFDData,
	Load:    loadNamed,
	Skip:    skipNamed,
}

func memfdOrLike(f *procfs.FD) bool {
	return strings.HasPrefix(f.Target, "/memfd:") || f.Target == "/secretmem (deleted)" ||
		strings.HasPrefix(f.Target, "anon_inode:") || !strings.HasPrefix(f.Target, "/")
}

// settable are the flags that open(2) takes again; what concerns the creation
// of the file is gone from fdinfo since Linux strips it, but an image may say
// anything.
const settable = unix.O_ACCMODE | unix.O_APPEND | unix.O_NONBLOCK | unix.O_DSYNC | unix.O_SYNC | unix.O_DIRECT |
	unix.O_LARGEFILE | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_NOATIME | unix.O_PATH | unix.O_ASYNC | fileLargefile

// fileLargefile is what fdinfo shows for O_LARGEFILE, which x/sys has as 0 on
// a 64-bit machine (include/uapi/asm-generic/fcntl.h).
const fileLargefile = 0o100000

func refuseNamed(v *View, f *procfs.FD) *fault.Error {
	switch {
	case f.Nlink == 0 || strings.HasSuffix(f.Target, deletedSuffix) && !leadsTo(f):
		return &fault.Error{Code: fault.FileUnlinked, Detail: f.Target}
	}
	if refusal := refuseKernel(v, f); refusal != nil {
		return refusal
	}
	var st unix.Stat_t
	if err := unix.Lstat(v.reach(f.Target), &st); err != nil {
		return &fault.Error{Code: fault.FileUnreachable, Detail: f.Target, Err: err}
	}
	if st.Dev != f.Dev || st.Ino != f.Ino {
		return &fault.Error{Code: fault.FileUnreachable, Detail: f.Target}
	}
	if !v.savesContents(f) {
		return nil
	}
	if err := copyable(v, readerOf(v, f)); err != nil {
		return &fault.Error{Code: fault.FileUnreadable, Detail: f.Target, Err: err}
	}
	return nil
}

func dumpNamed(s *Saver, f *procfs.FD, ref object.Ref) error {
	data := image.FDData{
		Type:  image.FDFile,
		Mode:  fileMode(f.Flags),
		Flags: f.Flags &^ unix.O_CLOEXEC,
		Pos:   uint64(f.Pos),
	}
	if f.Type() == unix.S_IFDIR {
		data.Type = image.FDDir
	}
	if err := s.W.Put(uint32(ref), &data); err != nil {
		return err
	}
	if err := s.W.Put(0, &image.FName{Name: lasting(f.Target)}); err != nil {
		return err
	}
	if err := dumpState(s, f, ref); err != nil {
		return err
	}
	return dumpSaved(s, f, ref)
}

// fileMode is f_mode as the kernel of 2009 kept it: FMODE_READ 1, FMODE_WRITE
// 2, FMODE_LSEEK 4, FMODE_PREAD and PWRITE 8 (include/linux/fs.h of 2.6.28).
func fileMode(flags uint32) uint16 {
	const read, write, seek, positioned = 1, 2, 4, 8
	mode := uint16(seek | positioned)
	switch flags & unix.O_ACCMODE {
	case unix.O_RDONLY:
		mode |= read
	case unix.O_WRONLY:
		mode |= write
	case unix.O_RDWR:
		mode |= read | write
	}
	return mode
}

func readNamed(b *Builder, ref object.Ref) (*image.FDData, *image.FName, error) {
	data, rec, err := image.Expect[image.FDData](b.R)
	if err != nil {
		return nil, nil, err
	}
	name, _, err := image.Expect[image.FName](b.R)
	if err != nil {
		return nil, nil, err
	}
	what := fmt.Sprintf("open file %d", ref)
	switch {
	case rec.Parent != uint32(ref):
		return nil, nil, badImage(fault.ImageValue, what, "owner %d", rec.Parent)
	case data.Type != image.FDFile && data.Type != image.FDDir:
		return nil, nil, badImage(fault.ImageValue, what, "type %d", data.Type)
	case data.Pos > 1<<63-1:
		return nil, nil, badImage(fault.ImageValue, what, "offset %#x", data.Pos)
	}
	return data, name, nil
}

func skipNamed(b *Builder, ref object.Ref) (*stagedOpen, error) {
	data, name, err := readNamed(b, ref)
	if err != nil {
		return nil, err
	}
	if _, err := b.loadState(ref); err != nil {
		return nil, err
	}
	if _, err := b.loadSaved(ref, name.Name, false); err != nil {
		return nil, err
	}
	return &stagedOpen{fd: nothing, path: name.Name, flags: data.Flags, pos: int64(data.Pos)}, nil
}

func loadNamed(b *Builder, ref object.Ref) (*stagedOpen, error) {
	data, name, err := readNamed(b, ref)
	if err != nil {
		return nil, err
	}
	flags := data.Flags & settable
	f, err := b.openFile(name.Name, int(flags), fault.FileOpen)
	if err != nil {
		return nil, err
	}
	if flags&unix.O_PATH == 0 {
		p := b.Stage()
		b.Expect(p.Fcntl(f.fd, unix.F_SETFL, tracer.Imm(flags)), fault.FileState, name.Name)
		if data.Pos != 0 {
			b.Expect(p.Lseek(f.fd, int64(data.Pos), unix.SEEK_SET), fault.FileState, name.Name)
		}
		if ofKernel(name.Name) {
			p.Lseek(f.fd, 0, unix.SEEK_SET).Tolerate() // what was read ahead is about the caller
		}
	}
	open := &stagedOpen{late: ofKernel(name.Name), fd: f.fd, path: name.Name, flags: data.Flags, pos: int64(data.Pos)}
	state, err := b.loadState(ref)
	if err != nil {
		return nil, err
	}
	if err := b.loadBack(ref, open, state); err != nil {
		return nil, err
	}
	want := uint32(unix.S_IFREG)
	if data.Type == image.FDDir {
		want = unix.S_IFDIR
	}
	open.verify = func(now *procfs.FD) error {
		switch {
		case now.Type() != want:
			return &fault.Error{Code: fault.FileTypeChanged, Object: name.Name}
		case state != nil:
			return state.check(b, open, now)
		}
		return nil
	}
	return open, nil
}
