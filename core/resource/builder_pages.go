package resource

import (
	"io"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// fillLimit is how many bytes of contents are left to one program: enough to
// make its cost vanish, and few enough that hashing keeps pace beside it.
const fillLimit = 32 << 20

// pageSink fills staged memory with the contents of one chunk.
type pageSink struct {
	b       *Builder
	runs    []procfs.Range // where they are staged
	from    int64          // offset in the image file, if it is one
	nursery *nursery       // nil if pages are filled where they are
}

var _ image.Mover = (*pageSink)(nil)

// Move has the task read straight into its memory. From a file that may
// happen later, together with what else is staged; a stream cannot wait.
func (m *pageSink) Move(n int64) error {
	b := m.b
	offset := m.from
	for _, run := range m.runs {
		if m.nursery != nil {
			for _, whole := range extents([]procfs.Range{run}) {
				m.read(procfs.Range{Start: run.Start, End: whole.Start}, &offset)
				m.read(procfs.Range{Start: m.nursery.at.Start, End: m.nursery.at.Start + procfs.Addr(whole.Len())}, &offset)
				m.nursery.move(b, whole)
				run.Start = whole.End
			}
		}
		m.read(run, &offset)
	}
	b.filling += uint64(n)
	if b.seekable && b.filling < fillLimit {
		return nil
	}
	return b.Flush()
}

// read adds the reading of the next bytes of the image.
func (m *pageSink) read(to procfs.Range, offset *int64) {
	if to.Empty() {
		return
	}
	p := m.b.Stage()
	var row *tracer.Row
	if m.b.seekable {
		row = p.Pread(m.b.taskIn, to.Start, to.Len(), *offset)
	} else {
		row = p.Read(m.b.taskIn, to.Start, to.Len())
	}
	m.b.Expect(row.Full(), fault.ImageRead, "memory contents")
	*offset += int64(to.Len())
}

// Digest hashes the same bytes: of a file from the file, beside the task's
// own reading; of a stream from where the task has read them to.
func (m *pageSink) Digest(n int64, h io.Writer) error {
	if m.b.seekable {
		return hashFile(h, m.b.in, m.from, n)
	}
	return eachPiece(m.runs, func(piece procfs.Range, buf []byte) error {
		if err := m.b.memory.Read(piece.Start, buf); err != nil {
			return err
		}
		_, err := h.Write(buf)
		return err
	})
}
