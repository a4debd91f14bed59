package resource

import (
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

// savedRecord says that the contents of a regular file that the process was
// writing are in the image (View.SaveFiles), for a restart that puts them back
// (RollbackFiles).
type savedRecord struct {
	Size uint64 `doc:"bytes"`
}

const savedKind image.Kind = 6468

// savesContents tells whether the contents of a file with a name go into the
// image.
func (v *View) savesContents(f *procfs.FD) bool {
	return v.SaveFiles && f.Type() == unix.S_IFREG && f.Flags&unix.O_PATH == 0 && f.Flags&unix.O_ACCMODE != unix.O_RDONLY &&
		!ofKernel(f.Target)
}

// dumpSaved writes the contents once for all open files of an inode.
func dumpSaved(s *Saver, f *procfs.FD, ref object.Ref) error {
	if !s.savesContents(f) {
		return nil
	}
	if _, first := s.Objects.Add(object.Inode, inodeID{f.Dev, f.Ino}); !first {
		return nil
	}
	c, err := openContents(s.View, readerOf(s.View, f))
	if err != nil {
		return err
	}
	st, err := c.stat()
	if err == nil {
		c.size = st.Size
		err = s.W.Put(uint32(ref), &savedRecord{Size: uint64(st.Size)})
	}
	if err == nil {
		err = c.dump(s.W, uint32(ref))
	}
	return errors.Join(err, c.close())
}

// loadBack reads the contents that an open file brings, and refuses a rollback
// of a file that the process was writing if nothing is known of it.
func (b *Builder) loadBack(ref object.Ref, o *stagedOpen, state *fileState) error {
	use := b.Policy.Files == RollbackFiles
	back, err := b.loadSaved(ref, o.path, use)
	if err != nil || !use || state == nil || o.flags&unix.O_ACCMODE == unix.O_RDONLY {
		return err
	}
	id := inodeID{state.Dev, state.Inode}
	if back != nil {
		if b.rolledBack == nil {
			b.rolledBack = make(map[inodeID]bool)
		}
		b.rolledBack[id] = true
	} else if !b.rolledBack[id] {
		return &fault.Error{Code: fault.FileRollback, Object: o.path, Detail: "its contents are not in the image", Err: unix.ENODATA}
	}
	return nil
}

// rollback is a file that is to get back what the image has of it.
type rollback struct {
	path   string
	size   uint64
	from   tracer.FD // a nameless file beside it that holds the contents
	to     tracer.FD
	pieces []extent // of data; all else is a hole
	copied []copied
}

type extent struct{ from, to uint64 }

// copied is a row of sendfile(2) and what it has to move.
type copied struct {
	row *tracer.Row
	n   uint64
}

// loadSaved reads the contents, and stages their way back if that is wanted.
// Until the commit they lie in a file of their own.
func (b *Builder) loadSaved(ref object.Ref, path string, use bool) (*rollback, error) {
	kind, err := b.R.Peek()
	if err != nil || kind != savedKind {
		return nil, err
	}
	rec, head, err := image.Expect[savedRecord](b.R)
	if err != nil {
		return nil, err
	}
	if head.Parent != uint32(ref) || rec.Size > 1<<63-1 {
		return nil, badImage(fault.ImageValue, fmt.Sprintf("open file %d", ref), "owner %d, %d bytes", head.Parent, rec.Size)
	}
	if !use {
		return nil, b.eachPieceOf(path, rec.Size, func(*fileData) error { return nil })
	}
	if err := b.checkFileSize(path, rec.Size); err != nil {
		return nil, err
	}
	r := &rollback{path: path, size: rec.Size}
	if r.from, err = b.openNameless(path, unix.O_TMPFILE|unix.O_RDWR|unix.O_EXCL); err != nil {
		return nil, err
	}
	target, err := b.openFile(path, unix.O_WRONLY, fault.FileOpen)
	if err != nil {
		return nil, err
	}
	r.to = target.fd
	if err := b.eachPieceOf(path, rec.Size, func(data *fileData) error {
		return errors.Join(r.add(data), b.stagePiece(r.from, data, path))
	}); err != nil {
		return nil, err
	}
	b.lastly(fileChange{prepare: r.reserve, do: r.do})
	return r, nil
}

// add joins a piece to those before it.
func (r *rollback) add(data *fileData) error {
	x := extent{data.Offset, data.Offset + uint64(len(data.Data))}
	n := len(r.pieces)
	switch {
	case n > 0 && x.from < r.pieces[n-1].to:
		return badImage(fault.ImageValue, r.path, "piece at %d out of order", x.from)
	case n > 0 && x.from == r.pieces[n-1].to:
		r.pieces[n-1].to = x.to
	default:
		r.pieces = append(r.pieces, x)
	}
	return nil
}

// reserve takes the space that the contents will need: a full disk is met
// before any of them is written. Not every file system can.
func (r *rollback) reserve(b *Builder) error {
	p := b.Remote.Program()
	var rows []*tracer.Row
	for _, x := range r.pieces {
		rows = append(rows, p.Call(unix.SYS_FALLOCATE, r.to, tracer.Imm(keepSize), tracer.Imm(x.from), tracer.Imm(x.to-x.from)).Tolerate())
	}
	err := p.Run()
	for _, row := range rows {
		if err == nil && !errors.Is(row.Err(), unix.EOPNOTSUPP) {
			err = row.Err()
		}
	}
	if err != nil {
		return &fault.Error{Code: fault.FileContents, Object: r.path, Err: err}
	}
	return nil
}

// Modes of fallocate(2).
const (
	keepSize  = 1
	punchHole = 2
)

// do writes the contents into the file itself, which keeps its inode, and with
// it all its names, its owner and whoever else has it open.
func (r *rollback) do(b *Builder) error {
	p := b.Remote.Program()
	r.copied = nil
	var holes []*tracer.Row
	var zeros []extent
	at := uint64(0)
	for _, x := range append(r.pieces, extent{r.size, r.size}) {
		if at < x.from {
			holes = append(holes, p.Call(unix.SYS_FALLOCATE, r.to, tracer.Imm(punchHole|keepSize), tracer.Imm(at), tracer.Imm(x.from-at)).Tolerate())
			zeros = append(zeros, extent{at, x.from})
		}
		r.copy(p, x)
		at = x.to
	}
	err := p.Run()
	p = b.Remote.Program()
	for i, row := range holes {
		if err == nil && row.Err() != nil {
			r.copy(p, zeros[i]) // of the hole that it is in the other file
		}
	}
	p.Ftruncate(r.to, int64(r.size))
	if err == nil {
		err = p.Run()
	}
	for _, c := range r.copied {
		if err == nil && c.row.Result() != c.n {
			err = fmt.Errorf("sendfile: %d bytes of %d: %w", c.row.Result(), c.n, unix.EIO)
		}
	}
	if err != nil {
		return &fault.Error{Code: fault.FileRollback, Object: r.path, Err: err}
	}
	return nil
}

// copy adds the copying of a range by sendfile(2), which moves at most 2 GiB at
// once, and all that it is asked for between regular files.
func (r *rollback) copy(p *tracer.Program, x extent) {
	const most = 1 << 30
	for x.from < x.to {
		n := min(x.to-x.from, most)
		offset := make([]byte, 8)
		binary.LittleEndian.PutUint64(offset, x.from)
		p.Lseek(r.to, int64(x.from), unix.SEEK_SET)
		row := p.Call(unix.SYS_SENDFILE, r.to, r.from, tracer.Ptr(p.Bytes(offset)), tracer.Imm(n))
		r.copied = append(r.copied, copied{row, n})
		x.from += n
	}
}
