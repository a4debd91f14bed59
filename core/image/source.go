package image

import (
	"errors"
	"fmt"
	"io"
	"os"
)

// Source is where a Reader reads from. Read may return less than was asked
// for, as io.Reader allows.
type Source interface {
	io.Reader

	// Skip says that the next n bytes are or will be read by somebody else.
	Skip(n int64) error

	// Offset is that of the next byte: in the file, or from the first byte
	// that was read from a stream.
	Offset() int64

	// End leaves the descriptor so that who reads it next gets the byte at
	// Offset.
	End() error
}

var (
	_ Source = (*FileSource)(nil)
	_ Source = (*StreamSource)(nil)
)

// OpenSource returns the Source that fits what f is: a FileSource for a
// regular file, else a StreamSource. It does not take f over: the caller
// closes it.
func OpenSource(f *os.File) (Source, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("open image: %w", err)
	}
	if info.Mode().IsRegular() {
		return NewFileSource(f)
	}
	return NewStreamSource(f), nil
}

const readAhead = 1 << 18 // bytes that a FileSource reads at once

// FileSource reads a regular file from its present offset on, by pread, and
// leaves that offset alone until End: until then a caller that shares the
// open file does not notice.
type FileSource struct {
	f   *os.File
	off int64  // of buf[0]
	buf []byte // read and not handed out
	mem []byte // what buf lies in
}

// NewFileSource starts at the offset that f has now.
func NewFileSource(f *os.File) (*FileSource, error) {
	off, err := f.Seek(0, io.SeekCurrent)
	if err != nil {
		return nil, fmt.Errorf("find offset of image: %w", err)
	}
	return &FileSource{f: f, off: off}, nil
}

// Read hands out what was read ahead, and reads more once that is used up.
func (s *FileSource) Read(b []byte) (int, error) {
	if len(s.buf) == 0 {
		if len(b) >= readAhead {
			n, err := s.f.ReadAt(b, s.off)
			s.off += int64(n)
			return n, eofOnlyAtEnd(n, err)
		}
		if s.mem == nil {
			s.mem = make([]byte, readAhead)
		}
		n, err := s.f.ReadAt(s.mem, s.off)
		if err := eofOnlyAtEnd(n, err); err != nil {
			return 0, err
		}
		s.buf = s.mem[:n]
	}
	n := copy(b, s.buf)
	s.buf = s.buf[n:]
	s.off += int64(n)
	return n, nil
}

// eofOnlyAtEnd drops the io.EOF with which ReadAt marks a short read.
func eofOnlyAtEnd(n int, err error) error {
	if n > 0 && errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// Skip moves on by n bytes.
func (s *FileSource) Skip(n int64) error {
	if n < 0 || s.off+n < s.off {
		return fmt.Errorf("skip %d bytes of image: out of range", n)
	}
	s.buf = s.buf[min(n, int64(len(s.buf))):]
	s.off += n
	return nil
}

// Offset is that of the next byte in the file.
func (s *FileSource) Offset() int64 { return s.off }

// End moves the offset of the open file to Offset.
func (s *FileSource) End() error {
	if _, err := s.f.Seek(s.off, io.SeekStart); err != nil {
		return fmt.Errorf("leave image: %w", err)
	}
	return nil
}

// StreamSource reads a pipe, socket or other stream. It never asks for more
// than it was asked for, so that what follows the image stays in the stream.
type StreamSource struct {
	r   io.Reader
	off int64
}

// NewStreamSource starts at what r gives next.
func NewStreamSource(r io.Reader) *StreamSource { return &StreamSource{r: r} }

// Read passes on one read.
func (s *StreamSource) Read(b []byte) (int, error) {
	n, err := s.r.Read(b)
	s.off += int64(n)
	return n, err
}

// Skip counts n bytes that somebody else took from the stream.
func (s *StreamSource) Skip(n int64) error {
	if n < 0 || s.off+n < s.off {
		return fmt.Errorf("skip %d bytes of image: out of range", n)
	}
	s.off += n
	return nil
}

// Offset counts from the first byte that was read.
func (s *StreamSource) Offset() int64 { return s.off }

// End has nothing to do: the stream stands at Offset.
func (s *StreamSource) End() error { return nil }
