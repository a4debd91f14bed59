package shim

import (
	"bufio"
	"fmt"
	"io"
	"strings"

	"github.com/crshim/crshim/core/image"
)

type diffReport struct {
	report
	Same    bool         `json:"same"`
	Records []diffRecord `json:"records"`
	Pages   []diffPages  `json:"pages"`
}

type diffRecord struct {
	Change string      `json:"change"`         // changed, only a, only b
	Task   int32       `json:"task,omitempty"` // process id
	Of     string      `json:"of,omitempty"`   // mapping 0x7f..., fd 3, thread 421
	Name   string      `json:"name"`           // of the record
	Fields []diffField `json:"fields"`
}

// diffField has a and b absent where an image has none. They are equal where both are only a number of bytes.
type diffField struct {
	Name string `json:"name"`
	A    string `json:"a,omitempty"`
	B    string `json:"b,omitempty"`
}

type diffPages struct {
	Task    int32  `json:"task"`
	Mapping string `json:"mapping,omitempty"`
	Start   string `json:"start"` // of the first of the pages
	End     string `json:"end"`   // of the last one
	Changed int    `json:"changed"`
	OnlyA   int    `json:"only_a"`
	OnlyB   int    `json:"only_b"`
}

func diffJSON(d *image.Difference) diffReport {
	r := diffReport{report: report{schemaVersion}, Same: d.Same(), Records: []diffRecord{}, Pages: []diffPages{}}
	for _, rec := range d.Records {
		row := diffRecord{Change: changeWord(rec), Task: rec.Task, Of: itemName(rec.Item), Name: rec.Name, Fields: []diffField{}}
		for _, f := range rec.Fields {
			row.Fields = append(row.Fields, diffField(f))
		}
		r.Records = append(r.Records, row)
	}
	for _, p := range d.Pages {
		r.Pages = append(r.Pages, diffPages{
			Task: p.Task, Mapping: p.Mapping, Start: fmt.Sprintf("%#x", p.Start), End: fmt.Sprintf("%#x", p.End),
			Changed: p.Changed, OnlyA: p.OnlyA, OnlyB: p.OnlyB,
		})
	}
	return r
}

func changeWord(r image.RecordChange) string {
	switch {
	case !r.InB:
		return "only a"
	case !r.InA:
		return "only b"
	}
	return "changed"
}

func itemName(item image.Item) string {
	switch item.Kind {
	case image.Mapping:
		return fmt.Sprintf("mapping %#x", item.ID)
	case image.Descriptor:
		return fmt.Sprintf("fd %d", item.ID)
	case image.OneThread:
		return fmt.Sprintf("thread %d", item.ID)
	}
	return ""
}

// writeDiff prints the difference for people, as a table for each task: nothing if there is none.
func writeDiff(w io.Writer, d *image.Difference) error {
	out := bufio.NewWriter(w)
	task := int32(0)
	heading := func(of int32) {
		if of != task {
			fmt.Fprintf(out, "process %d\n", of)
			task = of
		}
	}
	for _, r := range d.Records {
		heading(r.Task)
		fmt.Fprintf(out, "  %-8s %-22s %s\n", changeWord(r), itemName(r.Item), escape(recordLine(r)))
	}
	changed := 0
	for _, p := range d.Pages {
		heading(p.Task)
		parts := []string{}
		for _, n := range []struct {
			word  string
			count int
		}{{"changed", p.Changed}, {"only a", p.OnlyA}, {"only b", p.OnlyB}} {
			if n.count > 0 {
				parts = append(parts, fmt.Sprintf("%d %s", n.count, n.word))
			}
			changed += n.count
		}
		fmt.Fprintf(out, "  pages    %-31s %s  %s\n", fmt.Sprintf("%#x-%#x", p.Start, p.End), strings.Join(parts, ", "), escape(p.Mapping))
	}
	if !d.Same() {
		fmt.Fprintf(out, "%d records and %d pages differ\n", len(d.Records), changed)
	}
	return out.Flush()
}

// recordLine is the record on one line: of a changed one what it was and is, of any other one all that is not zero.
func recordLine(r image.RecordChange) string {
	parts := []string{r.Name}
	if r.Name == "VMA" && r.InA != r.InB {
		var fields []image.Field
		for _, f := range r.Fields {
			fields = append(fields, image.Field{Name: f.Name, Value: f.A + f.B})
		}
		return strings.Join(append(parts, vmaLine(fields)...), " ")
	}
	for _, f := range r.Fields {
		switch {
		case !r.InA || !r.InB:
			if value := f.A + f.B; !isZero(value) || f.Name == "FD" {
				parts = append(parts, f.Name+"="+shorten(value))
			}
		case f.A == f.B:
			parts = append(parts, f.Name+": other contents, "+f.A)
		default:
			a, b := fromDifference(f.A, f.B)
			parts = append(parts, fmt.Sprintf("%s: %s -> %s", f.Name, shorten(a), shorten(b)))
		}
	}
	return strings.Join(parts, " ")
}

// fromDifference cuts what two long texts have in common from their beginnings, so that what is shown of them differs.
func fromDifference(a, b string) (string, string) {
	const most = 20
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	if n <= most {
		return a, b
	}
	n -= most / 2
	return "..." + a[n:], "..." + b[n:]
}
