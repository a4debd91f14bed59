package image

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
)

var errDisk = errors.New("no space left")

// disk takes so many bytes.
type disk struct {
	bytes.Buffer
	room int
}

func (d *disk) Write(b []byte) (int, error) {
	n := min(len(b), d.room-d.Len())
	d.Buffer.Write(b[:n])
	if n < len(b) {
		return n, errDisk
	}
	return n, nil
}

func TestWriterRefuses(t *testing.T) {
	head := func(w *Writer) error { return putHead(w, 1) }
	for _, tt := range []struct {
		name string
		do   func(w *Writer) error
		bad  string
	}{
		{"payload too long", func(w *Writer) error {
			return errors.Join(head(w), w.Put(0, &Buffer{Data: make([]byte, MaxPayload+1)}))
		}, "longer than 32767"},
		{"string too long", func(w *Writer) error {
			return errors.Join(head(w), w.Put(0, FName{Name: strings.Repeat("x", MaxPayload)}))
		}, "longer than 32767"},
		{"NUL in a string", func(w *Writer) error { return errors.Join(head(w), w.Put(0, FName{Name: "a\x00b"})) }, "NUL at byte 1"},
		{"parent", func(w *Writer) error { return errors.Join(head(w), w.Put(0x80000000, FName{})) }, "parent 0x80000000"},
		{"parent of VMA", func(w *Writer) error {
			return errors.Join(head(w), w.Put(0, &Task{}), w.Put(1, &MM{}), w.Put(1, &VMA{}))
		}, "parent 0x1 is not 0"},
		{"not of the table", func(w *Writer) error { return w.Put(0, PIDs{}) }, "not a record of the table"},
		{"nil", func(w *Writer) error { return w.Put(0, nil) }, "not a record of the table"},
		{"nil pointer", func(w *Writer) error { return w.Put(0, (*Head)(nil)) }, "no value"},
		{"SUM", func(w *Writer) error { return errors.Join(head(w), w.Put(0, Sum{})) }, "Close or Fail"},
		{"TAIL", func(w *Writer) error { return errors.Join(head(w), w.Put(0, &Tail{})) }, "Close or Fail"},
		{"ERROR", func(w *Writer) error { return w.Put(0, &Error{}) }, "Close or Fail"},
		{"out of place", func(w *Writer) error { return w.Put(0, &Task{}) }, "does not begin with HEAD"},
		{"trailer missing", func(w *Writer) error {
			return errors.Join(w.Put(0, &Head{}), w.Put(0, &HeadArch{}), w.Put(0, &Tree{Tasks: 2}), w.Raw(make([]byte, 31)), w.Put(0, &Task{}))
		}, "1 bytes are still owed"},
		{"trailer too long", func(w *Writer) error {
			return errors.Join(w.Put(0, &Head{}), w.Put(0, &HeadArch{}), w.Put(0, &Tree{Tasks: 2}), w.Raw(make([]byte, 33)))
		}, "33 bytes, of which 32"},
		{"no trailer", func(w *Writer) error { return errors.Join(w.Put(0, &Head{}), w.Raw([]byte{1})) }, "of which 0"},
		{"no tasks", func(w *Writer) error { return errors.Join(w.Put(0, &Head{}), w.Put(0, &Tree{})) }, "0 tasks"},
		{"no pages", func(w *Writer) error { return errors.Join(head(w), w.Pages(nil, &memory{})) }, "0 are not from 1"},
		{"too many pages", func(w *Writer) error {
			return errors.Join(head(w), w.Pages(make([]uint64, MaxChunk+1), &memory{}))
		}, "16385 are not from 1"},
		{"closed too early", func(w *Writer) error { return errors.Join(head(w), w.Close()) }, "announces 1 tasks, and 0"},
		{"task incomplete", func(w *Writer) error { return errors.Join(head(w), w.Put(0, &Task{}), w.Close()) }, "is missing before it"},
	} {
		var out bytes.Buffer
		w := NewWriter(&out, table)
		err := tt.do(w)
		if err == nil || !strings.Contains(err.Error(), tt.bad) {
			t.Errorf("%s: error %v, want %q", tt.name, err, tt.bad)
			continue
		}
		// The error sticks.
		for name, again := range map[string]error{
			"Put": w.Put(0, &Head{}), "Raw": w.Raw(nil), "Flush": w.Flush(), "EndPages": w.EndPages(),
			"Pages": w.Pages([]uint64{1}, nil), "Drain": w.Drain(), "Close": w.Close(),
		} {
			if again == nil || !strings.Contains(err.Error(), again.Error()) {
				t.Errorf("%s: later %s = %v, want %v", tt.name, name, again, err)
			}
		}
	}
}

// Where the stream stands between two records, who reads it is told.
func TestFailAfterAnError(t *testing.T) {
	var out bytes.Buffer
	w := NewWriter(&out, table)
	if err := putHead(w, 1); err != nil {
		t.Fatal(err)
	}
	if err := w.Put(0, PIDs{}); err == nil {
		t.Fatal("PIDs is a record")
	}
	if err := w.Fail(Error{Errno: 5, Text: strings.Repeat("long ", 10000)}); err != nil {
		t.Fatal(err)
	}
	var remote *RemoteError
	if _, err := names(out.Bytes()); !errors.As(err, &remote) || remote.Record.Errno != 5 || !strings.HasPrefix(remote.Record.Text, "long long ") {
		t.Errorf("reader says %v", err)
	}
	if w.Offset() != int64(out.Len()) {
		t.Errorf("Offset is %d behind %d bytes", w.Offset(), out.Len())
	}
	if err := w.Put(0, FName{}); err == nil {
		t.Error("Put works after Fail")
	}
}

func TestFailInTheMiddle(t *testing.T) {
	var out bytes.Buffer
	w := NewWriter(&out, table)
	err := errors.Join(w.Put(0, &Head{}), w.Put(0, &HeadArch{}), w.Put(0, &Tree{Tasks: 1}), w.Raw(make([]byte, 3)))
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Fail(Error{Errno: 5}); err == nil || !strings.Contains(err.Error(), "lacks 13 bytes") {
		t.Errorf("Fail in the middle of a trailer = %v", err)
	}

	w = NewWriter(&disk{room: 100}, table)
	err = errors.Join(putHead(w, 1), w.Flush())
	if !errors.Is(err, errDisk) {
		t.Fatalf("full disk: %v", err)
	}
	if err := w.Fail(Error{Errno: 28}); !errors.Is(err, errDisk) || !strings.Contains(err.Error(), "cut") {
		t.Errorf("Fail on a full disk = %v", err)
	}
}

// A disk that is full at any point is reported, and what it holds is no image.
func TestFullDisk(t *testing.T) {
	whole := len(sample(t, 1, 2))
	for room := 0; room < whole; room += 97 {
		out := &disk{room: room}
		w := NewWriter(out, table)
		err := errors.Join(putHead(w, 1), putTask(w, out, 1, 2), w.Close())
		if !errors.Is(err, errDisk) {
			t.Fatalf("room for %d of %d bytes: %v", room, whole, err)
		}
		if _, err := names(out.Bytes()); !errors.Is(err, ErrTruncated) {
			t.Fatalf("room for %d of %d bytes: reader says %v", room, whole, err)
		}
	}
}

// Long runs begin at a page boundary of the image, whatever stands before.
func TestLongRunsAreAligned(t *testing.T) {
	var out bytes.Buffer
	w := NewWriter(&out, table)
	if err := errors.Join(putHead(w, 1), w.Put(0, &Task{}), w.Put(1, &MM{}), w.Put(0, &VMA{})); err != nil {
		t.Fatal(err)
	}
	pads := 0
	for _, n := range []int{16, 16, 17, 100, 494, 511, 512, 513} {
		for range 3 {
			before := w.Offset()
			m := &position{w: w, out: &out, n: n}
			if err := w.Pages(addresses(0, n), m); err != nil {
				t.Fatal(err)
			}
			if m.at%PageSize != 0 {
				t.Errorf("%d pages begin at %d", n, m.at)
			}
			head := int64(headerSize + 8 + 8*n)
			if filler := m.at - before - head; filler < 0 || filler >= PageSize+headerSize {
				t.Errorf("%d bytes of filler before %d pages", filler, n)
			} else if filler > 0 {
				pads++
			}
		}
	}
	if pads == 0 {
		t.Error("nothing was ever aligned")
	}
	before := w.Offset()
	m := &position{w: w, out: &out, n: alignFrom - 1}
	if err := w.Pages(addresses(0, m.n), m); err != nil {
		t.Fatal(err)
	}
	if got := m.at - before; got != int64(headerSize+8+8*m.n) {
		t.Errorf("a short run has %d bytes before its contents", got)
	}
	if err := w.Drain(); err != nil {
		t.Error(err)
	}
}

// For every offset the filler is right, at one too: an offset at which the
// run happens to be aligned needs no PAD.
func TestFiller(t *testing.T) {
	w := NewWriter(io.Discard, table)
	for w.off = 0; w.off < 2*PageSize; w.off++ {
		f := w.filler(144)
		switch {
		case f < 0 && (w.off+144)%PageSize != 0:
			t.Fatalf("no filler at %d", w.off)
		case f >= 0 && ((w.off+headerSize+f+144)%PageSize != 0 || f >= PageSize):
			t.Fatalf("filler of %d at %d", f, w.off)
		}
	}
}

// position notes where the stream stands when contents are to be moved.
type position struct {
	w   *Writer
	out *bytes.Buffer
	n   int
	at  int64
}

func (p *position) Move(n int64) error {
	p.at = int64(p.out.Len())
	if n != int64(p.n*PageSize) {
		return fmt.Errorf("%d bytes for %d pages", n, p.n)
	}
	p.out.Write(make([]byte, n))
	return nil
}

func (p *position) Digest(n int64, h io.Writer) error {
	_, err := h.Write(make([]byte, n))
	return err
}

// Contents may also be given by Raw.
func TestPagesByRaw(t *testing.T) {
	var out bytes.Buffer
	w := NewWriter(&out, table)
	err := errors.Join(putHead(w, 1), w.Put(0, &Task{}), w.Put(1, &MM{}), w.Put(0, &VMA{}),
		w.Pages(addresses(0, 20), nil), w.Raw(page(20, 1)))
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil || !bytes.HasSuffix(out.Bytes(), page(20, 1)) || int64(out.Len()) != w.Offset() {
		t.Errorf("%d bytes written of %d, %v", out.Len(), w.Offset(), err)
	}
}

func TestMoveErrorCutsTheStream(t *testing.T) {
	out := &disk{room: 5000}
	w := NewWriter(out, table)
	err := errors.Join(putHead(w, 1), w.Put(0, &Task{}), w.Put(1, &MM{}), w.Put(0, &VMA{}),
		w.Pages(addresses(0, 2), &memory{w: out, data: page(2, 0)}))
	if !errors.Is(err, errDisk) {
		t.Fatalf("Move on a full disk = %v", err)
	}
	if err := w.Fail(Error{}); !errors.Is(err, errDisk) {
		t.Errorf("Fail = %v", err)
	}
	if err := w.Close(); !errors.Is(err, errDisk) {
		t.Errorf("Close = %v", err)
	}
}

// Header and padding bytes are those of the 2009 kernel's structs.
func TestBytesOfARecord(t *testing.T) {
	var out bytes.Buffer
	w := NewWriter(&out, table)
	if err := errors.Join(putHead(w, 1), w.Flush()); err != nil {
		t.Fatal(err)
	}
	out.Reset()
	if err := errors.Join(w.Put(0, &Task{State: 1, ExitSignal: 17, CommLen: 16}), w.Flush()); err != nil {
		t.Fatal(err)
	}
	want := []byte{
		102, 0, 24, 0, 0, 0, 0, 0,
		1, 0, 0, 0, 0, 0, 0, 0,
		0, 0, 0, 0, 17, 0, 0, 0,
		16, 0, 0, 0, 0, 0, 0, 0,
	}
	if !bytes.Equal(out.Bytes(), want) {
		t.Errorf("got  % x\nwant % x", out.Bytes(), want)
	}
	if got := binary.LittleEndian.Uint64(sample(t, 1)[headerSize:]); got != MagicHead {
		t.Errorf("image begins with %#x", got)
	}
}
