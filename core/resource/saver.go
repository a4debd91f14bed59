package resource

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/core/object"
	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// Saver is one task on its way into an image.
type Saver struct {
	*View
	W       *image.Writer
	Tracee  *tracer.Tracee
	Remote  *tracer.Remote
	Objects *object.Saved
	State   tracer.State // as it was stopped, before anything was run in it
	// Slept is how long the task has been off the processor before it was
	// frozen; false if the kernel does not tell.
	Slept   time.Duration
	SleptOK bool

	memory  *tracer.Memory
	rseq    procfs.Range // pages of the task's rseq area
	out     io.Writer    // the image, as we hold it
	taskOut tracer.FD    // the image, as the task holds it; -1 if it must not write itself
	// Readback, if set, is a regular file that the image goes to, open for
	// reading, and Position the offset at which it is written: what the task
	// has just written is hashed from there, which is faster than from the task.
	Readback *os.File
	Position func() (int64, error)
	parts    []Saving
	answers  []*answer
	netns    uint64 // cookie of its network namespace, once it was asked for
}

// copyPages is up to how many pages of a chunk we copy ourselves: below it,
// making the task write costs more than it saves.
const copyPages = 64

// NewSaver prepares to save a frozen task. taskOut is the image's descriptor
// in the task itself, which then writes its memory without a copy; -1 has
// every byte copied through us. The saver must be closed.
func NewSaver(v *View, w *image.Writer, out io.Writer, taskOut tracer.FD, state tracer.State, r *tracer.Remote) (*Saver, error) {
	memory, err := r.Tracee().Memory()
	if err != nil {
		return nil, err
	}
	s := &Saver{View: v, W: w, State: state, Tracee: r.Tracee(), Remote: r, Objects: object.NewSaved(), memory: memory, out: out, taskOut: taskOut}
	for _, p := range Parts {
		s.parts = append(s.parts, p.Save())
	}
	area, err := s.Tracee.Rseq()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("find rseq area of %s: %w", v.Name(), err), memory.Close())
	}
	if area.Pointer != 0 {
		end, _ := (area.Pointer + tracer.Addr(area.Size)).PageUp()
		s.rseq = procfs.Range{Start: area.Pointer.PageDown(), End: end}
	}
	return s, nil
}

// Close ends the saver, once nothing reads the task's memory any more.
func (s *Saver) Close() error {
	_ = s.W.Drain() // what it can say, the writer has said already
	return s.memory.Close()
}

// Ask runs one program in the task with all that the parts want to know.
func (s *Saver) Ask() error {
	p := s.Remote.Program()
	for _, part := range s.parts {
		part.Ask(s, p)
	}
	if err := p.Run(); err != nil {
		return fmt.Errorf("ask %s about itself: %w", s.Name(), err)
	}
	for _, a := range s.answers { // the next program takes the place of this one
		if err := s.Remote.ReadMem(a.at, a.data); err != nil {
			return fmt.Errorf("ask %s about itself: %w", s.Name(), err)
		}
	}
	for _, part := range s.parts { // what an answer forbids is refused before the first byte
		if a, ok := part.(interface{ Answered(*Saver) error }); ok {
			if err := a.Answered(s); err != nil {
				return err
			}
		}
	}
	return nil
}

// answer is where a call of Ask leaves what it tells, and what that is once
// the program has run.
type answer struct {
	at   tracer.Addr
	data []byte
}

// answer reserves n bytes for what a call tells.
func (s *Saver) answer(p *tracer.Program, n int) *answer {
	a := &answer{at: p.Buffer(uint64(n)), data: make([]byte, n)}
	s.answers = append(s.answers, a)
	return a
}

// Dump writes the task's records.
func (s *Saver) Dump() error {
	for i, part := range s.parts {
		if err := part.Dump(s); err != nil {
			return fmt.Errorf("save %s of %s: %w", Parts[i].Name, s.Name(), err)
		}
	}
	return nil
}

// vpid is the owner that records of a task carry: its pid.
func (s *Saver) vpid() uint32 { return uint32(s.PID) }

// pages writes the contents of page ranges, in chunks that the format allows.
// own tells whether the task itself can read them, and nobody else writes them.
func (s *Saver) pages(ranges []procfs.Range, own bool) error {
	steady, volatile := s.apart(ranges)
	most := image.MaxChunk
	if !own || s.taskOut < 0 {
		most = copyPages
	}
	if err := s.chunks(steady, most); err != nil {
		return err
	}
	return s.chunks(volatile, copyPages)
}

// apart takes out the pages that the kernel writes to while the task works for
// us: those of its rseq area, which say what processor it is on. What is
// written of them must be what is hashed.
func (s *Saver) apart(ranges []procfs.Range) (steady, volatile []procfs.Range) {
	if s.rseq.Empty() {
		return ranges, nil
	}
	for _, r := range ranges {
		hit, ok := r.Intersect(s.rseq)
		if !ok {
			steady = append(steady, r)
			continue
		}
		volatile = append(volatile, hit)
		for _, rest := range []procfs.Range{{Start: r.Start, End: hit.Start}, {Start: hit.End, End: r.End}} {
			if !rest.Empty() {
				steady = append(steady, rest)
			}
		}
	}
	return steady, volatile
}

// chunks writes ranges in chunks of so many pages.
func (s *Saver) chunks(ranges []procfs.Range, most int) error {
	var addrs []uint64
	var runs []procfs.Range
	emit := func() error {
		if len(addrs) == 0 {
			return nil
		}
		err := s.W.Pages(addrs, &pageSource{s: s, runs: runs})
		addrs, runs = addrs[:0], nil
		return err
	}
	for _, r := range ranges {
		for !r.Empty() {
			room := uint64(most-len(addrs)) * procfs.PageSize
			run := r
			if r.Len() > room {
				run.End = run.Start + procfs.Addr(room)
			}
			for a := run.Start; a < run.End; a += procfs.Addr(procfs.PageSize) {
				addrs = append(addrs, uint64(a))
			}
			runs = append(runs, run)
			if r.Start = run.End; len(addrs) == most {
				if err := emit(); err != nil {
					return err
				}
			}
		}
	}
	return emit()
}

// pageSource moves the contents of one chunk from the frozen task's memory
// into the image.
type pageSource struct {
	s    *Saver
	runs []procfs.Range
	data []byte // what we have copied ourselves
	at   int64  // offset in the image at which the task has written them
}

var _ image.Mover = (*pageSource)(nil)

// Move has the task write its own memory; small chunks we copy.
func (m *pageSource) Move(n int64) error {
	if n <= copyPages*int64(procfs.PageSize) {
		return m.copy(n)
	}
	if m.s.Readback != nil {
		var err error
		if m.at, err = m.s.Position(); err != nil {
			return err
		}
	}
	p := m.s.Remote.Program()
	for _, run := range m.runs {
		p.Write(m.s.taskOut, run.Start, run.Len()).Full()
	}
	if err := p.Run(); err != nil {
		return fmt.Errorf("write %d bytes of memory: %w", n, err)
	}
	return nil
}

// copy reads a chunk once: what is written is what is hashed.
func (m *pageSource) copy(n int64) error {
	m.data = make([]byte, n)
	rest := m.data
	for _, run := range m.runs {
		if err := m.s.memory.Read(run.Start, rest[:run.Len()]); err != nil {
			return fmt.Errorf("read memory %v: %w", run, err)
		}
		rest = rest[run.Len():]
	}
	_, err := m.s.out.Write(m.data)
	return err
}

// Digest hashes the same bytes. Those that the task has written are read
// again: it is frozen, and they cannot differ.
func (m *pageSource) Digest(n int64, h io.Writer) error {
	switch {
	case m.data != nil:
		_, err := h.Write(m.data)
		return err
	case m.at != 0:
		return hashFile(h, m.s.Readback, m.at, n)
	}
	return eachPiece(m.runs, func(piece procfs.Range, buf []byte) error {
		if err := m.s.memory.Read(piece.Start, buf); err != nil {
			return fmt.Errorf("read memory %v: %w", piece, err)
		}
		_, err := h.Write(buf)
		return err
	})
}

// hashFile hashes n bytes of a file from an offset on.
func hashFile(h io.Writer, f *os.File, from, n int64) error {
	_, err := io.CopyBuffer(struct{ io.Writer }{h}, io.NewSectionReader(f, from, n), make([]byte, pieceSize))
	return err
}

// pieceSize fits the second level cache, so that hashing or writing finds hot
// what reading has brought in.
const pieceSize = 256 << 10

// eachPiece calls do for every piece of the runs, with a buffer of its length.
func eachPiece(runs []procfs.Range, do func(piece procfs.Range, buf []byte) error) error {
	var total uint64
	for _, r := range runs {
		total += r.Len()
	}
	buf := make([]byte, min(total, pieceSize))
	for _, r := range runs {
		for !r.Empty() {
			piece := r
			if r.Len() > uint64(len(buf)) {
				piece.End = piece.Start + procfs.Addr(len(buf))
			}
			if err := do(piece, buf[:piece.Len()]); err != nil {
				return err
			}
			r.Start = piece.End
		}
	}
	return nil
}
