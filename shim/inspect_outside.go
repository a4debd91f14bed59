package shim

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/crshim/crshim/core/resource"
)

// outsideRow is a descriptor that leads out of an image, in the reports of inspect and verify.
type outsideRow struct {
	Task     uint32   `json:"task"`
	FD       int32    `json:"fd"`
	What     string   `json:"what"`
	Access   string   `json:"access"`
	Name     string   `json:"name"`
	Restart  string   `json:"restart"`            // what becomes of it, in words
	Standard *int32   `json:"standard,omitempty"` // the restarter's descriptor that takes its place
	With     *int32   `json:"with,omitempty"`     // the descriptor that decides for this one, too
	Say      []string `json:"say_fd,omitempty"`   // words for --fd, which has to say one of them or a path
	Keep     bool     `json:"may_keep,omitempty"` // --tcp keep keeps it
}

// outside is what leads out of the image, with a text for --json.
func (v *inspection) outside() []outsideRow {
	rows := []outsideRow{}
	for _, w := range v.Outwards.List {
		row := outsideRow{Task: w.Task, FD: w.FD, What: w.What, Access: w.Access, Name: w.Name, Restart: w.Decision(), Say: w.Say, Keep: w.Keep && w.With < 0}
		switch {
		case w.With >= 0:
			row.With = &w.With
		case w.Standard >= 0:
			row.Standard = &w.Standard
		}
		rows = append(rows, row)
	}
	return rows
}

// writeOutside prints what leads out of the image, and what the restarter has to say about it.
func (v *inspection) writeOutside(w io.Writer) error {
	list := v.Outwards.List
	if len(list) == 0 {
		return nil
	}
	out := bufio.NewWriter(w)
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(out, "leads outside:")
	fmt.Fprintln(table, "  TASK\tFD\tWHAT\tTO\tNAME\tAT THE RESTART")
	for i := range list {
		o := &list[i]
		fmt.Fprintf(table, "  %d\t%d\t%s\t%s\t%s\t%s\n", o.Task, o.FD, o.What, o.Access, escape(shorten(o.Name)), o.Decision())
	}
	if err := table.Flush(); err != nil {
		return err
	}
	said := map[int32]bool{}
	for i := range list {
		if o := &list[i]; len(o.Say) > 0 && !said[o.FD] {
			said[o.FD] = true
			fmt.Fprintf(out, "  crshim restart --fd %d=%s|PATH\n", o.FD, strings.Join(o.Say, "|"))
		}
	}
	return out.Flush()
}

// needed is how many descriptors --fd has to say something of.
func needed(list []resource.Outward) (n int) {
	for _, w := range list {
		if len(w.Say) > 0 {
			n++
		}
	}
	return n
}
