package resource

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/core/object"
	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// Saver is one process on its way into an image.
type Saver struct {
	*View
	W       *image.Writer
	Tracee  *tracer.Tracee
	Remote  *tracer.Remote
	Objects *object.Saved
	Threads []*SavedThread // the leader first

	memory  *tracer.Memory
	rseq    []procfs.Range // pages of the threads' rseq areas, ascending
	taskOut tracer.FD      // the image, as the task holds it; -1 if it must not write itself
	// Readback, if set, is a regular file that the image goes to, open for
	// reading, and Position the offset at which it is written: what the task
	// has just written is hashed from there, which is faster than from the task.
	Readback *os.File
	Position func() (int64, error)
	// Doomed is set if the task will be killed once it is saved.
	Doomed   bool
	parts    []Saving        // nil where Parts has none for the process
	asked    *tracer.Program // what Ask has begun
	answers  answers
	segments map[uint64]*segmentAnswer // System V shared memory that is attached, by id
	netns    uint64                    // cookie of its network namespace, once it was asked for
	ptys     map[int]*savedPty         // terminals of its own, by their numbers

	filters    []*sandboxFilter // seccomp filters of all threads, by their numbers less 1
	filtersOut uint32           // how many of them have been written
}

// copyPages is up to how many pages of a chunk we copy ourselves: below it,
// making the task write costs more than it saves.
const copyPages = 64

// NewSaver prepares to save a frozen process of a tree, all of whose threads are given,
// the leader first; r has borrowed that one. taskOut is the image's descriptor
// in the process itself, which then writes its memory without a copy; -1 has
// every byte copied through us. The saver must be closed.
func NewSaver(v *View, w *image.Writer, taskOut tracer.FD, threads []*SavedThread, r *tracer.Remote) (*Saver, error) {
	memory, err := r.Tracee().Memory()
	if err != nil {
		return nil, err
	}
	s := &Saver{View: v, W: w, Threads: threads, Tracee: r.Tracee(), Remote: r, Objects: v.tree.Objects, memory: memory, taskOut: taskOut}
	v.tree.savers[v] = s
	for _, p := range Parts {
		var part Saving
		if p.Save != nil {
			part = p.Save()
		}
		s.parts = append(s.parts, part)
		for _, t := range threads {
			var part ThreadSaving
			if p.SaveThread != nil {
				part = p.SaveThread()
			}
			t.parts = append(t.parts, part)
		}
	}
	if err := s.findRseq(); err != nil {
		return nil, errors.Join(err, memory.Close())
	}
	return s, nil
}

// Close ends the saver, once nothing reads the task's memory any more.
func (s *Saver) Close() error {
	_ = s.W.Drain() // what it can say, the writer has said already
	return s.memory.Close()
}

// Ask begins to run one program in each thread with all that the parts want to
// know; in the leader also what they want to know of the process. Answered must
// follow.
func (s *Saver) Ask() error {
	p, leader := s.Remote.Program(), s.Threads[0]
	for i, part := range s.parts {
		if part != nil {
			part.Ask(s, p)
		}
		if leader.parts[i] != nil {
			leader.parts[i].Ask(s, leader, p)
		}
	}
	s.asked = p
	return s.unanswered(p.Start())
}

func (s *Saver) unanswered(err error) error {
	if err != nil {
		return fmt.Errorf("ask %s about itself: %w", s.Name(), err)
	}
	return nil
}

// Answered ends what Ask has begun.
func (s *Saver) Answered() error {
	leader := s.Threads[0]
	err := s.asked.Finish()
	if err == nil { // the next program takes the place of this one
		err = append(s.answers, leader.answers...).read(s.Remote)
	}
	if err == nil {
		err = s.askSiblings()
	}
	if err := s.unanswered(err); err != nil {
		return err
	}
	for _, part := range s.parts { // what an answer forbids is refused before the first byte
		if a, ok := part.(interface{ Answered(*Saver) error }); ok {
			if err := a.Answered(s); err != nil {
				return err
			}
		}
	}
	for _, t := range s.Threads {
		for _, part := range t.parts {
			if a, ok := part.(interface {
				Answered(*Saver, *SavedThread) error
			}); ok {
				if err := a.Answered(s, t); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// answer reserves n bytes for what a call tells.
func (s *Saver) answer(p *tracer.Program, n int) *answer { return s.answers.reserve(p, n) }

// Dump writes the records of the process.
func (s *Saver) Dump() error {
	for i, part := range s.parts {
		if part != nil {
			if err := part.Dump(s); err != nil {
				return fmt.Errorf("save %s of %s: %w", Parts[i].Name, s.Name(), err)
			}
		}
		if err := s.dumpThread(s.Threads[0], i); err != nil {
			return err
		}
	}
	for _, t := range s.siblings() {
		for i := range Parts {
			if err := s.dumpThread(t, i); err != nil {
				return err
			}
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

// findRseq finds the pages that the kernel writes to while the threads work for
// us: those of their rseq areas, which say what processor each is on.
func (s *Saver) findRseq() error {
	for _, t := range s.Threads {
		area, err := t.Tracee.Rseq()
		if err != nil {
			return fmt.Errorf("find rseq area of %s: %w", t.name(s.View), err)
		}
		if area.Pointer != 0 {
			end, _ := (area.Pointer + tracer.Addr(area.Size)).PageUp()
			s.rseq = append(s.rseq, procfs.Range{Start: area.Pointer.PageDown(), End: end})
		}
	}
	slices.SortFunc(s.rseq, func(a, b procfs.Range) int { return cmp.Compare(a.Start, b.Start) })
	s.rseq = slices.Compact(s.rseq)
	return nil
}

// apart takes out those pages: what is written of them must be what is hashed.
func (s *Saver) apart(ranges []procfs.Range) (steady, volatile []procfs.Range) {
	if len(s.rseq) == 0 {
		return ranges, nil
	}
	for _, r := range ranges {
		// The first area that ends behind the beginning of r.
		i, _ := slices.BinarySearchFunc(s.rseq, r.Start+1, func(area procfs.Range, a procfs.Addr) int { return cmp.Compare(area.End, a) })
		for ; i < len(s.rseq) && s.rseq[i].Start < r.End; i++ {
			hit, ok := r.Intersect(s.rseq[i])
			if !ok {
				continue // two areas may lie in one page
			}
			volatile = append(volatile, hit)
			if before := (procfs.Range{Start: r.Start, End: hit.Start}); !before.Empty() {
				steady = append(steady, before)
			}
			r.Start = hit.End
		}
		if !r.Empty() {
			steady = append(steady, r)
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
		var err error
		if len(addrs) <= copyPages {
			err = s.copyRuns(addrs, runs)
		} else {
			err = s.W.Pages(addrs, &pageSource{s: s, runs: runs})
		}
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

// copyRuns writes a small chunk by ourselves, together with the records around
// it. It is read once: what is written is what is hashed.
func (s *Saver) copyRuns(addrs []uint64, runs []procfs.Range) error {
	if err := s.W.Pages(addrs, nil); err != nil {
		return err
	}
	for _, run := range runs {
		err := s.W.Fill(int(run.Len()), func(data []byte) error {
			if err := s.memory.Read(run.Start, data); err != nil {
				return fmt.Errorf("read memory %v: %w", run, err)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// pageSource has the frozen task move the contents of one chunk from its memory
// into the image.
type pageSource struct {
	s    *Saver
	runs []procfs.Range
	at   int64 // offset in the image at which the task has written them
}

var _ image.Mover = (*pageSource)(nil)

// Move has the task write its own memory.
func (m *pageSource) Move(n int64) error {
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

// Digest hashes the same bytes. Those that the task has written are read
// again: it is frozen, and they cannot differ.
func (m *pageSource) Digest(n int64, h io.Writer) error {
	if m.at != 0 {
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
	_, err := io.CopyBuffer(struct{ io.Writer }{h}, io.NewSectionReader(f, from, n), make([]byte, min(n, pieceSize)))
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
