package image

import (
	"encoding/binary"
	"fmt"
)

// alignFrom is the number of pages from which contents are brought to a page
// boundary: for fewer, the filler would weigh more than it gains.
const alignFrom = 16

// Pages writes one run of pages, at most MaxChunk: their addresses, ascending,
// and then their contents, which m moves, page by page in the order of addrs.
// Everything gathered is written before Move is called, so that the stream
// stands at the contents. With m nil, the contents follow by Raw.
func (w *Writer) Pages(addrs []uint64, m Mover) error {
	if w.err != nil {
		return w.err
	}
	if n := len(addrs); n == 0 || n > MaxChunk {
		return w.stick(fmt.Errorf("write pages: %d are not from 1 to %d", n, MaxChunk))
	}
	head := int64(headerSize + 8 + addrSize*len(addrs))
	if filler := w.filler(head); len(addrs) >= alignFrom && filler >= 0 {
		if err := w.put(0, &Pad{Zero: make([]byte, filler)}); err != nil {
			return err
		}
	}
	if err := w.put(0, &PageArray{Pages: uint64(len(addrs))}); err != nil {
		return err
	}
	b := make([]byte, 0, addrSize*len(addrs))
	for _, addr := range addrs {
		b = binary.LittleEndian.AppendUint64(b, addr)
	}
	if err := w.Raw(b); err != nil {
		return err
	}
	if m == nil {
		return nil
	}
	if err := w.Flush(); err != nil {
		return err
	}
	n := w.trailer
	if err := m.Move(n); err != nil {
		w.broken = true
		return w.stick(fmt.Errorf("write %d pages: %w", len(addrs), err))
	}
	w.trailer = 0
	w.off += n
	if err := w.sum.fetch(n, m.Digest); err != nil {
		return w.stick(err)
	}
	return nil
}

// filler returns the payload length of the PAD record that brings the byte
// behind the next head bytes to a page boundary, or -1 if it is there already.
func (w *Writer) filler(head int64) int64 {
	if (w.off+head)%PageSize == 0 {
		return -1
	}
	return PageSize - 1 - (w.off+headerSize+head-1)%PageSize
}

// EndPages writes the run of no pages that ends the pages of a mapping.
func (w *Writer) EndPages() error { return w.Put(0, &PageArray{}) }
