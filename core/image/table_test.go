package image

import (
	"slices"
	"strings"
	"testing"
)

func TestNewTableRefusesBadRows(t *testing.T) {
	type good struct{ A uint64 }
	type implicit struct {
		A uint32
		B uint64
	}
	type atEnd struct {
		A uint64
		B uint32
	}
	type odd struct{ A uint32 }
	type platform struct{ A int }
	type middle struct {
		A []byte
		B uint64
	}
	type hidden struct{ a uint64 }
	type pointer struct{ A *uint64 }
	type badElement struct{ A []implicit }
	type tagged struct {
		A string `pad:"x"`
	}
	_ = hidden{a: 1}.a
	for _, tt := range []struct {
		name string
		spec Spec
		bad  string
	}{
		{"good", Row[good](6100, "X", InTask, "d"), ""},
		{"implicit padding", Row[implicit](6100, "X", InTask, "d"), "spell the padding out"},
		{"padding at the end", Row[atEnd](6100, "X", InTask, "d"), "multiple of 8"},
		{"odd size", Row[odd](6100, "X", InTask, "d"), "multiple of 8"},
		{"int", Row[platform](6100, "X", InTask, "d"), "no fixed size"},
		{"variable field in the middle", Row[middle](6100, "X", InTask, "d"), "not the last"},
		{"unexported", Row[hidden](6100, "X", InTask, "d"), "not exported"},
		{"pointer", Row[pointer](6100, "X", InTask, "d"), "no fixed size"},
		{"element with implicit padding", Row[badElement](6100, "X", InTask, "d"), "padding spelled out"},
		{"not a struct", Row[uint64](6100, "X", InTask, "d"), "not a struct"},
		{"tag pad", Row[tagged](6100, "X", InTask, "d"), "tag pad"},
		{"too long", Row[struct{ A [4096]uint64 }](6100, "X", InTask, "d"), "longer than"},
		{"least length", Row[good](6100, "X", InTask, "d", MinLen(9)), "least length"},
		{"kind 0", Row[good](0, "X", InTask, "d"), "not positive"},
		{"negative kind", Row[good](-5, "X", InTask, "d"), "not positive"},
		{"no section", Row[good](6100, "X", 99, "d"), "section 99"},
		{"no number", Row[good](6100, "X", InTask, "d", Times(99)), "occurs 99"},
		{"no name", Row[good](6100, "", InTask, "d"), "lacks a name"},
		{"no sentence", Row[good](6100, "X", InTask, ""), "lacks a name"},
		{"kind taken", Row[good](KindVMA, "X", InTask, "d"), "both of kind"},
		{"type taken", Row[VMA](6100, "X", InTask, "d"), "both of type"},
		{"name taken", Row[good](6100, "VMA", InTask, "d"), "are called"},
		{"own kind with trailer", Row[good](6100, "X", InTask, "d",
			trails("d", func(*good, *layout) (int64, error) { return 0, nil })), "no raw trailer"},
	} {
		got, err := NewTable(append(table.Specs(), tt.spec)...)
		switch {
		case tt.bad == "" && (err != nil || got.Of(good{}) == nil):
			t.Errorf("%s: %v", tt.name, err)
		case tt.bad != "" && (err == nil || got != nil || !strings.Contains(err.Error(), tt.bad)):
			t.Errorf("%s: error %v, want %q", tt.name, err, tt.bad)
		}
	}
}

func TestMustTablePanics(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("a bad table does not panic")
		}
	}()
	MustTable(Row[uint64](6100, "X", InTask, "d"))
}

func TestTableLookup(t *testing.T) {
	if s := table.Of(&VMA{}); s == nil || s.Kind != KindVMA || s != table.Kind(KindVMA) || s != table.Of(VMA{}) {
		t.Errorf("VMA is found as %v", s)
	}
	for _, rec := range []any{nil, 7, PIDs{}, (*int)(nil)} {
		if s := table.Of(rec); s != nil {
			t.Errorf("%T is found as %s", rec, s.Name)
		}
	}
	specs := table.Specs()
	if !slices.IsSortedFunc(specs, func(a, b Spec) int { return int(a.Kind) - int(b.Kind) }) {
		t.Error("rows are not ascending by kind")
	}
	if len(specs) != len(V13)+len(Common) {
		t.Errorf("%d rows of %d", len(specs), len(V13)+len(Common))
	}
	for _, s := range Common {
		if !s.Kind.Own() || s.CName != "" {
			t.Errorf("%s is ours and has kind %v, C struct %q", s.Name, s.Kind, s.CName)
		}
	}
}
