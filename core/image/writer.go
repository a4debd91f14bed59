package image

import (
	"errors"
	"fmt"
	"io"
	"reflect"
)

// Mover has page contents moved by whoever can do it best, past this package.
type Mover interface {
	// Move transfers exactly n bytes at the present position of the stream.
	Move(n int64) error

	// Digest writes the same n bytes into h. It is called in the order of the
	// stream, mostly on another goroutine, while later Moves may run.
	Digest(n int64, h io.Writer) error
}

// errClosed is what a Writer says after Close or Fail.
var errClosed = errors.New("image is closed")

// Writer writes an image. Records are gathered and written in large pieces, mostly
// on another goroutine; at Flush and at the end all are. The first error sticks:
// all later calls but Fail return it.
type Writer struct {
	table  *Table
	order  *order
	layout layout
	sum    *summer
	spool  *spool

	off     int64 // of the next byte, from the start of the image
	trailer int64 // raw bytes still owed to the last record
	err     error
	broken  bool // it is not known how much of the stream was written
}

// NewWriter writes an image to w with the rows of t, which must hold V13 and
// Common. w is written to by nobody else meanwhile but Movers.
func NewWriter(w io.Writer, t *Table) *Writer {
	sum := newSummer()
	return &Writer{table: t, order: newOrder(t), layout: layout{pageSize: PageSize}, sum: sum, spool: newSpool(w, sum)}
}

// Put writes one record: a struct of the table or a pointer to one. It fails
// if the payload is longer than MaxPayload, if parent is above 0x7fffffff, if
// the record is out of place, or if the last one lacks bytes of its trailer. SUM,
// TAIL and ERROR are written by Close and Fail alone.
func (w *Writer) Put(parent uint32, rec any) error {
	if w.err != nil {
		return w.err
	}
	switch rec.(type) {
	case Sum, *Sum, Tail, *Tail, Error, *Error:
		return w.stick(fmt.Errorf("write %T: written by Close or Fail alone", rec))
	}
	return w.put(parent, rec)
}

func (w *Writer) put(parent uint32, rec any) error {
	s := w.table.Of(rec)
	if s == nil {
		return w.stick(fmt.Errorf("write %T: not a record of the table", rec))
	}
	v := reflect.ValueOf(rec)
	if v.Kind() != reflect.Pointer {
		p := reflect.New(s.Type)
		p.Elem().Set(v)
		v = p
	} else if v.IsNil() {
		return w.stick(fmt.Errorf("write %s: no value", s.Name))
	}
	if err := w.record(parent, s, v); err != nil {
		return w.stick(fmt.Errorf("write %s: %w", s.Name, err))
	}
	return nil
}

// record appends the header and payload of *v, which is of row s.
func (w *Writer) record(parent uint32, s *Spec, v reflect.Value) error {
	if w.trailer != 0 {
		return fmt.Errorf("%d bytes are still owed to the record before it", w.trailer)
	}
	if parent > maxParent {
		return fmt.Errorf("parent %#x is above %#x", parent, maxParent)
	}
	if err := w.order.next(s, parent, v.Interface()); err != nil {
		return err
	}
	payload, err := s.append(nil, v.Elem())
	if err != nil {
		return err
	}
	trailer, err := w.layout.trailer(s, v.Interface())
	if err != nil {
		return err
	}
	if err := w.layout.note(v.Interface()); err != nil {
		return err
	}
	b := appendHeader(make([]byte, 0, headerSize+len(payload)), s.Kind, len(payload), parent)
	if err := w.append(append(b, payload...)); err != nil {
		return err
	}
	w.trailer = trailer
	return nil
}

// append gathers bytes of the stream.
func (w *Writer) append(b []byte) error {
	w.off += int64(len(b))
	return w.cut(w.spool.add(b))
}

// cut notes an error of the spool: whatever has been written, the stream is not
// whole up to here.
func (w *Writer) cut(err error) error {
	w.broken = w.broken || err != nil
	return err
}

// Raw writes bytes of the trailer of the last record: pids, extended state.
// More than are owed is an error.
func (w *Writer) Raw(b []byte) error {
	if err := w.owe(len(b)); err != nil {
		return err
	}
	return w.stick(w.append(b))
}

// Fill is Raw of n bytes that fill writes into the buffer that it is given, mostly
// on another goroutine: they have been asked for when Flush or Drain returns.
func (w *Writer) Fill(n int, fill func([]byte) error) error {
	if err := w.owe(n); err != nil {
		return err
	}
	w.off += int64(n)
	return w.stick(w.cut(w.spool.reserve(n, fill)))
}

// owe takes n bytes off what the last record lacks.
func (w *Writer) owe(n int) error {
	if w.err != nil {
		return w.err
	}
	if int64(n) > w.trailer {
		return w.stick(fmt.Errorf("write trailer: %d bytes, of which %d are owed to the record", n, w.trailer))
	}
	w.trailer -= int64(n)
	return nil
}

// Offset returns how many bytes the image has so far, gathered ones included.
func (w *Writer) Offset() int64 { return w.off }

// Flush writes out what was gathered.
func (w *Writer) Flush() error {
	if w.err != nil {
		return w.err
	}
	return w.stick(w.cut(w.spool.flush()))
}

// Drain waits until every byte so far is written and in the checksum: until no
// filling and no Mover's Digest is or will be running. It returns the first error,
// if any.
func (w *Writer) Drain() error {
	_ = w.stick(w.cut(w.spool.flush()))
	return w.stick(w.sum.drain())
}

// Close writes SUM and TAIL, and everything gathered. It fails if the image
// lacks a record that must be there. Whoever gives up before calls Fail, or
// Drain if not even that makes sense.
func (w *Writer) Close() error {
	if w.err != nil {
		return w.Drain()
	}
	if err := w.Flush(); err != nil {
		return err
	}
	digest, err := w.sum.value()
	if err != nil {
		return w.stick(err)
	}
	if err := w.put(0, &Sum{Algorithm: AlgorithmXXH64, Digest: digest, Bytes: uint64(w.off)}); err != nil {
		return err
	}
	if err := w.put(0, &Tail{Magic: MagicTail}); err != nil {
		return err
	}
	if err := w.Flush(); err != nil {
		return err
	}
	w.err = errClosed
	return nil
}

// Fail ends the image with an ERROR record in place of SUM and TAIL, so that
// who reads the stream learns why. It is for use after an error of the Writer,
// too, and fails if that error left the stream in the middle of a record.
func (w *Writer) Fail(e Error) error {
	_ = w.Drain() // only waits: its error is what is being reported, or no longer matters
	switch {
	case errors.Is(w.err, errClosed):
		return w.err
	case w.broken:
		return fmt.Errorf("report failure in image: stream is cut: %w", w.err)
	case w.trailer != 0:
		return w.stick(fmt.Errorf("report failure in image: the last record lacks %d bytes", w.trailer))
	}
	s := w.table.Of(e)
	if s == nil {
		return w.stick(errors.New("report failure in image: table has no ERROR record"))
	}
	if limit := MaxPayload - s.fixed - 1; len(e.Text) > limit {
		e.Text = e.Text[:limit]
	}
	payload, err := s.append(nil, reflect.ValueOf(e))
	if err != nil {
		return w.stick(fmt.Errorf("report failure in image: %w", err))
	}
	err = w.append(append(appendHeader(nil, s.Kind, len(payload), 0), payload...))
	if err = errors.Join(err, w.cut(w.spool.flush())); err != nil {
		return w.stick(err)
	}
	w.err = errClosed
	return nil
}

// stick keeps the first error and returns it, nil if there is none.
func (w *Writer) stick(err error) error {
	if w.err == nil {
		w.err = err
	}
	return w.err
}
