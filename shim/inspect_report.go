package shim

import (
	"bufio"
	"fmt"
	"io"
	"strings"

	"github.com/crshim/crshim/core/image"
)

type inspectReport struct {
	report
	Whole   bool            `json:"whole"` // TAIL was reached and the checksum is right
	Error   string          `json:"error,omitempty"`
	Size    int64           `json:"size"`       // bytes of the image
	Pages   uint64          `json:"pages"`      // whose contents it holds
	Page    int64           `json:"page_bytes"` // of one page
	Records []inspectRecord `json:"records"`
	Outside []outsideRow    `json:"outside"` // descriptors that lead out of the image

	Processes []processRow `json:"processes,omitempty"` // of a tree; none of an image of one process
}

type inspectRecord struct {
	Name    string            `json:"name"`
	Kind    int               `json:"kind"`
	Depth   int               `json:"depth"` // in the tree
	Offset  int64             `json:"offset"`
	Parent  uint32            `json:"parent,omitempty"`
	Fields  map[string]string `json:"fields"`
	Trailer int64             `json:"trailer_bytes,omitempty"`
}

// json is the report of --json. Values of fields are text, as numbers of 64 bits do not survive every JSON reader.
func (v *inspection) json(err error) inspectReport {
	r := inspectReport{report: report{schemaVersion}, Whole: v.Whole, Size: v.Size, Pages: v.Pages, Page: v.pageSize}
	if err != nil {
		r.Error = err.Error()
	}
	r.Outside, r.Processes = v.outside(), v.Processes
	for _, rec := range v.Records {
		row := inspectRecord{Name: rec.Name, Kind: int(rec.Kind), Depth: rec.Depth, Offset: rec.Offset, Parent: rec.Parent, Trailer: rec.Trailer, Fields: map[string]string{}}
		for _, f := range rec.Fields {
			row.Fields[f.Name] = f.Value
		}
		r.Records = append(r.Records, row)
	}
	return r
}

// writeTree prints the records for people: a line each, without fields that are zero.
func (v *inspection) writeTree(w io.Writer) error {
	out := bufio.NewWriter(w)
	branches := branches(v.Records)
	for i, rec := range v.Records {
		fmt.Fprintln(out, branches[i]+rec.line())
	}
	state := "whole, checksum right"
	if !v.Whole {
		state = "NOT whole"
	}
	fmt.Fprintf(out, "%d records, %d pages (%s), %s in all; %s\n",
		len(v.Records), v.Pages, byteSize(int64(v.Pages)*v.pageSize), byteSize(v.Size), state)
	return out.Flush()
}

// branches draws the lines of the tree that stand before each record. From the end backwards, open[d] tells
// whether a later record hangs on the same branch at depth d.
func branches(records []inspected) []string {
	lines := make([]string, len(records))
	var open []bool
	for i := len(records) - 1; i >= 0; i-- {
		depth := records[i].Depth
		for len(open) <= depth {
			open = append(open, false)
		}
		open = open[:depth+1] // branches of deeper records ended here
		var b strings.Builder
		for d := 1; d <= depth; d++ {
			switch {
			case d < depth && open[d]:
				b.WriteString("│  ")
			case d < depth:
				b.WriteString("   ")
			case open[d]:
				b.WriteString("├─ ")
			default:
				b.WriteString("└─ ")
			}
		}
		lines[i] = b.String()
		open[depth] = true
	}
	return lines
}

// line is the record on one line.
func (rec inspected) line() string {
	parts := []string{rec.Name}
	if rec.Kind == image.KindVMA {
		parts = append(parts, vmaLine(rec.Fields)...)
	} else {
		for _, f := range rec.Fields {
			if !isZero(f.Value) || f.Name == "FD" {
				parts = append(parts, f.Name+"="+shorten(f.Value))
			}
		}
	}
	if rec.Trailer > 0 && rec.Kind != image.KindPageArray {
		parts = append(parts, "+ "+byteSize(rec.Trailer))
	}
	return escape(strings.Join(parts, " "))
}

// shorten cuts a value that would fill the screen; --json has the whole.
func shorten(value string) string {
	const most = 64
	if len(value) <= most {
		return value
	}
	return value[:most-3] + "..."
}

// vmaLine writes a mapping as /proc/PID/maps does.
func vmaLine(fields []image.Field) []string {
	value := map[string]string{}
	for _, f := range fields {
		value[f.Name] = f.Value
	}
	flags := strings.Split(value["Flags"], "|")
	perms := []byte("---p")
	var rest []string
	for _, flag := range flags {
		switch flag {
		case "READ":
			perms[0] = 'r'
		case "WRITE":
			perms[1] = 'w'
		case "EXEC":
			perms[2] = 'x'
		case "SHARED":
			perms[3] = 's'
		case "MAYREAD", "MAYWRITE", "MAYEXEC", "MAYSHARE", "ACCOUNT", "0x0", "0":
		default:
			rest = append(rest, strings.ToLower(flag))
		}
	}
	parts := []string{value["Start"] + "-" + value["End"], string(perms)}
	if !isZero(value["Pgoff"]) {
		parts = append(parts, "page "+value["Pgoff"])
	}
	if len(rest) > 0 {
		parts = append(parts, strings.Join(rest, ","))
	}
	return parts
}

func isZero(value string) bool {
	switch value {
	case "0", "0x0", "00", `""`, "[]", "":
		return true
	}
	return strings.Trim(value, "[0x ]") == ""
}
