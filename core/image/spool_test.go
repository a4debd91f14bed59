package image

import (
	"bytes"
	"errors"
	"io"
	"testing"
)

// What is filled in later stands where it was reserved, and is summed as it is
// written.
func TestSpoolKeepsTheOrder(t *testing.T) {
	var out, want bytes.Buffer
	sum := newSummer()
	s := newSpool(&out, sum)
	for i := range 40 {
		b := bytes.Repeat([]byte{byte(i)}, 3000*(i%5)+1)
		late := bytes.Repeat([]byte{^byte(i)}, pieceLen/3*(i%4))
		fill := func(buf []byte) error {
			if n := copy(buf, late); n != len(buf) || n != len(late) {
				return io.ErrShortBuffer
			}
			return nil
		}
		if err := errors.Join(s.add(b), s.reserve(len(late), fill)); err != nil {
			t.Fatal(err)
		}
		want.Write(b)
		want.Write(late)
		b[0]++ // the caller's again
	}
	if err := s.flush(); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(out.Bytes(), want.Bytes()) {
		t.Errorf("%d bytes are not the %d that were given", out.Len(), want.Len())
	}
	check := newSummer()
	_ = check.add(want.Bytes())
	got, err := sum.value()
	expected, checkErr := check.value()
	if got != expected || errors.Join(err, checkErr) != nil {
		t.Errorf("sum %x, want %x, %v", got, expected, err)
	}
}

// Who gathers waits for a writer that is slow, and is told once that has failed.
func TestSpoolIsBounded(t *testing.T) {
	gate := make(chan struct{})
	out := &gated{gate: gate, room: 3}
	s := newSpool(out, newSummer())
	done := make(chan error)
	go func() {
		for range 10 * spooled {
			if err := s.add(make([]byte, pieceLen)); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	gate <- struct{}{}
	s.mu.Lock()
	if len(s.queue) > spooled {
		t.Errorf("%d pieces wait", len(s.queue))
	}
	s.mu.Unlock()
	close(gate)
	if err := <-done; !errors.Is(err, errDisk) {
		t.Errorf("gathering for a full disk: %v", err)
	}
	if err := s.flush(); !errors.Is(err, errDisk) {
		t.Errorf("flush to a full disk: %v", err)
	}
}

// gated takes so many pieces, each once the gate opens.
type gated struct {
	gate chan struct{}
	room int
}

func (g *gated) Write(b []byte) (int, error) {
	<-g.gate
	if g.room--; g.room < 0 {
		return 0, errDisk
	}
	return len(b), nil
}

// Contents that cannot be had cut the stream: nothing may follow.
func TestFillFails(t *testing.T) {
	boom := errors.New("boom")
	var out bytes.Buffer
	w := NewWriter(&out, table)
	err := errors.Join(putHead(w, 1), w.Put(0, &Task{}), w.Put(1, &MM{}), w.Put(0, &VMA{}), w.Pages(addresses(0, 2), nil))
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Fill(2*PageSize+1, nil); err == nil {
		t.Error("more is filled than is owed")
	}
	w = NewWriter(&out, table)
	err = errors.Join(putHead(w, 1), w.Put(0, &Task{}), w.Put(1, &MM{}), w.Put(0, &VMA{}), w.Pages(addresses(0, 2), nil),
		w.Fill(2*PageSize, func([]byte) error { return boom }))
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Drain(); !errors.Is(err, boom) {
		t.Errorf("Drain = %v", err)
	}
	if err := w.Fail(Error{Errno: 5}); !errors.Is(err, boom) {
		t.Errorf("Fail = %v", err)
	}
}
