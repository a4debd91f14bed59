package image

import (
	"encoding/binary"
	"fmt"
	"reflect"
	"strconv"
)

// Spec is one row of a Table: a kind of record.
type Spec struct {
	Kind      Kind
	Name      string       // as the 2009 documents call it, without CR_HDR_
	CName     string       // the C struct of 2009 with this layout, or ""
	Doc       string       // one sentence
	Section   Section      // where it may stand
	Occurs    Occurs       // how often
	Opens     bool         // it is the first record of its section
	Root      bool         // its parent is 0
	Ignorable bool         // a restart may leave it out
	MinLen    int          // shortest payload accepted, if an older layout was shorter; else 0
	Type      reflect.Type // the struct
	Trailer   *Trailer     // what follows it raw, or nil

	fields []field
	fixed  int // payload bytes before a field of variable length
	err    error
}

// Trailer describes the raw bytes that follow some kinds of 2009.
type Trailer struct {
	Doc   string
	CName string       // the C struct of an element, or ""
	Type  reflect.Type // the Go struct of an element, or nil

	size func(rec any, l *layout) (int64, error)
}

// field is the plan of one struct field.
type field struct {
	reflect.StructField
	offset int // in the payload
	size   int // in bytes; of one element if tail
	tail   tailKind
	pad    int // least bytes of a string, from the tag pad
}

type tailKind uint8

const (
	notTail     tailKind = iota
	tailString           // bytes and a NUL
	tailBytes            // bytes to the end of the payload
	tailEntries          // fixed structs or integers to the end of the payload
)

// Option completes a row.
type Option func(*Spec)

// CName names the C struct of 2009 that has the layout of the row.
func CName(name string) Option { return func(s *Spec) { s.CName = name } }

// Times says how often the record stands in an image; without it, any number.
func Times(o Occurs) Option { return func(s *Spec) { s.Occurs = o } }

// Opens marks the record that begins its section.
func Opens() Option { return func(s *Spec) { s.Opens = true } }

// Root marks a record whose parent must be 0, as the code of 2009 checks for
// some kinds.
func Root() Option { return func(s *Spec) { s.Root = true } }

// Ignorable marks a record that a restart may leave out.
func Ignorable() Option { return func(s *Spec) { s.Ignorable = true } }

// MinLen accepts payloads from n bytes up, written before the struct grew;
// the missing fields are zero.
func MinLen(n int) Option { return func(s *Spec) { s.MinLen = n } }

// trails declares the raw trailer of a kind of 2009.
func trails[T any](doc string, size func(rec *T, l *layout) (int64, error)) Option {
	return func(s *Spec) {
		s.Trailer = &Trailer{Doc: doc, size: func(rec any, l *layout) (int64, error) { return size(rec.(*T), l) }}
	}
}

// trailerOf names the element of the trailer.
func trailerOf[E any](cname string) Option {
	return func(s *Spec) { s.Trailer.CName, s.Trailer.Type = cname, reflect.TypeFor[E]() }
}

// Row makes the row of record struct T. Fields of T are integers, arrays and
// structs of them; padding is a blank field. The last field may also be a
// string (on the wire its bytes and a NUL), a []byte or a slice of fixed
// structs or integers; it takes the rest of the payload.
//
// Tags of fields serve documentation and inspection: doc (the meaning, one
// clause), c (the field in the C struct), fmt (hex, oct, time, text or flags)
// and flags (names of bits, as "1=READ 2=WRITE"). The tag pad on a string
// gives the least length on the wire; diff:"-" marks what is about the writing
// of the image, not about what is saved, and so is none of Diff's business.
//
// A T that breaks the rules is reported by NewTable.
func Row[T any](kind Kind, name string, section Section, doc string, opts ...Option) Spec {
	s := Spec{Kind: kind, Name: name, Section: section, Doc: doc, Type: reflect.TypeFor[T]()}
	for _, opt := range opts {
		opt(&s)
	}
	s.plan()
	if s.err != nil {
		s.err = fmt.Errorf("row %s (kind %v): %w", name, kind, s.err)
	}
	return s
}

// Size is the length of the payload without a field of variable length.
func (s *Spec) Size() int { return s.fixed }

// Variable reports whether the last field takes the rest of the payload.
func (s *Spec) Variable() bool {
	return len(s.fields) > 0 && s.fields[len(s.fields)-1].tail != notTail
}

// plan lays out the fields and checks the rules of Row.
func (s *Spec) plan() {
	if s.Type.Kind() != reflect.Struct {
		s.err = fmt.Errorf("%v is not a struct", s.Type)
		return
	}
	if s.Kind.Own() && s.Trailer != nil {
		s.err = fmt.Errorf("kinds from %v up have no raw trailer", firstOwn)
		return
	}
	n := s.Type.NumField()
	for i := range n {
		f := field{StructField: s.Type.Field(i), offset: s.fixed}
		if int(f.Offset) != f.offset {
			s.err = fmt.Errorf("field %s: Go pads it to offset %d, the payload has it at %d: spell the padding out", f.Name, f.Offset, f.offset)
			return
		}
		if f.PkgPath != "" && f.Name != "_" {
			s.err = fmt.Errorf("field %s is not exported", f.Name)
			return
		}
		f.size = binary.Size(reflect.Zero(f.Type).Interface())
		if f.tail = tailOf(f.Type); f.tail != notTail {
			if i != n-1 {
				s.err = fmt.Errorf("field %s has variable length and is not the last", f.Name)
				return
			}
			if s.err = f.planTail(); s.err != nil {
				return
			}
		} else if f.size < 0 {
			s.err = fmt.Errorf("field %s: %v has no fixed size", f.Name, f.Type)
			return
		} else {
			s.fixed += f.size
		}
		s.fields = append(s.fields, f)
	}
	switch {
	case s.fixed%8 != 0:
		s.err = fmt.Errorf("fixed part is %d bytes, not a multiple of 8", s.fixed)
	case !s.Variable() && int(s.Type.Size()) != s.fixed:
		s.err = fmt.Errorf("go pads the struct to %d bytes, the payload has %d", s.Type.Size(), s.fixed)
	case s.fixed > MaxPayload:
		s.err = fmt.Errorf("payload of %d bytes is longer than %d", s.fixed, MaxPayload)
	case s.MinLen < 0 || s.MinLen > s.fixed:
		s.err = fmt.Errorf("least length %d is not within the %d bytes of the struct", s.MinLen, s.fixed)
	}
}

func tailOf(t reflect.Type) tailKind {
	switch {
	case t.Kind() == reflect.String:
		return tailString
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Uint8:
		return tailBytes
	case t.Kind() == reflect.Slice:
		return tailEntries
	}
	return notTail
}

// planTail finds the element size of a field of variable length.
func (f *field) planTail() error {
	f.size = 1
	if f.tail == tailEntries {
		elem := f.Type.Elem()
		f.size = binary.Size(reflect.Zero(elem).Interface())
		if f.size <= 0 || f.size != int(elem.Size()) {
			return fmt.Errorf("field %s: %v is not a struct of fixed size with its padding spelled out", f.Name, elem)
		}
	}
	if tag, ok := f.Tag.Lookup("pad"); ok {
		n, err := strconv.Atoi(tag)
		if err != nil || f.tail != tailString || n < 1 || n > MaxPayload {
			return fmt.Errorf("field %s: tag pad %q is not the length of a string", f.Name, tag)
		}
		f.pad = n
	}
	return nil
}
