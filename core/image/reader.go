package image

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Record is one record as read.
type Record struct {
	Kind    Kind
	Parent  uint32
	Offset  int64 // of its header, as Source.Offset counts
	Len     int   // bytes of its payload
	Spec    *Spec // nil if the kind is unknown
	Value   any   // pointer to the struct of Spec; the payload as []byte if the kind is unknown
	Extra   int   // zero bytes of the payload behind what the struct knows
	Trailer int64 // raw bytes that follow
}

// Name returns the name of the kind, or its number.
func (rec *Record) Name() string {
	if rec.Spec == nil {
		return "kind " + rec.Kind.String()
	}
	return rec.Spec.Name
}

// Reader reads an image record by record and checks it on the way. It is not
// fit for use after an error.
type Reader struct {
	// AllowNoSum accepts an image that has no SUM record, as 2009 wrote it.
	AllowNoSum bool

	// KeepUnknown has Next return records of our own kinds that are not in
	// the table, for inspection. Otherwise it steps over the ignorable ones
	// and refuses the others.
	KeepUnknown bool

	src    Source
	table  *Table
	order  *order
	layout layout
	sum    *summer

	start   int64   // offset of the image's first byte
	next    *header // read and not used
	last    Record  // the present record, without its value
	trailer int64   // raw bytes of it that were not read
	summed  bool    // SUM was met
	done    bool    // TAIL was met
	err     error   // the first; sticks
}

// header is struct cr_hdr.
type header struct {
	kind   Kind
	length int
	parent uint32
	offset int64
	digest uint64 // checksum of all bytes before it, if it is of SUM
}

// NewReader reads the image that begins at the present offset of src with the
// rows of t, which must hold V13 and Common.
func NewReader(src Source, t *Table) *Reader {
	return &Reader{
		src: src, table: t, order: newOrder(t), layout: layout{pageSize: PageSize}, sum: newSummer(),
		start: src.Offset(),
	}
}

// Next returns the next record. PAD and unknown ignorable records are stepped
// over, and so is what the caller left of the last record's trailer. Behind TAIL
// it returns io.EOF. An ERROR record is returned as a *RemoteError.
func (r *Reader) Next() (*Record, error) {
	h, err := r.header()
	if err != nil {
		return nil, err
	}
	r.next = nil
	rec := &Record{Kind: h.kind, Parent: h.parent, Offset: h.offset, Len: h.length, Spec: r.table.Kind(h.kind)}
	r.last = *rec
	payload, err := r.take(h.length)
	if err != nil {
		return nil, err
	}
	if rec.Spec == nil {
		rec.Value = payload
		return rec, nil
	}
	if rec.Value, rec.Extra, err = rec.Spec.decode(payload); err != nil {
		return nil, r.bad(err.Error(), nil)
	}
	if err := r.order.next(rec.Spec, rec.Parent, rec.Value); err != nil {
		return nil, r.bad(err.Error(), nil)
	}
	if err := r.check(rec, h); err != nil {
		return nil, err
	}
	if rec.Trailer, err = r.layout.trailer(rec.Spec, rec.Value); err != nil {
		return nil, r.bad(err.Error(), nil)
	}
	if err := r.layout.note(rec.Value); err != nil {
		return nil, r.bad(err.Error(), nil)
	}
	r.trailer, r.last.Trailer = rec.Trailer, rec.Trailer
	return rec, nil
}

// Peek returns the kind of the record that Next will return, or io.EOF behind
// TAIL. Of that record only the header is read.
func (r *Reader) Peek() (Kind, error) {
	h, err := r.header()
	if err != nil {
		return 0, err
	}
	return h.kind, nil
}

// Expect returns the next record, which must be of type T.
func Expect[T any](r *Reader) (*T, *Record, error) {
	want := r.table.Of((*T)(nil))
	if want == nil {
		return nil, nil, fmt.Errorf("read image: %T is not a record of the table", *new(T))
	}
	kind, err := r.Peek()
	if errors.Is(err, io.EOF) {
		return nil, nil, fmt.Errorf("read image: %s wanted, and TAIL has been read", want.Name)
	}
	if err != nil {
		return nil, nil, err
	}
	if kind != want.Kind && kind != KindError {
		r.last = Record{Kind: kind, Offset: r.next.offset}
		return nil, nil, r.bad(want.Name+" is expected here", nil)
	}
	rec, err := r.Next()
	if err != nil {
		return nil, nil, err
	}
	value, ok := rec.Value.(*T)
	if !ok {
		return nil, nil, fmt.Errorf("read image: %s is a %T", rec.Name(), rec.Value)
	}
	return value, rec, nil
}

// Offset returns that of the next byte to be read, as Source.Offset counts:
// after the addresses of a run of pages, that of the contents.
func (r *Reader) Offset() int64 { return r.src.Offset() }

// Done reports whether TAIL was read and the checksum, if there is one, is
// right.
func (r *Reader) Done() bool { return r.done }

// Drain waits until no Mover's Digest is or will be running. It returns the
// first error, if any.
func (r *Reader) Drain() error {
	if err := r.sum.drain(); err != nil {
		_ = r.stick(err)
	}
	return r.err
}

// Close waits as Drain does. After TAIL it leaves the descriptor behind TAIL;
// before, it leaves that of a file where it was.
func (r *Reader) Close() error {
	err := r.sum.drain()
	if !r.done {
		return err
	}
	return r.src.End()
}

// header returns the header of the next record that is not stepped over.
func (r *Reader) header() (*header, error) {
	if r.err != nil {
		return nil, r.err
	}
	if r.done {
		return nil, io.EOF
	}
	for r.next == nil {
		if err := r.discard(); err != nil {
			return nil, err
		}
		h, err := r.readHeader()
		if err != nil {
			return nil, err
		}
		skip, err := r.skips(h)
		if err != nil {
			return nil, err
		}
		if !skip {
			r.next = h
			break
		}
		if _, err := r.take(h.length); err != nil {
			return nil, err
		}
	}
	return r.next, nil
}

// readHeader reads struct cr_hdr and checks what can be said without the kind.
func (r *Reader) readHeader() (*header, error) {
	h := &header{offset: r.src.Offset()}
	r.last = Record{Offset: h.offset}
	var b [headerSize]byte
	if err := r.full(b[:]); err != nil {
		return nil, err
	}
	h.kind = Kind(binary.LittleEndian.Uint16(b[0:]))
	h.parent = binary.LittleEndian.Uint32(b[4:])
	length := int16(binary.LittleEndian.Uint16(b[2:]))
	h.length = int(length)
	r.last.Kind = h.kind
	if h.kind == KindSum {
		digest, err := r.sum.value()
		if err != nil {
			return nil, r.stick(err)
		}
		h.digest = digest
	}
	if err := r.add(b[:]); err != nil {
		return nil, err
	}
	switch {
	case h.offset == r.start && h.kind != KindHead && h.kind != KindError:
		return nil, r.bad("the image does not begin with HEAD", nil)
	case length < 0:
		return nil, r.bad(fmt.Sprintf("length %d is negative", length), nil)
	case h.parent > maxParent:
		return nil, r.bad(fmt.Sprintf("parent %#x is above %#x", h.parent, maxParent), nil)
	}
	return h, nil
}

// skips reports whether the record of h is to be stepped over.
func (r *Reader) skips(h *header) (bool, error) {
	if s := r.table.Kind(h.kind); s != nil {
		if s.Kind != KindPad {
			return false, nil
		}
		if err := r.order.next(s, h.parent, &Pad{}); err != nil {
			return false, r.bad(err.Error(), nil)
		}
		return true, nil
	}
	if r.order.at == InTail {
		return false, r.bad("comes after SUM, where only TAIL may follow", nil)
	}
	if h.kind.Own() && r.KeepUnknown {
		return false, nil
	}
	if h.kind.Ignorable() {
		return true, nil
	}
	return false, r.bad("unknown kind of record", ErrUnknown)
}

// check looks at the records that say something about the image itself.
func (r *Reader) check(rec *Record, h *header) error {
	switch v := rec.Value.(type) {
	case *Head:
		switch {
		case v.Magic != MagicHead:
			return r.bad(fmt.Sprintf("magic %#x is not %#x", v.Magic, uint64(MagicHead)), nil)
		case v.Rev != Revision:
			return r.bad(fmt.Sprintf("format revision %d is not %d", v.Rev, Revision), nil)
		case v.Flags != FlagCkpt:
			return r.bad(fmt.Sprintf("flags %#x are not %#x", v.Flags, FlagCkpt), nil)
		}
	case *Sum:
		covered := uint64(h.offset - r.start)
		switch {
		case v.Algorithm != AlgorithmXXH64:
			return r.bad(fmt.Sprintf("checksum algorithm %d is unknown", v.Algorithm), nil)
		case v.Bytes != covered:
			return r.bad(fmt.Sprintf("checksum covers %d bytes of %d", v.Bytes, covered), ErrSum)
		case v.Digest != h.digest:
			return r.bad(fmt.Sprintf("checksum is %016x, that of the bytes %016x", v.Digest, h.digest), ErrSum)
		}
		r.summed = true
	case *Error:
		return r.stick(&RemoteError{Record: *v})
	case *Tail:
		switch {
		case v.Magic != MagicTail:
			return r.bad(fmt.Sprintf("magic %#x is not %#x", v.Magic, uint64(MagicTail)), nil)
		case !r.summed && !r.AllowNoSum:
			return r.bad("no checksum before it", ErrSum)
		}
		if err := r.Drain(); err != nil {
			return err
		}
		r.done = true
	}
	return nil
}

// take reads n bytes of a payload.
func (r *Reader) take(n int) ([]byte, error) {
	b := make([]byte, n)
	if err := r.full(b); err != nil {
		return nil, err
	}
	return b, r.add(b)
}

// full reads exactly len(b) bytes.
func (r *Reader) full(b []byte) error {
	at := r.src.Offset()
	n, err := io.ReadFull(r.src, b)
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return r.stick(fmt.Errorf("read image at offset %d: %w", at+int64(n), ErrTruncated))
	case err != nil:
		return r.stick(fmt.Errorf("read image at offset %d: %w", at+int64(n), err))
	}
	return nil
}

// add has b summed.
func (r *Reader) add(b []byte) error {
	if err := r.sum.add(b); err != nil {
		return r.stick(err)
	}
	return nil
}

// bad is a FormatError about the present record.
func (r *Reader) bad(reason string, err error) error {
	e := &FormatError{Offset: r.last.Offset, Kind: r.last.Kind, Reason: reason, Err: err}
	if r.last.Kind != 0 {
		e.Name = r.table.name(r.last.Kind)
	}
	return r.stick(e)
}

func (r *Reader) stick(err error) error {
	if r.err == nil {
		r.err = err
	}
	return r.err
}
