package image

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
)

// Table is a set of rows. It does not change once made.
type Table struct {
	specs  []Spec // ascending by kind
	byKind map[Kind]*Spec
	byType map[reflect.Type]*Spec
}

// NewTable checks rows and makes a table of them. It refuses a row whose
// struct breaks the rules of Row or whose section is unknown, and two rows of
// one kind, name or type.
func NewTable(specs ...Spec) (*Table, error) {
	t := &Table{
		specs:  slices.Clone(specs),
		byKind: make(map[Kind]*Spec, len(specs)),
		byType: make(map[reflect.Type]*Spec, len(specs)),
	}
	slices.SortStableFunc(t.specs, func(a, b Spec) int { return int(a.Kind) - int(b.Kind) })
	names := map[string]bool{}
	var errs []error
	for i := range t.specs {
		s := &t.specs[i]
		switch {
		case s.err != nil:
			errs = append(errs, s.err)
		case s.Kind <= 0:
			errs = append(errs, fmt.Errorf("row %s: kind %v is not positive", s.Name, s.Kind))
		case s.Name == "" || s.Doc == "":
			errs = append(errs, fmt.Errorf("row of kind %v lacks a name or a sentence", s.Kind))
		case s.Section >= nSections || s.Occurs >= nOccurs:
			errs = append(errs, fmt.Errorf("row %s: %v or %v is unknown", s.Name, s.Section, s.Occurs))
		case t.byKind[s.Kind] != nil:
			errs = append(errs, fmt.Errorf("rows %s and %s are both of kind %v", t.byKind[s.Kind].Name, s.Name, s.Kind))
		case t.byType[s.Type] != nil:
			errs = append(errs, fmt.Errorf("rows %s and %s are both of type %v", t.byType[s.Type].Name, s.Name, s.Type))
		case names[s.Name]:
			errs = append(errs, fmt.Errorf("two rows are called %s", s.Name))
		}
		t.byKind[s.Kind], t.byType[s.Type], names[s.Name] = s, s, true
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("make record table: %w", err)
	}
	return t, nil
}

// MustTable is NewTable for tables that are part of the program; it panics.
func MustTable(specs ...Spec) *Table {
	t, err := NewTable(specs...)
	if err != nil {
		panic(err)
	}
	return t
}

// Specs returns the rows, ascending by kind. The slice is the caller's own.
func (t *Table) Specs() []Spec { return slices.Clone(t.specs) }

// Kind returns the row of k, or nil.
func (t *Table) Kind(k Kind) *Spec { return t.byKind[k] }

// Of returns the row of the record struct rec or of the one that it points
// to, or nil.
func (t *Table) Of(rec any) *Spec {
	typ := reflect.TypeOf(rec)
	if typ != nil && typ.Kind() == reflect.Pointer {
		typ = typ.Elem()
	}
	return t.byType[typ]
}

// name returns the name of a kind for messages, or its number.
func (t *Table) name(k Kind) string {
	if s := t.byKind[k]; s != nil {
		return s.Name
	}
	return "kind " + k.String()
}
