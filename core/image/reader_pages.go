package image

import (
	"encoding/binary"
	"fmt"
	"io"
)

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
