package image

import (
	"encoding/binary"
	"fmt"
	"io"
	"reflect"
	"strings"
)

// WriteDoc writes the description of the format with the record tables of t,
// as Markdown. It is the source of docs/image-format.md.
func WriteDoc(w io.Writer, t *Table) error {
	var b strings.Builder
	b.WriteString(docIntroduction)
	b.WriteString("\n## All records\n\n")
	b.WriteString("| kind | name | section | how often | payload | meaning |\n|---:|---|---|---|---|---|\n")
	for i := range t.specs {
		s := &t.specs[i]
		fmt.Fprintf(&b, "| %v | [%s](#%s) | %v | %v | %s | %s |\n",
			s.Kind, s.Name, anchor(s), s.Section, s.Occurs, s.length(), s.Doc)
	}
	for i := range t.specs {
		t.specs[i].document(&b)
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("write image format: %w", err)
	}
	return nil
}

// anchor is the name that Markdown gives to the heading of a record.
func anchor(s *Spec) string {
	return fmt.Sprintf("%v-%s", s.Kind, strings.ReplaceAll(strings.ToLower(s.Name), " ", "-"))
}

// length describes the payload in few words.
func (s *Spec) length() string {
	text := fmt.Sprintf("%d bytes", s.fixed)
	if s.Variable() {
		text = fmt.Sprintf("%d bytes and more", s.fixed)
		if s.fixed == 0 {
			text = "variable"
		}
	}
	if s.Trailer != nil {
		text += ", trailer"
	}
	return text
}

func (s *Spec) document(b *strings.Builder) {
	fmt.Fprintf(b, "\n### %v %s\n\n%s.", s.Kind, s.Name, sentence(s.Doc))
	if s.CName != "" {
		fmt.Fprintf(b, " `struct %s`.", s.CName)
	}
	if s.Root {
		b.WriteString(" Its parent is 0.")
	}
	if s.Ignorable || s.Kind.Ignorable() {
		b.WriteString(" A restart may leave it out.")
	}
	if s.MinLen > 0 {
		fmt.Fprintf(b, " Payloads from %d bytes up are accepted.", s.MinLen)
	}
	b.WriteString("\n\n")
	documentFields(b, s.fields)
	if s.Trailer == nil {
		return
	}
	fmt.Fprintf(b, "\nTrailer: %s.", s.Trailer.Doc)
	if s.Trailer.Type != nil {
		elem := Spec{Type: s.Trailer.Type}
		elem.plan()
		fmt.Fprintf(b, " `struct %s`:\n\n", s.Trailer.CName)
		documentFields(b, elem.fields)
		return
	}
	b.WriteString("\n")
}

func documentFields(b *strings.Builder, fields []field) {
	b.WriteString("| offset | size | field | in C | type | meaning |\n|---:|---:|---|---|---|---|\n")
	for _, f := range fields {
		name, c, doc := f.Name, f.Tag.Get("c"), f.Tag.Get("doc")
		if name == "_" {
			name, doc = "-", "padding"
		}
		if c != "" {
			c = "`" + c + "`"
		}
		fmt.Fprintf(b, "| %d | %s | %s | %s | %s | %s |\n", f.offset, f.length(), name, c, f.typeName(), doc)
		if names := f.Tag.Get("flags"); names != "" {
			fmt.Fprintf(b, "| | | | | | %s |\n", strings.ReplaceAll(names, "=", " "))
		}
		if f.tail == tailEntries {
			documentElement(b, f.Type.Elem())
		}
	}
}

// documentElement lists the fields of the structs that fill a tail.
func documentElement(b *strings.Builder, t reflect.Type) {
	if t.Kind() != reflect.Struct {
		return
	}
	for i := range t.NumField() {
		f := t.Field(i)
		name, doc := "each: "+f.Name, f.Tag.Get("doc")
		if f.Name == "_" {
			name, doc = "each: -", "padding"
		}
		fmt.Fprintf(b, "| +%d | %d | %s | | %v | %s |\n", f.Offset, binary.Size(reflect.Zero(f.Type).Interface()), name, f.Type, doc)
	}
}

func (f *field) length() string {
	switch f.tail {
	case tailString:
		if f.pad > 0 {
			return fmt.Sprintf("≥ %d", f.pad)
		}
		return "n + 1"
	case tailBytes:
		return "n"
	case tailEntries:
		return fmt.Sprintf("n × %d", f.size)
	}
	return fmt.Sprint(f.size)
}

// typeName is the type on the wire.
func (f *field) typeName() string {
	switch {
	case f.tail == tailString:
		return "string and NUL"
	case f.tail == tailBytes:
		return "bytes"
	case f.Type.PkgPath() == "":
		return f.Type.String()
	}
	return f.Type.Name() + " (" + f.Type.Kind().String() + ")"
}

// sentence begins s with a capital letter.
func sentence(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

const docIntroduction = `# The image format

A checkpoint image is a stream of records, written and read once from front to back. It is the
format of the 2009 patch set "Checkpoint/restart" (linux-cr, RFC v13) for x86-64, with records
of our own for what that version cannot say. This page is printed from the record table of the
program; change the table, not the page.

## Records

Everything is little endian. A record is a header of 8 bytes, a payload, and for some kinds of
2009 a trailer of raw bytes:

| offset | size | field | meaning |
|---:|---:|---|---|
| 0 | 2 | type | kind of the record, signed |
| 2 | 2 | len | bytes of the payload, signed: 0 to 32767; neither header nor trailer count |
| 4 | 4 | parent | what the record belongs to: 0, a process id or the number of an open file; at most 0x7fffffff |

- Padding is zero when written and ignored when read.
- A payload longer than the table says is accepted if the rest is zero; a shorter one is not, unless its row
  names a shorter layout that was once written.
- Strings end with a NUL, which the length includes.
- Kinds from 6001 up are our own and never have a trailer, so that a reader can step over one it does not
  know. It does so for 7001 to 7999; any other unknown kind makes an image invalid.

## Order

    HEAD HEAD_ARCH [MACHINE]
    TREE pids
    for each task:
      TASK STRING(command name)
      MM
        for each mapping: VMA [FNAME] { PGARR(n) addresses contents }* PGARR(0)
      MM_CONTEXT
      FILES
        for each descriptor: FD_ENT [FD_DATA FNAME]
      THREAD tls
      CPU xstate
    SUM
    TAIL

Sections follow each other as head, tree, then for each task task, mm, files, and for each of its threads thread and cpu, then
tail. A section begins with the record that opens it; records of our own stand in the section that their
row names, and those marked "anywhere" in any. A reader refuses a record that is out of place, is there
too often or is missing. What follows TAIL is not part of the image.

## Pages

A run holds at most 16384 pages: their addresses (8 bytes each, ascending) and then their contents
in the same order. Before a run of 16 pages or more, a PAD record may bring the contents to a
multiple of 4096 bytes from the start of the image, so that a file can be mapped or read directly.

## Integrity

SUM holds the XXH64 (seed 0) of every byte from the start of the image to the header of the SUM record.
Only TAIL follows it. An image without SUM, as 2009 wrote it, is read only on request.

A writer that fails on the way ends the stream with an ERROR record in place of SUM and TAIL, so that who
reads the other end of a pipe learns why.

## What a reader refuses

| image | errno |
|---|---|
| any rule of this page broken, or the checksum wrong | EINVAL |
| ends before TAIL | EPIPE |
| well formed, but for a machine of another architecture, page size or extended state | ENOEXEC |

HEAD must hold the magic, revision 3 and flags 1. The kernel version in it is not compared.
`
