package image

import (
	"bytes"
	"encoding/binary"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// draw fills a record struct with anything that it may hold.
func draw(t *rapid.T, s *Spec) reflect.Value {
	v := reflect.New(s.Type)
	for i, f := range s.fields {
		if f.Name == "_" {
			continue
		}
		dst := v.Elem().Field(i)
		switch f.tail {
		case tailString:
			// A path may hold any byte but NUL.
			dst.SetString(string(rapid.SliceOfN(rapid.ByteRange(1, 255), 0, 200).Draw(t, f.Name)))
		case tailBytes:
			dst.SetBytes(rapid.SliceOfN(rapid.Byte(), 0, 500).Draw(t, f.Name))
		default:
			n := f.size
			if f.tail == tailEntries {
				count := rapid.IntRange(0, 20).Draw(t, f.Name+" entries")
				n *= count
				dst.Set(reflect.MakeSlice(f.Type, count, count))
			}
			raw := rapid.SliceOfN(rapid.Byte(), n, n).Draw(t, f.Name)
			target := dst.Addr().Interface()
			if f.tail == tailEntries {
				target = dst.Interface()
			}
			if _, err := binary.Decode(raw, binary.LittleEndian, target); err != nil {
				t.Fatal(err)
			}
		}
	}
	return v
}

// withTails is the table and rows of every shape that resources may declare.
var withTails = MustTable(append(table.Specs(),
	Row[entries](6900, "ENTRIES", InTask, "test"),
	Row[numbers](6901, "NUMBERS", InTask, "test"),
	Row[nested](7900, "NESTED", InTask, "test"),
)...)

type entries struct {
	Flags uint64 `fmt:"flags" flags:"1=A 2=B 8=D"`
	List  []entry
}

type entry struct {
	Start, End uint64
	Low        int8
	_          [7]byte
}

type numbers struct {
	List []uint32
}

type nested struct {
	Each [3]entry
	N    int64
}

func TestEveryRowRoundTrips(t *testing.T) {
	for _, s := range withTails.Specs() {
		t.Run(s.Name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				v := draw(t, &s)
				payload, err := s.append(nil, v.Elem())
				if err != nil {
					t.Fatal(err)
				}
				got, extra, err := s.decode(payload)
				if err != nil || extra != 0 {
					t.Fatalf("decode: extra %d, %v", extra, err)
				}
				again, err := s.append(nil, reflect.ValueOf(got).Elem())
				if err != nil || !bytes.Equal(again, payload) {
					t.Fatalf("encoded again: %v\n% x\n% x", err, again, payload)
				}
				// Empty and nil slices are the same record.
				if len(payload) > s.fixed && !reflect.DeepEqual(got, v.Interface()) {
					t.Fatalf("got %+v, want %+v", got, v.Interface())
				}
			})
		})
	}
}

// The struct is the layout: Go and encoding/binary agree on it for each row.
func TestNoImplicitPadding(t *testing.T) {
	for _, s := range table.Specs() {
		if s.Variable() {
			continue // its fixed part is checked field by field when the row is made
		}
		if got, want := binary.Size(reflect.Zero(s.Type).Interface()), int(s.Type.Size()); got != want || got != s.Size() {
			t.Errorf("%s: binary size %d, Go size %d, row says %d", s.Name, got, want, s.Size())
		}
	}
}

func TestPaddingIsZeroedAndIgnored(t *testing.T) {
	s := table.Of(Tree{})
	rec, _, err := s.decode([]byte{1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff})
	if err != nil || rec.(*Tree).Tasks != 1 {
		t.Fatalf("decode with garbage in the padding: %v, %v", rec, err)
	}
	b, err := s.append(nil, reflect.ValueOf(rec).Elem())
	if err != nil || !bytes.Equal(b, []byte{1, 0, 0, 0, 0, 0, 0, 0}) {
		t.Errorf("encoded % x, %v", b, err)
	}
}

func TestDecodeLengths(t *testing.T) {
	fixed := Row[nested](7901, "FIXED", InTask, "test")
	grown := Row[nested](7902, "GROWN", InTask, "test", MinLen(8))
	full := make([]byte, fixed.Size())
	for i := range full {
		full[i] = byte(i + 1)
	}
	for _, tt := range []struct {
		name    string
		spec    *Spec
		payload []byte
		extra   int
		bad     string
	}{
		{"exact", &fixed, full, 0, ""},
		{"longer by zeros", &fixed, append(bytes.Clone(full), 0, 0, 0), 3, ""},
		{"longer by more", &fixed, append(bytes.Clone(full), 0, 7), 0, "not known here"},
		{"shorter", &fixed, full[:len(full)-1], 0, "shorter"},
		{"empty", &fixed, nil, 0, "shorter"},
		{"shorter as it once was", &grown, full[:8], 0, ""},
		{"shorter than it ever was", &grown, full[:7], 0, "shorter"},
		{"string", table.Kind(KindFName), []byte("/x\x00"), 0, ""},
		{"string without NUL", table.Kind(KindFName), []byte("/x"), 0, "no NUL"},
		{"no string", table.Kind(KindFName), nil, 0, "no NUL"},
		{"string that goes on", table.Kind(KindFName), []byte("/x\x00y\x00"), 0, "goes on"},
		{"string in a fixed field", table.Kind(KindFName), []byte("/x\x00\x00\x00"), 0, ""},
		{"broken entry", withTails.Kind(6901), []byte{1, 2, 3}, 0, "whole number"},
		{"entries", withTails.Kind(6901), []byte{1, 2, 3, 4}, 0, ""},
	} {
		rec, extra, err := tt.spec.decode(tt.payload)
		if extra != tt.extra {
			t.Errorf("%s: extra %d, want %d", tt.name, extra, tt.extra)
		}
		switch {
		case tt.bad == "" && (err != nil || rec == nil):
			t.Errorf("%s: %v", tt.name, err)
		case tt.bad != "" && (err == nil || !strings.Contains(err.Error(), tt.bad)):
			t.Errorf("%s: error %v, want %q", tt.name, err, tt.bad)
		}
	}
	rec, _, err := grown.decode(full[:8])
	if err != nil || rec.(*nested).Each[0].Start != 0x0807060504030201 || rec.(*nested).N != 0 {
		t.Errorf("older layout read as %+v, %v", rec, err)
	}
}

// The kernel of 2009 wrote the command name in 16 bytes.
func TestCommandNameFillsSixteenBytes(t *testing.T) {
	b, err := table.Of(Str{}).append(nil, reflect.ValueOf(Str{Text: "self"}))
	if err != nil || string(b) != "self"+strings.Repeat("\x00", 12) {
		t.Errorf("STRING payload %q, %v", b, err)
	}
	b, err = table.Of(Str{}).append(nil, reflect.ValueOf(Str{Text: "a string of twenty.."}))
	if err != nil || string(b) != "a string of twenty..\x00" {
		t.Errorf("STRING payload %q, %v", b, err)
	}
}

func TestPIDs(t *testing.T) {
	want := []PIDs{{VPID: 1, VTGID: 1}, {VPID: -2, VTGID: 7, VPPID: 1}}
	b := EncodePIDs(want)
	if len(b) != 32 {
		t.Fatalf("%d bytes for two entries", len(b))
	}
	got, err := DecodePIDs(b)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := DecodePIDs(b[:31]); err == nil {
		t.Error("half an entry is accepted")
	}
}
