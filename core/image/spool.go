package image

import (
	"fmt"
	"io"
	"sync"
)

// spool writes the stream in order: it gathers pieces, and a goroutine fills
// their gaps, has them summed and writes them, beside whoever goes on to the next
// one. The goroutine exists only while pieces wait, so that nobody needs to stop it.
type spool struct {
	out io.Writer
	sum *summer

	gathered *piece

	mu     sync.Mutex
	change sync.Cond // signalled when queue shrinks, or busy ends
	queue  []*piece  // protected by mu
	spare  []*piece  // protected by mu
	busy   bool      // the goroutine exists; protected by mu
	err    error     // the first; protected by mu
}

const (
	pieceLen = 1 << 16 // bytes that make a piece, or more with its last gap
	spooled  = 8       // pieces that may wait before who gathers has to wait
)

// piece is some of the stream.
type piece struct {
	data []byte
	gaps []gap
}

// gap is bytes of a piece that fill knows.
type gap struct {
	at, end int
	fill    func([]byte) error
}

func newSpool(out io.Writer, sum *summer) *spool {
	s := &spool{out: out, sum: sum, gathered: new(piece)}
	s.change.L = &s.mu
	return s
}

// add gathers b, which the caller may change afterwards.
func (s *spool) add(b []byte) error {
	s.gathered.data = append(s.gathered.data, b...)
	return s.whole()
}

// reserve gathers n bytes that fill writes, mostly on the goroutine.
func (s *spool) reserve(n int, fill func([]byte) error) error {
	p := s.gathered
	at := len(p.data)
	if need := at + n; need <= cap(p.data) {
		p.data = p.data[:need]
	} else {
		p.data = append(p.data, make([]byte, n)...)
	}
	p.gaps = append(p.gaps, gap{at, at + n, fill})
	return s.whole()
}

// whole passes on what was gathered if it makes a piece.
func (s *spool) whole() error {
	if len(s.gathered.data) < pieceLen {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.queue) >= spooled && s.err == nil {
		s.change.Wait()
	}
	s.enqueue()
	return s.err
}

// enqueue passes on what was gathered. mu is held.
func (s *spool) enqueue() {
	if s.err != nil {
		return
	}
	s.queue = append(s.queue, s.gathered)
	if n := len(s.spare); n > 0 {
		s.gathered, s.spare = s.spare[n-1], s.spare[:n-1]
	} else {
		s.gathered = new(piece)
	}
	if !s.busy {
		s.busy = true
		go s.run()
	}
}

// flush waits until all that was gathered is written. The error is the first.
func (s *spool) flush() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case len(s.gathered.data) == 0 || s.err != nil:
	case s.busy:
		s.enqueue()
	default: // sooner than somebody is woken to do it
		s.err = s.write(s.gathered)
	}
	for s.busy {
		s.change.Wait()
	}
	return s.err
}

// run takes pieces until none is left or one fails.
func (s *spool) run() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.queue) > 0 && s.err == nil {
		p := s.queue[0]
		s.queue = s.queue[1:]
		s.change.Broadcast()
		s.mu.Unlock()
		err := s.write(p)
		s.mu.Lock()
		s.err = err
		s.spare = append(s.spare, p)
	}
	s.queue = nil
	s.busy = false
	s.change.Broadcast()
}

// write takes one piece, and leaves it empty.
func (s *spool) write(p *piece) error {
	for _, g := range p.gaps {
		if err := g.fill(p.data[g.at:g.end]); err != nil {
			return err
		}
	}
	_ = s.sum.add(p.data) // drain tells, and the stream is whole without it
	if _, err := s.out.Write(p.data); err != nil {
		return fmt.Errorf("write image: %w", err)
	}
	p.data, p.gaps = p.data[:0], p.gaps[:0]
	return nil
}
