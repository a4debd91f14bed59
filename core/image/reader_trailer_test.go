package image

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// The trailer belongs to its record: no more can be read, and what is left is
// stepped over.
func TestRaw(t *testing.T) {
	tree := func() *Reader {
		r := NewReader(NewStreamSource(bytes.NewReader(sample(t, 2))), table)
		for {
			rec, err := r.Next()
			if err != nil {
				t.Fatal(err)
			}
			if rec.Kind == KindTree {
				if rec.Trailer != 32 {
					t.Fatalf("trailer of %d bytes", rec.Trailer)
				}
				return r
			}
		}
	}
	r := tree()
	b, err := r.Raw(32)
	if err != nil {
		t.Fatal(err)
	}
	if pids, err := DecodePIDs(b); err != nil || len(pids) != 2 || pids[1].VPID != 2 || pids[1].VPPID != 1 {
		t.Errorf("pids %v, %v", pids, err)
	}
	if _, err := r.Raw(1); err == nil {
		t.Error("a byte behind the trailer can be read")
	}
	for _, n := range []int{33, -1, 1 << 40} {
		if _, err := tree().Raw(n); err == nil {
			t.Errorf("%d bytes of a trailer of 32 can be read", n)
		}
	}
	r = tree()
	if _, err := r.Raw(5); err != nil {
		t.Error(err)
	}
	if _, _, err := Expect[Task](r); err != nil {
		t.Errorf("after a part of the trailer: %v", err)
	}
}

func TestPagesAreMoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(path, sample(t, 1, 3, 20, 1), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"file", "stream"} {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		var src Source = NewStreamSource(f)
		if kind == "file" {
			if src, err = OpenSource(f); err != nil {
				t.Fatal(err)
			}
		}
		r := NewReader(src, table)
		var got []byte
		err = Walk(r, func(_ int, rec *Record) error {
			if rec.Kind != KindPageArray || rec.Trailer == 0 {
				return nil
			}
			addrs, err := r.Addrs()
			if err != nil {
				return err
			}
			if !slices.Equal(addrs, addresses(0x400000, len(addrs))) {
				t.Errorf("%s: addresses %#x", kind, addrs)
			}
			// Contents come in two pieces: one page, then the rest.
			for _, n := range []int{1, len(addrs) - 1} {
				var in io.Reader = f
				if kind == "file" {
					in = io.NewSectionReader(f, r.Offset(), int64(n*PageSize))
				}
				m := &memory{r: in}
				if err := r.Pages(uint64(n), m); err != nil {
					return err
				}
				got = append(got, m.data...)
			}
			return nil
		})
		if err = errors.Join(err, r.Close()); err != nil || !r.Done() {
			t.Errorf("%s: %v", kind, err)
		}
		if want := slices.Concat(page(3, 0), page(20, 1), page(1, 2)); !bytes.Equal(got, want) {
			t.Errorf("%s: pages differ", kind)
		}
	}
}

// Pages that were staged other than they are in the image are found out by
// the checksum.
func TestMovedPagesAreSummed(t *testing.T) {
	in := bytes.NewReader(sample(t, 1, 2))
	r := NewReader(NewStreamSource(in), table)
	toPages(t, r)
	if err := r.Pages(2, &liar{memory{r: in}}); err != nil {
		t.Fatal(err)
	}
	if err := Walk(r, func(int, *Record) error { return nil }); !errors.Is(err, ErrSum) || r.Done() {
		t.Errorf("staged pages that differ from the image: %v", err)
	}
}

// liar reports other contents than it moved.
type liar struct{ memory }

func (l *liar) Digest(n int64, h io.Writer) error {
	_, err := h.Write(make([]byte, n))
	return err
}

func TestMisuseOfTrailers(t *testing.T) {
	for name, misuse := range map[string]func(r *Reader) error{
		"Pages before Addrs": func(r *Reader) error {
			for rec := new(Record); rec.Kind != KindPageArray; {
				var err error
				if rec, err = r.Next(); err != nil {
					t.Fatal(err)
				}
			}
			return r.Pages(1, nil)
		},
		"a page too many": func(r *Reader) error {
			toPages(t, r)
			return r.Pages(3, nil)
		},
		"Addrs twice": func(r *Reader) error {
			toPages(t, r)
			_, err := r.Addrs()
			return err
		},
		"Addrs at the start": func(r *Reader) error { _, err := r.Addrs(); return err },
		"Pages at the start": func(r *Reader) error { return r.Pages(1, nil) },
		"no pages are there": func(r *Reader) error { return r.Pages(0, nil) },
		"Raw at the start":   func(r *Reader) error { _, err := r.Raw(1); return err },
	} {
		r := NewReader(NewStreamSource(bytes.NewReader(sample(t, 1, 2))), table)
		if err := misuse(r); err == nil || typed(err) {
			t.Errorf("%s: %v", name, err)
		}
		if _, again := r.Next(); again == nil {
			t.Errorf("%s: misuse does not stick", name)
		}
	}
}

// toPages reads on to the first run of pages, and its addresses.
func toPages(t *testing.T, r *Reader) {
	t.Helper()
	for {
		rec, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		if rec.Kind == KindPageArray && rec.Trailer > 0 {
			break
		}
	}
	if _, err := r.Addrs(); err != nil {
		t.Fatal(err)
	}
	if r.PageSize() != PageSize {
		t.Errorf("page size %d", r.PageSize())
	}
}

func TestReaderPassesOnErrorsOfTheMover(t *testing.T) {
	boom := errors.New("boom")
	img := sample(t, 1, 2)

	in := bytes.NewReader(img)
	r := NewReader(NewStreamSource(in), table)
	toPages(t, r)
	if err := r.Pages(2, &broken{memory: memory{r: in}, move: boom}); !errors.Is(err, boom) {
		t.Errorf("Move: %v", err)
	}
	if _, err := r.Next(); !errors.Is(err, boom) {
		t.Errorf("Move does not stick: %v", err)
	}

	in = bytes.NewReader(img)
	r = NewReader(NewStreamSource(in), table)
	toPages(t, r)
	if err := r.Pages(2, &broken{memory: memory{r: in}, digest: boom}); err != nil && !errors.Is(err, boom) { // it may run at once, or later
		t.Fatal(err)
	}
	if err := r.Drain(); !errors.Is(err, boom) {
		t.Errorf("Digest: %v", err)
	}
	if _, err := r.Next(); !errors.Is(err, boom) {
		t.Errorf("Digest does not stick: %v", err)
	}
	if err := r.Close(); !errors.Is(err, boom) {
		t.Errorf("Close: %v", err)
	}

	// A stream that ends in the middle of moved pages is one that ends early.
	in = bytes.NewReader(img[:bytes.Index(img, page(1, 0))+5000])
	r = NewReader(NewStreamSource(in), table)
	toPages(t, r)
	if err := r.Pages(2, &memory{r: in}); !errors.Is(err, ErrTruncated) {
		t.Errorf("cut in the pages: %v", err)
	}
}

// broken is a Mover that fails.
type broken struct {
	memory
	move, digest error
}

func (b *broken) Move(n int64) error {
	if b.move != nil {
		return b.move
	}
	return b.memory.Move(n)
}

func (b *broken) Digest(n int64, h io.Writer) error {
	if b.digest != nil {
		return b.digest
	}
	return b.memory.Digest(n, h)
}
