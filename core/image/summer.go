package image

import (
	"fmt"
	"io"
	"sync"

	"github.com/cespare/xxhash/v2"
)

const (
	queueLen   = 64      // portions that may wait before who adds has to wait
	portionLen = 1 << 16 // records are gathered up to here while they wait
	atOnce     = 1 << 15 // so few bytes are fetched sooner than somebody is woken to do it
)

// summer computes the checksum of a stream in order. Small portions are added
// on the spot; page contents are fetched by a goroutine, which exists only
// while something waits, so that nobody needs to stop it.
type summer struct {
	mu     sync.Mutex
	change sync.Cond // signalled when queue shrinks, busy ends or err is set
	queue  []portion // protected by mu
	busy   bool      // the goroutine exists; protected by mu
	err    error     // the first; protected by mu

	sum *xxhash.Digest // the goroutine's while busy, else protected by mu

	holds bool   // what is added waits in held; protected by mu
	held  []byte // protected by mu
}

// portion is bytes at hand, or n bytes that fetch writes.
type portion struct {
	bytes []byte
	n     int64
	fetch func(n int64, h io.Writer) error
}

func newSummer() *summer {
	s := &summer{sum: xxhash.New()}
	s.change.L = &s.mu
	return s
}

// add adds b, which the caller may change afterwards.
func (s *summer) add(b []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	if s.holds {
		s.held = append(s.held, b...)
		return nil
	}
	if !s.busy {
		s.write(b)
		return nil
	}
	if last := len(s.queue) - 1; last >= 0 && s.queue[last].fetch == nil && len(s.queue[last].bytes)+len(b) <= portionLen {
		s.queue[last].bytes = append(s.queue[last].bytes, b...)
		return nil
	}
	return s.enqueue(portion{bytes: append([]byte(nil), b...)})
}

// fetch adds the n bytes that f will write, on the goroutine.
func (s *summer) fetch(n int64, f func(n int64, h io.Writer) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.busy && s.err == nil && n <= atOnce {
		s.err = s.take(portion{n: n, fetch: f})
		return s.err
	}
	return s.enqueue(portion{n: n, fetch: f})
}

// hold has what is added wait for settle. Nothing may be fetched meanwhile.
func (s *summer) hold() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.holds = true
}

// settle ends what hold began, with first in the place of as many bytes that came
// first.
func (s *summer) settle(first []byte) error {
	s.mu.Lock()
	held := s.held
	s.holds, s.held = false, nil
	s.mu.Unlock()
	if len(held) < len(first) {
		return fmt.Errorf("sum %d bytes for %d", len(first), len(held))
	}
	copy(held, first)
	return s.add(held)
}

// enqueue waits for room and sees that the goroutine exists. mu is held.
func (s *summer) enqueue(p portion) error {
	for len(s.queue) >= queueLen && s.err == nil {
		s.change.Wait()
	}
	if s.err != nil {
		return s.err
	}
	s.queue = append(s.queue, p)
	if !s.busy {
		s.busy = true
		go s.run()
	}
	return nil
}

// run takes portions until none is left or one fails.
func (s *summer) run() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.queue) > 0 && s.err == nil {
		p := s.queue[0]
		s.queue = s.queue[1:]
		s.change.Broadcast()
		s.mu.Unlock()
		err := s.take(p)
		s.mu.Lock()
		s.err = err
	}
	s.queue = nil
	s.busy = false
	s.change.Broadcast()
}

func (s *summer) take(p portion) error {
	if p.fetch == nil {
		s.write(p.bytes)
		return nil
	}
	w := &exactly{w: s.sum, left: p.n}
	if err := p.fetch(p.n, w); err != nil {
		return fmt.Errorf("sum %d bytes of pages: %w", p.n, err)
	}
	if w.left != 0 {
		return fmt.Errorf("sum %d bytes of pages: %d are missing: %w", p.n, w.left, ErrTruncated)
	}
	return nil
}

// write adds b. A Digest takes all and never fails.
func (s *summer) write(b []byte) {
	_, _ = s.sum.Write(b)
}

// drain waits until everything has been added.
func (s *summer) drain() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.busy {
		s.change.Wait()
	}
	return s.err
}

// value returns the checksum of everything that was added.
func (s *summer) value() (uint64, error) {
	if err := s.drain(); err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sum.Sum64(), nil
}

// exactly passes on a number of bytes and refuses more.
type exactly struct {
	w    io.Writer
	left int64
}

func (e *exactly) Write(b []byte) (int, error) {
	if int64(len(b)) > e.left {
		return 0, fmt.Errorf("%d bytes more than there are", int64(len(b))-e.left)
	}
	n, err := e.w.Write(b)
	e.left -= int64(n)
	return n, err
}
