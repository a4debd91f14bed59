package image

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
)

// slow is a Mover whose Digest waits until it is let go.
type slow struct {
	memory
	gate    chan struct{}
	running *atomic.Int32
	order   *[]byte
	id      byte
	fail    error
	short   bool
	more    bool
}

func (s *slow) Digest(n int64, h io.Writer) error {
	<-s.gate
	if s.running.Add(1) != 1 {
		return errors.New("two Digests at a time")
	}
	defer s.running.Add(-1)
	*s.order = append(*s.order, s.id)
	if s.fail != nil {
		return s.fail
	}
	data := s.data
	if s.short {
		data = data[:len(data)-1]
	}
	if s.more {
		data = append(bytes.Clone(data), 0)
	}
	// In small pieces, as from another process.
	for b := range slices.Chunk(data, 1000) {
		if _, err := h.Write(b); err != nil {
			return err
		}
	}
	return nil
}

// manyPages is how many pages are not hashed at once.
const manyPages = atOnce/PageSize + 1

// The checksum is that of the stream although it is computed later.
func TestDigestsRunBehindInOrder(t *testing.T) {
	var out bytes.Buffer
	var running atomic.Int32
	var order []byte
	gate := make(chan struct{})
	w := NewWriter(&out, table)
	if err := errors.Join(putHead(w, 1), w.Put(0, &Task{}), w.Put(0, Str{}), w.Put(1, &MM{})); err != nil {
		t.Fatal(err)
	}
	const n = queueLen / 3 // fewer than fill the queue, or nobody would open the gate
	for i := range n {
		m := &slow{memory: memory{w: &out, data: page(manyPages, byte(i))}, gate: gate, running: &running, order: &order, id: byte(i)}
		if err := errors.Join(w.Put(0, &VMA{}), w.Pages(addresses(0, manyPages), m), w.EndPages()); err != nil {
			t.Fatal(err)
		}
	}
	close(gate)
	if err := w.Drain(); err != nil {
		t.Fatal(err)
	}
	if !slices.IsSorted(order) || len(order) != n {
		t.Errorf("Digests ran in the order %v", order)
	}
	err := errors.Join(w.Put(0, &MMContext{}), w.Put(1, &Files{}), w.Put(1, &Thread{}), w.Put(1, &CPU{}), w.Close())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := names(out.Bytes()); err != nil {
		t.Error(err)
	}
}

// More than the queue holds makes the writer wait, not fail.
func TestQueueIsBounded(t *testing.T) {
	var running atomic.Int32
	var order []byte
	gate := make(chan struct{})
	data := page(manyPages, 0)
	s := newSummer()
	done := make(chan error)
	go func() {
		for i := range 3 * queueLen {
			m := &slow{memory: memory{data: data}, gate: gate, running: &running, order: &order, id: byte(i)}
			if err := s.fetch(int64(len(data)), m.Digest); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	gate <- struct{}{}
	s.mu.Lock()
	if len(s.queue) > queueLen {
		t.Errorf("%d portions wait", len(s.queue))
	}
	s.mu.Unlock()
	close(gate)
	if err := errors.Join(<-done, s.drain()); err != nil || len(order) != 3*queueLen {
		t.Errorf("%d of %d, %v", len(order), 3*queueLen, err)
	}
}

func TestDigestErrorsStick(t *testing.T) {
	boom := errors.New("boom")
	for name, spoil := range map[string]func(*slow){
		"boom":            func(s *slow) { s.fail = boom },
		"are missing":     func(s *slow) { s.short = true },
		"more than there": func(s *slow) { s.more = true },
	} {
		var out bytes.Buffer
		var running atomic.Int32
		var order []byte
		gate := make(chan struct{})
		close(gate)
		w := NewWriter(&out, table)
		m := &slow{memory: memory{w: &out, data: page(manyPages, 0)}, gate: gate, running: &running, order: &order}
		spoil(m)
		if err := errors.Join(putHead(w, 1), w.Put(0, &Task{}), w.Put(1, &MM{}), w.Put(0, &VMA{})); err != nil {
			t.Fatal(err)
		}
		if err := w.Pages(addresses(0, manyPages), m); err != nil {
			t.Fatal(err)
		}
		err := w.Drain()
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: Drain = %v", name, err)
		}
		if name == "boom" && !errors.Is(err, boom) {
			t.Errorf("%s: the cause is lost in %v", name, err)
		}
		if again := w.EndPages(); !errors.Is(again, err) {
			t.Errorf("%s: later EndPages = %v", name, again)
		}
		if again := w.Close(); !errors.Is(again, err) {
			t.Errorf("%s: Close = %v", name, again)
		}
		// The stream itself is whole up to here, so the reader can be told.
		if err := w.Fail(Error{Errno: 5, Text: "boom"}); err != nil {
			t.Errorf("%s: Fail = %v", name, err)
		}
		var remote *RemoteError
		if _, err := names(out.Bytes()); !errors.As(err, &remote) {
			t.Errorf("%s: reader says %v", name, err)
		}
	}
}
