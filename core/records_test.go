package core

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/crshim/crshim/core/image"
)

// FuzzRecords writes an image with a record of every kind, whose values come from a
// seed, and reads the same values.
func FuzzRecords(f *testing.F) {
	for seed := range uint64(40) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		want := everyRecord(t, rand.New(rand.NewPCG(seed, 0)))
		var img bytes.Buffer
		w := image.NewWriter(&img, Records)
		for _, rec := range want {
			if err := w.Put(0, rec); err != nil {
				t.Fatalf("write %+v: %v", rec, err)
			}
			if tree, ok := rec.(*image.Tree); ok {
				if err := w.Raw(image.EncodePIDs(make([]image.PIDs, tree.Tasks))); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		r := image.NewReader(image.NewStreamSource(&img), Records)
		for _, rec := range want {
			got, err := r.Next()
			if err != nil {
				t.Fatalf("read %T: %v", rec, err)
			}
			if !reflect.DeepEqual(got.Value, rec) || got.Extra != 0 {
				t.Fatalf("read %+v\nwrote %+v", got.Value, rec)
			}
		}
		for _, last := range []any{&image.Sum{}, &image.Tail{}} {
			if got, err := r.Next(); err != nil || reflect.TypeOf(got.Value) != reflect.TypeOf(last) {
				t.Fatalf("behind them: %+v, %v", got, err)
			}
		}
		if _, err := r.Next(); !errors.Is(err, io.EOF) {
			t.Fatalf("behind the image: %v", err)
		}
	})
}

// everyRecord returns one record of each kind, in an order that an image may have.
func everyRecord(t *testing.T, random *rand.Rand) (all []any) {
	t.Helper()
	fixed := map[reflect.Type]any{ // what an image must say, and what has no raw data behind it
		reflect.TypeFor[image.Head]():      &image.Head{Magic: image.MagicHead, Rev: image.Revision, Flags: image.FlagCkpt},
		reflect.TypeFor[image.Tree]():      &image.Tree{Tasks: 1},
		reflect.TypeFor[image.Machine]():   &image.Machine{PageSize: 4096 << random.IntN(5), XFeatures: random.Uint64()},
		reflect.TypeFor[image.Thread]():    &image.Thread{GDTEntryTLSEntries: 3},
		reflect.TypeFor[image.CPU]():       &image.CPU{IP: random.Uint64()},
		reflect.TypeFor[image.PageArray](): &image.PageArray{},
		reflect.TypeFor[image.MMContext](): &image.MMContext{LDTEntrySize: 8},
	}
	ofWriter := map[reflect.Type]bool{
		reflect.TypeFor[image.Pad](): true, reflect.TypeFor[image.Error](): true, reflect.TypeFor[image.Sum](): true, reflect.TypeFor[image.Tail](): true,
	}
	specs := slices.Clone(Records.Specs())
	slices.SortStableFunc(specs, func(a, b image.Spec) int {
		if a.Section != b.Section {
			return int(a.Section) - int(b.Section)
		}
		if a.Opens != b.Opens && a.Opens {
			return -1
		} else if a.Opens != b.Opens {
			return 1
		}
		return int(a.Kind) - int(b.Kind)
	})
	anywhere := slices.IndexFunc(specs, func(s image.Spec) bool { return s.Section != image.Anywhere })
	specs = append(specs[anywhere:len(specs):len(specs)], specs[:anywhere]...)
	for _, s := range specs {
		if ofWriter[s.Type] {
			continue
		}
		rec := fixed[s.Type]
		if rec == nil {
			v := reflect.New(s.Type)
			randomize(t, random, v.Elem(), s.Name)
			rec = v.Interface()
		}
		all = append(all, rec)
	}
	return all
}

// randomize gives a field any value that it can hold, padding none.
func randomize(t *testing.T, random *rand.Rand, v reflect.Value, name string) {
	t.Helper()
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			if field := v.Type().Field(i); field.Name != "_" {
				randomize(t, random, v.Field(i), name+"."+field.Name)
			}
		}
	case reflect.Array:
		for i := range v.Len() {
			randomize(t, random, v.Index(i), name)
		}
	case reflect.Slice:
		n := random.IntN(20)
		if n == 0 {
			return // read back as none
		}
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			randomize(t, random, v.Index(i), name)
		}
	case reflect.String:
		text := make([]byte, random.IntN(40))
		for i := range text {
			text[i] = byte(1 + random.IntN(255))
		}
		v.SetString(string(text))
	case reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(int64(random.Uint64()) >> (64 - v.Type().Bits()))
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(random.Uint64() >> (64 - v.Type().Bits()))
	default:
		t.Fatalf("%s is a %v", name, v.Type())
	}
}
