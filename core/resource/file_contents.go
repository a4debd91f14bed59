package resource

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// fileData is a piece of a regular file whose contents are in the image.
type fileData struct {
	Offset uint64
	Data   []byte `fmt:"size"`
}

const fileDataKind image.Kind = 6462

// pieceOfFile is whole pages that fit one record.
const pieceOfFile = 28 << 10

// contents is a file of the process as we read it.
type contents struct {
	fd    int
	alone bool // opened by us: moving its offset disturbs nobody
	size  int64
	view  unopened // what it is read by if it cannot be opened; fd is -1 then
}

// openContents opens a file anew, for the offset of the process must not move.
// Where we may not, as after a change of user, the process's own open file
// still does, by positioned reads. A lease would be broken by opening.
func openContents(v *View, f *procfs.FD) (*contents, error) {
	c := &contents{size: f.Size}
	if !leased(v, f) {
		link := procPath(v.PID, "fd", strconv.Itoa(int(f.Number)))
		var err error
		if c.fd, err = openQuietly(link); err == nil {
			c.alone = true
			return c, nil
		}
	}
	if !readable(f) {
		return nil, fmt.Errorf("open contents: %w", unix.EACCES)
	}
	var err error
	c.fd, err = v.duplicate(f.Number)
	return c, err
}

// readable tells whether the process can read by the descriptor.
func readable(f *procfs.FD) bool {
	return f.Flags&unix.O_ACCMODE != unix.O_WRONLY && f.Flags&unix.O_PATH == 0
}

// readerOf returns a descriptor by which the process can read the same file;
// f itself if there is none.
func readerOf(v *View, f *procfs.FD) *procfs.FD {
	for i := range v.FDs {
		if o := &v.FDs[i]; o.Dev == f.Dev && o.Ino == f.Ino && readable(o) {
			return o
		}
	}
	return f
}

func procPath(pid procfs.PID, name ...string) string {
	return filepath.Join(append([]string{"/proc", strconv.Itoa(int(pid))}, name...)...)
}

// openQuietly opens for reading, without leaving a time of access where that
// is permitted.
func openQuietly(name string) (int, error) {
	const flags = unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOCTTY
	fd, err := unix.Open(name, flags|unix.O_NOATIME, 0)
	if errors.Is(err, unix.EPERM) {
		fd, err = unix.Open(name, flags, 0)
	}
	return fd, err
}

func (c *contents) close() error {
	if c.view != nil {
		return c.view.close()
	}
	_ = unix.Close(c.fd) // only read from
	return nil
}

func (c *contents) stat() (st unix.Stat_t, err error) {
	if c.view != nil {
		return c.view.stat(), nil
	}
	if err := unix.Fstat(c.fd, &st); err != nil {
		return st, fmt.Errorf("stat: %w", err)
	}
	return st, nil
}

func (c *contents) pread(buf []byte, offset int64) (int, error) {
	if c.view == nil {
		return unix.Pread(c.fd, buf, offset)
	}
	return len(buf), c.view.ReadAt(buf, offset)
}

// dump writes what is not a hole, as records of that owner.
func (c *contents) dump(w *image.Writer, owner uint32) error {
	for at := int64(0); at < c.size; {
		from, to, err := c.extent(at)
		if err != nil {
			return err
		}
		if err := c.dumpRange(w, owner, from, to); err != nil {
			return err
		}
		at = to
	}
	return nil
}

// dumpRange writes a part of it.
func (c *contents) dumpRange(w *image.Writer, owner uint32, from, to int64) error {
	buf := make([]byte, pieceOfFile)
	for from < to {
		n, err := c.pread(buf[:min(pieceOfFile, to-from)], from)
		if err == nil && n == 0 {
			err = errors.New("it is shorter now")
		}
		if err != nil {
			return fmt.Errorf("read %d bytes at %d: %w", to-from, from, err)
		}
		if c.alone || !bytes.Equal(buf[:n], zeros[:n]) {
			if err := w.Put(owner, &fileData{Offset: uint64(from), Data: buf[:n]}); err != nil {
				return err
			}
		}
		from += int64(n)
	}
	return nil
}

var zeros [pieceOfFile]byte

// extent returns the next range of data from at on. Without an offset of our
// own holes cannot be told (lseek(2), SEEK_DATA), but their pieces are zero.
func (c *contents) extent(at int64) (from, to int64, err error) {
	switch {
	case c.view != nil:
		from, to = c.view.extent(at)
		return from, to, nil
	case !c.alone:
		return at, c.size, nil
	}
	const seekData, seekHole = 3, 4
	from, err = unix.Seek(c.fd, at, seekData)
	if errors.Is(err, unix.ENXIO) {
		return c.size, c.size, nil // no data from there on
	}
	if err == nil {
		to, err = unix.Seek(c.fd, from, seekHole)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("find data from %d on: %w", at, err)
	}
	return from, min(to, c.size), nil
}

// eachPieceOf reads the pieces of a file, each checked to lie within it.
func (b *Builder) eachPieceOf(path string, size uint64, do func(*fileData) error) error {
	for {
		kind, err := b.R.Peek()
		if err != nil || kind != fileDataKind {
			return err
		}
		data, _, err := image.Expect[fileData](b.R)
		if err != nil {
			return err
		}
		n := uint64(len(data.Data))
		if n == 0 || data.Offset > size || n > size-data.Offset {
			return badImage(fault.ImageValue, path, "%d bytes at %d of %d", n, data.Offset, size)
		}
		if err := do(data); err != nil {
			return err
		}
	}
}

// checkFileSize refuses a file that is larger than the caller may make one.
// Writing it would not only fail, but send SIGXFSZ (setrlimit(2)).
func (b *Builder) checkFileSize(path string, size uint64) error {
	var limit unix.Rlimit
	if err := unix.Prlimit(int(b.Caller.PID), unix.RLIMIT_FSIZE, nil, &limit); err != nil {
		return fmt.Errorf("read file size limit of %s: %w", b.Caller.Name(), err)
	}
	if size > limit.Cur {
		return &fault.Error{Code: fault.FileContents, Object: path, Detail: fmt.Sprintf("%d bytes, RLIMIT_FSIZE is %d", size, limit.Cur), Err: unix.EFBIG}
	}
	return nil
}

// stagePiece stages the writing of a piece.
func (b *Builder) stagePiece(fd tracer.FD, data *fileData, path string) error {
	p, n := b.Stage(), len(data.Data)
	b.Expect(p.Pwrite(fd, p.Bytes(data.Data), uint64(n), int64(data.Offset)).Full(), fault.FileContents, path)
	return b.filled(n)
}

// loadContents reads the pieces of a file and stages their writing.
func (b *Builder) loadContents(fd tracer.FD, size uint64, path string) error {
	return b.eachPieceOf(path, size, func(data *fileData) error { return b.stagePiece(fd, data, path) })
}

// rightToRead asks whether the process may read what it has open for writing
// alone: the image must not tell it more than it could learn by itself.
type rightToRead struct {
	f   *procfs.FD
	row *tracer.Row
}

func (s *Saver) askRightToRead(p *tracer.Program) (asked []rightToRead) {
	const rOK = 4
	for i := range s.FDs {
		f := &s.FDs[i]
		if s.covered[f.Number] || !isDeleted(f) && !s.savesContents(f) || readable(readerOf(s.View, f)) {
			continue
		}
		row := p.Call(unix.SYS_FACCESSAT2, tracer.FD(f.Number), tracer.Ptr(p.String("")), tracer.Imm(rOK),
			tracer.Imm(unix.AT_EMPTY_PATH|unix.AT_EACCESS)).Tolerate()
		asked = append(asked, rightToRead{f, row})
	}
	return asked
}

// attributesOf names extended attributes that a copy of the file would lack.
func attributesOf(v *View, f *procfs.FD) (string, error) {
	link := procPath(v.PID, "fd", strconv.Itoa(int(f.Number)))
	buf := make([]byte, 1<<16) // XATTR_LIST_MAX
	n, err := unix.Listxattr(link, buf)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return "", nil
	}
	if err != nil {
		return "", &os.PathError{Op: "listxattr", Path: link, Err: err}
	}
	return lackedAttribute(buf[:n]), nil
}

// lackedAttribute names the first of a list that a copy would lack.
func lackedAttribute(list []byte) string {
	for name := range bytes.SplitSeq(list, []byte{0}) {
		// Labels of the security modules come by the rules of the host.
		if len(name) > 0 && !bytes.HasPrefix(name, []byte("security.")) {
			return string(name)
		}
	}
	return ""
}
