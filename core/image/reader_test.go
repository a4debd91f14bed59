package image

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
)

// typed reports whether err is one of the errors that a Reader may return for
// what it has read.
func typed(err error) bool {
	var f *FormatError
	var r *RemoteError
	switch {
	case errors.As(err, &f):
		return errors.Is(err, ErrFormat) && !errors.Is(err, ErrTruncated)
	case errors.As(err, &r), errors.Is(err, ErrTruncated):
		return !errors.Is(err, ErrFormat)
	}
	return false
}

func TestTruncatedAtEveryByte(t *testing.T) {
	img := sample(t, 1, 1)
	for n := range img {
		_, err := names(img[:n])
		if !errors.Is(err, ErrTruncated) || !typed(err) {
			t.Fatalf("cut to %d of %d bytes: %v", n, len(img), err)
		}
	}
}

// Each bit of each header matters, and so does each byte of the rest.
func TestEveryHeaderByteFlipped(t *testing.T) {
	img := sample(t, 1, 1, 16) // with a PAD
	for _, at := range boundaries(t, img) {
		for i := range headerSize {
			for bit := range 8 {
				img[at+i] ^= 1 << bit
				if _, err := names(img); !typed(err) {
					t.Fatalf("bit %d of byte %d of the header at %d flipped: %v", bit, i, at, err)
				}
				img[at+i] ^= 1 << bit
			}
		}
	}
}

func TestEveryByteFlipped(t *testing.T) {
	img := sample(t, 1, 1)
	at := boundaries(t, img)
	padding := at[len(at)-2] + headerSize + 4 // of SUM: the one place that neither counts nor is summed
	for i := range img {
		if i >= padding && i < padding+4 {
			continue
		}
		bad := bytes.Clone(img)
		bad[i] ^= 0x41
		if _, err := names(bad); !typed(err) {
			t.Fatalf("byte %d flipped: %v", i, err)
		}
	}
	// In page contents it is the checksum alone that can tell.
	img[bytes.Index(img, page(1, 0))+1000] ^= 1
	if _, err := names(img); !errors.Is(err, ErrSum) || !errors.Is(err, ErrFormat) {
		t.Errorf("changed page: %v", err)
	}
}

// mapRecords returns img with each record replaced by what change returns,
// and with SUM made right again.
func mapRecords(t testing.TB, img []byte, change func(kind Kind, rec []byte) []byte) []byte {
	t.Helper()
	at := append(boundaries(t, img), len(img))
	var out []byte
	for i := range len(at) - 1 {
		rec := bytes.Clone(img[at[i]:at[i+1]])
		kind := Kind(binary.LittleEndian.Uint16(rec))
		if kind == KindSum {
			s := newSummer()
			s.write(out)
			binary.LittleEndian.PutUint64(rec[headerSize+8:], s.sum.Sum64())
			binary.LittleEndian.PutUint64(rec[headerSize+16:], uint64(len(out)))
		}
		out = append(out, change(kind, rec)...)
	}
	return out
}

func TestRefusals(t *testing.T) {
	record := func(kind Kind, payload ...byte) []byte {
		return append(appendHeader(nil, kind, len(payload), 0), payload...)
	}
	drop := func(which Kind) func(Kind, []byte) []byte {
		return func(k Kind, rec []byte) []byte {
			if k == which {
				return nil
			}
			return rec
		}
	}
	double := func(which Kind) func(Kind, []byte) []byte {
		return func(k Kind, rec []byte) []byte {
			if k == which {
				return append(bytes.Clone(rec), rec...)
			}
			return rec
		}
	}
	after := func(which Kind, more []byte) func(Kind, []byte) []byte {
		return func(k Kind, rec []byte) []byte {
			if k == which {
				return append(rec, more...)
			}
			return rec
		}
	}
	poke := func(which Kind, at int, b ...byte) func(Kind, []byte) []byte {
		return func(k Kind, rec []byte) []byte {
			if k == which {
				copy(rec[headerSize+at:], b)
			}
			return rec
		}
	}
	for _, tt := range []struct {
		name   string
		change func(Kind, []byte) []byte
		bad    string // "" if the image is valid
	}{
		{"nothing", func(_ Kind, rec []byte) []byte { return rec }, ""},
		{"no HEAD", drop(KindHead), "does not begin with HEAD"},
		{"no HEAD_ARCH", drop(KindHeadArch), ""}, // set below: CPU has a trailer of unknown length
		{"no MACHINE", drop(KindMachine), ""},
		{"no TREE", drop(KindTree), "comes before TREE"},
		{"no TASK", drop(KindTask), "comes before the first TASK"},
		{"no MM", drop(KindMM), "begins with MM"},
		{"no MM_CONTEXT", drop(KindMMContext), "MM_CONTEXT is missing"},
		{"no FILES", drop(KindFiles), "begins with FILES"},
		{"no THREAD", drop(KindThread), "THREAD is missing"},
		{"no CPU", drop(KindCPU), "CPU is missing"},
		{"no SUM", drop(KindSum), "no checksum"},
		{"two HEAD", double(KindHead), "second HEAD"},
		{"two HEAD_ARCH", double(KindHeadArch), "second HEAD_ARCH"},
		{"two MACHINE", double(KindMachine), "second MACHINE"},
		{"two TREE", double(KindTree), "second TREE"},
		{"two TASK", double(KindTask), "announces 1 tasks"},
		{"two MM", double(KindMM), "second MM"},
		{"two MM_CONTEXT", double(KindMMContext), "second MM_CONTEXT"},
		{"two FILES", double(KindFiles), "second FILES"},
		{"two CPU", double(KindCPU), "second CPU"},
		{"two SUM", double(KindSum), "only TAIL"},
		{"two VMA", double(KindVMA), ""},
		{"VMA among the files", after(KindFiles, record(KindVMA, make([]byte, 48)...)), "section mm"},
		{"TASK in the tail", after(KindSum, record(KindTask, make([]byte, 24)...)), "only TAIL"},
		{"PAD in the tail", after(KindSum, record(KindPad)), "only TAIL"},
		{"unknown in the tail", after(KindSum, record(7123)), "only TAIL"},
		{"STRING in the tail", after(KindSum, record(KindStr, 0)), "only TAIL"},
		{"unknown 2009 kind", after(KindTask, record(42)), "unknown kind"},
		{"unknown own kind", after(KindTask, record(6999)), "unknown kind"},
		{"unknown negative kind", after(KindTask, record(-2)), "unknown kind"},
		{"kind behind the ignorable ones", after(KindTask, record(8000)), "unknown kind"},
		{"unknown ignorable kind", after(KindTask, record(7000+1, 1, 2, 3)), ""},
		{"last ignorable kind", after(KindTask, record(7999)), ""},
		{"PAD", after(KindTask, record(KindPad, 0, 0, 0)), ""},
		{"magic", poke(KindHead, 0, 1), "magic"},
		{"revision", poke(KindHead, 14, 4), "revision 4"},
		{"flags", poke(KindHead, 24, 3), "flags 0x3"},
		{"kernel version", poke(KindHead, 8, 2, 0, 6, 0), ""},
		{"tail magic", poke(KindTail, 0, 1), "magic"},
		{"no tasks", poke(KindTree, 0, 0), "0 tasks"},
		{"too many tasks", poke(KindTree, 0, 0xff, 0xff, 0xff, 0xff), "4294967295 tasks"},
		{"page size 0", poke(KindMachine, 0, 0, 0), "page size 0"},
		{"page size odd", poke(KindMachine, 0, 1, 0x10), "page size 4097"},
		{"page size huge", poke(KindMachine, 0, 0, 0, 0, 0x80), "page size"},
		{"too many pages", poke(KindPageArray, 0, 1, 0x40), "16385 pages"},
		{"pages beyond counting", poke(KindPageArray, 0, 1, 1, 1, 1, 1, 1, 1, 0xff), "pages are more"},
		{"negative count of segments", poke(KindThread, 4, 0xff, 0xff), "negative"},
		{"negative size of segments", poke(KindThread, 2, 0xff, 0xff, 1, 0), "negative"},
		{"negative count of descriptors", poke(KindMMContext, 2, 0xff, 0xff), "descriptors"},
		{"odd descriptors", poke(KindMMContext, 0, 16, 0, 1, 0), "descriptors"},
		{"parent of VMA", func(k Kind, rec []byte) []byte {
			if k == KindVMA {
				rec[4] = 1
			}
			return rec
		}, "parent 0x1 is not 0"},
		{"unknown checksum", poke(KindSum, 0, 2), "algorithm 2"},
		{"checksum of less", poke(KindSum, 16, 0), "covers"},
		{"checksum", poke(KindSum, 8, 0, 0, 0, 0), "checksum is"},
	} {
		bad := mapRecords(t, sample(t, 1, 2), tt.change)
		if tt.name == "no HEAD_ARCH" {
			tt.bad = "" // what follows depends on the bytes of the trailer
			if _, err := names(bad); !typed(err) {
				t.Errorf("%s: %v", tt.name, err)
			}
			continue
		}
		_, err := names(bad)
		switch {
		case tt.bad == "" && err != nil:
			t.Errorf("%s: %v", tt.name, err)
		case tt.bad != "" && (err == nil || !strings.Contains(err.Error(), tt.bad) || !errors.Is(err, ErrFormat)):
			t.Errorf("%s: error %v, want %q", tt.name, err, tt.bad)
		}
		if strings.HasPrefix(tt.name, "unknown") && tt.bad == "unknown kind" && !errors.Is(err, ErrUnknown) {
			t.Errorf("%s: error %v is not ErrUnknown", tt.name, err)
		}
	}
}

// An image of 2009 has no checksum, and is read on request.
func TestAllowNoSum(t *testing.T) {
	img := mapRecords(t, sample(t, 1, 2), func(k Kind, rec []byte) []byte {
		if k.Own() {
			return nil
		}
		return rec
	})
	r := NewReader(NewStreamSource(bytes.NewReader(img)), table)
	r.AllowNoSum = true
	if err := Walk(r, func(int, *Record) error { return nil }); err != nil || !r.Done() {
		t.Error(err)
	}
	if _, err := names(img); !errors.Is(err, ErrFormat) {
		t.Errorf("without the request: %v", err)
	}
}

func TestKeepUnknown(t *testing.T) {
	img := mapRecords(t, sample(t, 1, 2), func(k Kind, rec []byte) []byte {
		if k == KindTask {
			rec = append(append(rec, appendHeader(nil, 6999, 2, 5)...), 'h', 'i')
			return append(append(rec, appendHeader(nil, 7999, 1, 0)...), 'x')
		}
		return rec
	})
	r := NewReader(NewStreamSource(bytes.NewReader(img)), table)
	r.KeepUnknown = true
	var got []string
	err := Walk(r, func(_ int, rec *Record) error {
		if rec.Spec == nil {
			got = append(got, rec.Name()+" "+string(rec.Value.([]byte)))
		}
		return nil
	})
	if want := []string{"kind 6999 hi", "kind 7999 x"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestExpectAndPeek(t *testing.T) {
	r := NewReader(NewStreamSource(bytes.NewReader(sample(t, 1, 2))), table)
	for range 3 {
		if k, err := r.Peek(); k != KindHead || err != nil {
			t.Fatalf("Peek = %v, %v", k, err)
		}
	}
	head, rec, err := Expect[Head](r)
	if err != nil || head.Time != 1234567890 || rec.Offset != 0 || rec.Len != 224 {
		t.Fatalf("HEAD is %+v, %+v, %v", head, rec, err)
	}
	if _, rec, err = Expect[HeadArch](r); err != nil || rec.Offset != 232 {
		t.Fatalf("HEAD_ARCH is %+v, %v", rec, err)
	}
	_, _, err = Expect[Tree](r)
	var f *FormatError
	if !errors.As(err, &f) || f.Kind != KindMachine || f.Offset != 248 || !strings.Contains(err.Error(), "TREE is expected") {
		t.Fatalf("TREE in place of MACHINE: %v", err)
	}
	if _, again := r.Next(); !errors.Is(again, ErrFormat) {
		t.Errorf("after an error: %v", again)
	}
	if _, _, err := Expect[int](NewReader(NewStreamSource(strings.NewReader("")), table)); err == nil || typed(err) {
		t.Errorf("Expect of what is no record: %v", err)
	}
}

func TestEndOfImage(t *testing.T) {
	r := NewReader(NewStreamSource(bytes.NewReader(sample(t, 1))), table)
	if err := Walk(r, func(int, *Record) error { return nil }); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Next(); err != io.EOF {
		t.Errorf("Next behind TAIL: %v", err)
	}
	if _, err := r.Peek(); err != io.EOF {
		t.Errorf("Peek behind TAIL: %v", err)
	}
	if _, _, err := Expect[Task](r); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("Expect behind TAIL: %v", err)
	}
}

func TestRemoteError(t *testing.T) {
	for _, begun := range []bool{false, true} {
		var out bytes.Buffer
		w := NewWriter(&out, table)
		if begun {
			if err := putHead(w, 1); err != nil {
				t.Fatal(err)
			}
		}
		want := Error{Errno: 28, Code: 1501, Text: "disk full"}
		if err := w.Fail(want); err != nil {
			t.Fatal(err)
		}
		_, err := names(out.Bytes())
		var remote *RemoteError
		if !errors.As(err, &remote) || remote.Record != want || !typed(err) || !strings.HasSuffix(err.Error(), ": disk full") {
			t.Errorf("begun %v: %v", begun, err)
		}
		r := NewReader(NewStreamSource(bytes.NewReader(out.Bytes())), table)
		if begun {
			for range 4 {
				if _, err := r.Next(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if _, _, err := Expect[Task](r); !errors.As(err, &remote) {
			t.Errorf("begun %v: Expect = %v", begun, err)
		}
	}
}

func TestFormatErrorText(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want string
	}{
		{&FormatError{Offset: 7, Reason: "odd"}, "invalid image: at offset 7: odd"},
		{&FormatError{Offset: 7, Kind: KindVMA, Name: "VMA", Reason: "odd"}, "invalid image: VMA record at offset 7: odd"},
	} {
		if tt.err.Error() != tt.want {
			t.Errorf("got %q, want %q", tt.err, tt.want)
		}
	}
}
