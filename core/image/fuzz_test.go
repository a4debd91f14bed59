package image

import (
	"bytes"
	"errors"
	"reflect"
	"testing"
)

// item is a record with its trailer, as a Writer is given it.
type item struct {
	parent  uint32
	value   any
	trailer []byte
}

// contents reads an image to its end.
func contents(img []byte) ([]item, error) {
	r := NewReader(NewStreamSource(bytes.NewReader(img)), withTails)
	r.AllowNoSum = true
	var items []item
	err := Walk(r, func(depth int, rec *Record) error {
		if depth < 0 || depth > 3 || rec.Spec == nil || reflect.TypeOf(rec.Value) != reflect.PointerTo(rec.Spec.Type) {
			return errors.New("a record without a place, row or value")
		}
		raw, err := r.Raw(int(rec.Trailer))
		if err != nil {
			return err
		}
		if len(raw) > len(img) {
			return errors.New("a trailer longer than the image")
		}
		items = append(items, item{rec.Parent, rec.Value, raw})
		return nil
	})
	if (err == nil) != r.Done() {
		err = errors.New("done and not done")
	}
	return items, err
}

// encode writes what was read.
func encode(items []item) ([]byte, error) {
	var out bytes.Buffer
	w := NewWriter(&out, withTails)
	for _, it := range items {
		switch it.value.(type) {
		case *Sum, *Tail:
			continue
		}
		if err := errors.Join(w.Put(it.parent, it.value), w.Raw(it.trailer)); err != nil {
			return nil, err
		}
	}
	err := w.Close()
	return out.Bytes(), err
}

// FuzzReader decodes, encodes and decodes again. What cannot be read gives
// one of our errors; what can be read can be written, and is the same when it is
// read again, byte for byte from then on.
func FuzzReader(f *testing.F) {
	f.Add(sample(f, 1))
	f.Add(sample(f, 1)[:1000])
	// Without SUM a change does not end at the checksum.
	for _, img := range [][]byte{sample(f, 1), sample(f, 2), sample(f, 1, 1)} {
		f.Add(mapRecords(f, img, func(k Kind, rec []byte) []byte {
			switch k {
			case KindSum:
				return nil
			case KindTask:
				rec = append(rec, appendHeader(nil, KindPad, 0, 0)...)
				return append(rec, appendHeader(nil, 7999, 0, 0)...)
			}
			return rec
		}))
	}
	f.Add(append(appendHeader(nil, KindError, 10, 0), 5, 0, 0, 0, 0, 0, 0, 0, 'x', 0))
	f.Fuzz(func(t *testing.T, img []byte) {
		items, err := contents(img)
		if err != nil {
			if !typed(err) {
				t.Fatalf("error of no known type: %v", err)
			}
			return
		}
		once, err := encode(items)
		if err != nil {
			t.Fatalf("encode what was read: %v", err)
		}
		again, err := contents(once)
		if err != nil {
			t.Fatalf("decode what was written: %v", err)
		}
		if got, want := values(again), values(items); !reflect.DeepEqual(got, want) {
			t.Fatalf("decoded again: %v\nwant %v", got, want)
		}
		twice, err := encode(again)
		if err != nil || !bytes.Equal(once, twice) {
			t.Fatalf("encoded again: %v, and %d bytes are not the same %d", err, len(twice), len(once))
		}
	})
}

// values leaves out what the writer makes itself.
func values(items []item) []item {
	var kept []item
	for _, it := range items {
		switch it.value.(type) {
		case *Sum, *Tail:
			continue
		}
		if len(it.trailer) == 0 {
			it.trailer = nil
		}
		kept = append(kept, it)
	}
	return kept
}

// FuzzPayload has each row decode anything.
func FuzzPayload(f *testing.F) {
	for _, s := range withTails.Specs() {
		f.Add(int16(s.Kind), make([]byte, s.Size()))
		f.Add(int16(s.Kind), append(make([]byte, s.Size()), 'x', 0))
	}
	f.Fuzz(func(t *testing.T, kind int16, payload []byte) {
		s := withTails.Kind(Kind(kind))
		if s == nil {
			return
		}
		rec, extra, err := s.decode(payload)
		if (err == nil) != (rec != nil) || extra > len(payload) {
			t.Fatalf("%s: %v, %d, %v", s.Name, rec, extra, err)
		}
		if err != nil {
			return
		}
		Fields(rec)
		if len(payload) > MaxPayload-CommLen {
			return
		}
		b, err := s.append(nil, reflect.ValueOf(rec).Elem())
		if err != nil {
			t.Fatalf("%s: encode %+v: %v", s.Name, rec, err)
		}
		again, _, err := s.decode(b)
		if err != nil || !reflect.DeepEqual(again, rec) {
			t.Fatalf("%s: got %+v, %v, want %+v", s.Name, again, err, rec)
		}
	})
}
