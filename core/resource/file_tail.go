package resource

import (
	"bytes"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// A file in memory has whole pages. What lies behind its end in the last one no
// read(2) shows, but every mapping does, and may write to it.

const fileTailKind image.Kind = 6212

// fileTail is what is there, less zeros at its end.
type fileTail struct {
	Data []byte `fmt:"size"`
}

var fileTailRow = image.Row[fileTail](fileTailKind, "FILE_TAIL", image.Anywhere, "what lies behind the end of a file in its last page, where mappings show it; behind its FILE_DATA")

// dumpTail writes the tail, if there is more than zeros in it.
func (c *contents) dumpTail(w *image.Writer, owner uint32) error {
	rest := c.size % int64(procfs.PageSize)
	if c.view != nil || rest == 0 {
		return nil // what a view shows are whole pages
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(c.fd, &fs); err != nil {
		return fmt.Errorf("ask for its file system: %w", err)
	}
	if fs.Type != unix.TMPFS_MAGIC {
		return nil // on a disk there is no such thing
	}
	page := c.size - rest
	if from, _, err := c.extent(page); err != nil || from >= c.size {
		return err // a hole, which looking would fill
	}
	mapped, err := unix.Mmap(c.fd, page, int(procfs.PageSize), unix.PROT_READ, unix.MAP_PRIVATE)
	if err != nil {
		return fmt.Errorf("map the last page: %w", err)
	}
	tail := fileTail{Data: bytes.Clone(bytes.TrimRight(mapped[rest:], "\x00"))}
	if err := unix.Munmap(mapped); err != nil {
		return fmt.Errorf("unmap the last page: %w", err)
	}
	if len(tail.Data) == 0 {
		return nil
	}
	return w.Put(owner, &tail)
}

// loadTail puts it back by a mapping of our own.
func (b *Builder) loadTail(fd tracer.FD, size uint64, path string) error {
	kind, err := b.R.Peek()
	if err != nil || kind != fileTailKind {
		return err
	}
	tail, _, err := image.Expect[fileTail](b.R)
	if err != nil {
		return err
	}
	rest := size % procfs.PageSize
	if n := uint64(len(tail.Data)); n == 0 || rest == 0 || n > procfs.PageSize-rest {
		return badImage(fault.ImageValue, path, "%d bytes behind the end at %d", n, size)
	}
	at, ok := b.Layout.Find(procfs.PageSize, 0, procfs.PageSize)
	if !ok {
		return &fault.Error{Code: fault.StageRoom, Object: path}
	}
	b.Layout.Occupy(at)
	row := b.Stage().Mmap(at, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|mapFixedNoReplace, fd, size-rest)
	b.Expect(row, fault.FileContents, path)
	if err := b.Flush(); err != nil {
		return err
	}
	if err := b.Tracee.WriteMem(at.Start+procfs.Addr(rest), tail.Data); err != nil {
		return fmt.Errorf("write behind the end of %s: %w", path, err)
	}
	b.Stage().Munmap(at)
	b.Layout.Release(at)
	return nil
}
