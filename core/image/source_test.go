package image

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

const behind = "checkpoint id 1\n" // what ckpt prints into its own image file

// A pipe is left at the byte behind TAIL.
func TestStreamStopsBehindTail(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	deadline := time.Now().Add(time.Minute)
	if err := errors.Join(r.SetDeadline(deadline), w.SetDeadline(deadline)); err != nil {
		t.Fatal(err)
	}
	img := sample(t, 2, 3, 20)
	wrote := make(chan error, 1)
	go func() {
		_, err := w.Write(append(bytes.Clone(img), behind...))
		wrote <- err
	}()
	src, err := OpenSource(r)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := src.(*StreamSource); !ok {
		t.Fatalf("a pipe is read by %T", src)
	}
	reader := NewReader(src, table)
	if err := Walk(reader, func(int, *Record) error { return nil }); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(reader.Close(), <-wrote); err != nil {
		t.Fatal(err)
	}
	if src.Offset() != int64(len(img)) {
		t.Errorf("offset %d behind %d bytes", src.Offset(), len(img))
	}
	rest := make([]byte, len(behind))
	if _, err := io.ReadFull(r, rest); err != nil || string(rest) != behind {
		t.Errorf("behind TAIL: %q, %v", rest, err)
	}
}

// An image need not begin at the start of a file; the offset of the open file
// is left behind TAIL after success, and alone otherwise.
func TestFileOffset(t *testing.T) {
	const before = "junk before the image"
	img := sample(t, 1, 3, 20)
	path := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(path, []byte(before+string(img)+behind), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	offset := func() int64 {
		n, err := f.Seek(0, io.SeekCurrent)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	for _, whole := range []bool{false, true} {
		if _, err := f.Seek(int64(len(before)), io.SeekStart); err != nil {
			t.Fatal(err)
		}
		src, err := OpenSource(f)
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := src.(*FileSource); !ok {
			t.Fatalf("a file is read by %T", src)
		}
		r := NewReader(src, table)
		stop := errors.New("enough")
		err = Walk(r, func(_ int, rec *Record) error {
			if rec.Kind == KindHead && rec.Offset != int64(len(before)) {
				t.Errorf("HEAD is at %d", rec.Offset)
			}
			if !whole && rec.Kind == KindFiles {
				return stop
			}
			if offset() != int64(len(before)) {
				t.Errorf("the offset moves before the end, at %s", rec.Name())
			}
			return nil
		})
		want := int64(len(before))
		if whole {
			want += int64(len(img))
		}
		if whole && err != nil || !whole && !errors.Is(err, stop) {
			t.Fatal(err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		if offset() != want {
			t.Errorf("whole %v: offset %d, want %d", whole, offset(), want)
		}
	}
	if rest, err := io.ReadAll(f); err != nil || string(rest) != behind {
		t.Errorf("behind TAIL: %q, %v", rest, err)
	}
}

// Reads and skips of all sizes give what the file holds.
func TestFileSource(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789abcdef"), readAhead/16*3)
	path := filepath.Join(t.TempDir(), "data")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	src, err := NewFileSource(f)
	if err != nil {
		t.Fatal(err)
	}
	at := 0
	for i, n := range []int{1, 7, readAhead - 3, 8, readAhead + 5, 100, 0, 1 << 16} {
		b := make([]byte, n)
		if _, err := io.ReadFull(src, b); err != nil || !bytes.Equal(b, data[at:at+n]) {
			t.Fatalf("read %d of %d bytes at %d: %v", i, n, at, err)
		}
		skip := 11 * i * i
		if err := src.Skip(int64(skip)); err != nil {
			t.Fatal(err)
		}
		at += n + skip
		if src.Offset() != int64(at) {
			t.Fatalf("offset %d, want %d", src.Offset(), at)
		}
	}
	if err := src.Skip(int64(len(data))); err != nil {
		t.Fatal(err)
	}
	if n, err := src.Read(make([]byte, 5)); n != 0 || err != io.EOF {
		t.Errorf("behind the end: %d, %v", n, err)
	}
	for _, s := range []Source{src, NewStreamSource(f)} {
		for _, n := range []int64{-1, 1<<63 - 1} {
			before := s.Offset()
			if before == 0 && n > 0 {
				continue // all of it can still be skipped
			}
			if err := s.Skip(n); err == nil || s.Offset() != before {
				t.Errorf("%T: Skip(%d) = %v, offset %d", s, n, err, s.Offset())
			}
		}
	}
}

// A source may give less than it is asked for.
func TestShortReads(t *testing.T) {
	img := sample(t, 1, 2)
	for name, in := range map[string]io.Reader{
		"one byte":      iotest.OneByteReader(bytes.NewReader(img)),
		"half":          iotest.HalfReader(bytes.NewReader(img)),
		"data with EOF": iotest.DataErrReader(bytes.NewReader(img)),
	} {
		r := NewReader(NewStreamSource(in), table)
		if err := Walk(r, func(int, *Record) error { return nil }); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Errors of the source are passed on as they are.
func TestSourceErrors(t *testing.T) {
	boom := errors.New("boom")
	in := io.MultiReader(bytes.NewReader(sample(t, 1)[:500]), iotest.ErrReader(boom))
	r := NewReader(NewStreamSource(in), table)
	err := Walk(r, func(int, *Record) error { return nil })
	if !errors.Is(err, boom) || errors.Is(err, ErrTruncated) || !strings.Contains(err.Error(), "offset 500") {
		t.Error(err)
	}

	f, err := os.Open(filepath.Join(t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	src, err := OpenSource(f)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewReader(src, table).Next(); err == nil || typed(err) {
		t.Errorf("image in a directory: %v", err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenSource(f); !errors.Is(err, os.ErrClosed) {
		t.Errorf("closed file: %v", err)
	}
}
