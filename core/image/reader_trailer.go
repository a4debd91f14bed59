package image

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
)

// Raw reads the next n bytes of the present record's trailer. It fails if
// that holds fewer. Memory is taken as bytes arrive.
func (r *Reader) Raw(n int) ([]byte, error) {
	if r.err != nil {
		return nil, r.err
	}
	if n < 0 || int64(n) > r.trailer {
		return nil, r.stick(fmt.Errorf("read image: %d raw bytes wanted, and the record has %d", n, r.trailer))
	}
	var b bytes.Buffer
	err := r.pass(int64(n), &b)
	return b.Bytes(), err
}

// RawHeld is Raw for what somebody may have written over on the way: the checksum
// waits until Settle says what it was. Only records may be read meanwhile.
func (r *Reader) RawHeld(n int) ([]byte, error) {
	r.sum.hold()
	return r.Raw(n)
}

// Settle ends what RawHeld began. was is as long as what that has returned.
func (r *Reader) Settle(was []byte) error {
	if err := r.sum.settle(was); err != nil {
		return r.stick(err)
	}
	return r.err
}

// discard reads past what the caller left of the present trailer.
func (r *Reader) discard() error { return r.pass(r.trailer, io.Discard) }

// pass reads n bytes of the trailer into w in pieces, and sums them.
func (r *Reader) pass(n int64, w io.Writer) error {
	if n == 0 {
		return nil
	}
	piece := make([]byte, min(n, readAhead))
	for n > 0 {
		b := piece[:min(n, int64(len(piece)))]
		if err := r.full(b); err != nil {
			return err
		}
		r.trailer -= int64(len(b))
		n -= int64(len(b))
		if err := r.add(b); err != nil {
			return err
		}
		if _, err := w.Write(b); err != nil {
			return r.stick(fmt.Errorf("read image: %w", err))
		}
	}
	return nil
}

// Addrs returns the addresses of the run of pages that Next has just
// returned. The contents follow: see Pages.
func (r *Reader) Addrs() ([]uint64, error) {
	if r.err != nil {
		return nil, r.err
	}
	if r.last.Kind != KindPageArray || r.trailer != r.last.Trailer {
		return nil, r.stick(fmt.Errorf("read image: addresses are read at once after PGARR"))
	}
	n := r.trailer / (addrSize + r.layout.pageSize)
	b, err := r.Raw(int(n * addrSize))
	if err != nil {
		return nil, err
	}
	addrs := make([]uint64, n)
	for i := range addrs {
		addrs[i] = binary.LittleEndian.Uint64(b[i*addrSize:])
	}
	return addrs, nil
}

// Pages has the contents of the next n pages moved by m, after Addrs. It may
// be called several times for one run. Move finds them at Offset in a file, or
// next in a stream, where it must take exactly those bytes; if the image ends
// before, its error should be ErrTruncated. With m nil they are read and
// summed only.
func (r *Reader) Pages(n uint64, m Mover) error {
	if r.err != nil {
		return r.err
	}
	page := r.layout.pageSize
	contents := r.last.Trailer / (addrSize + page) * page
	if r.last.Kind != KindPageArray || r.trailer > contents || r.trailer%page != 0 || n > uint64(r.trailer/page) {
		return r.stick(fmt.Errorf("read image: %d pages wanted, and the record has %d bytes left, addresses included", n, r.trailer))
	}
	size := int64(n) * page
	if m == nil {
		return r.pass(size, io.Discard)
	}
	if size == 0 {
		return nil
	}
	if err := m.Move(size); err != nil {
		return r.stick(fmt.Errorf("read %d pages at offset %d: %w", n, r.src.Offset(), err))
	}
	if err := r.src.Skip(size); err != nil {
		return r.stick(err)
	}
	r.trailer -= size
	if err := r.sum.fetch(size, m.Digest); err != nil {
		return r.stick(err)
	}
	return nil
}

// PageSize returns the size of the pages of this image, in bytes.
func (r *Reader) PageSize() int64 { return r.layout.pageSize }
