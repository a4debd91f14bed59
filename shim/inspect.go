package shim

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/crshim/crshim/core"
	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/core/resource"
)

func newInspectCommand() *cobra.Command {
	asJSON := false
	cmd := &cobra.Command{
		Use:   "inspect IMAGE",
		Short: "Show what is in an image",
		Long: `Show the records of an image as a tree, with the contents of memory summed up, and behind it its processes, if it has
several, and the descriptors that lead out of it, with what a restart does about each. IMAGE is a file, or - for standard
input; it is read once, from front to back. What can be read of a damaged image is shown before the error.`,
		Example: "  crshim inspect img\n  ssh host cat img | crshim inspect --json -",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var v inspection
			err := readImage(args[0], cmd.InOrStdin(), &v)
			var writeErr error
			switch {
			case v.Records == nil: // not one record: there is nothing to show but the error
			case asJSON:
				writeErr = writeJSON(cmd.OutOrStdout(), v.json(err))
			default:
				writeErr = errors.Join(v.writeTree(cmd.OutOrStdout()), v.writeProcesses(cmd.OutOrStdout()), v.writeOutside(cmd.OutOrStdout()))
			}
			return errors.Join(err, writeErr)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return cmd
}

// inspection is an image as inspect and verify see it.
type inspection struct {
	Records []inspected
	FPU     *image.HeadArch
	Machine *image.Machine // nil if the image says nothing about it, as that of 2009
	Pages   uint64         // whose contents are in the image
	Size    int64          // bytes from HEAD to TAIL, or to where reading ended
	Whole   bool           // TAIL was reached and the checksum is right

	Outwards resource.Outwards // descriptors that lead out of it

	Processes []processRow // of a tree; none if there is one process

	named      int  // how many of them have their names
	awaitsName bool // the next record is one

	pageSize int64
	run      uint64 // pages met since the last mapping
	item     int    // depth of the mapping or descriptor that records now belong to, 0 if none
	last     int    // depth of the last record with a place of its own
}

// inspected is one record, or the pages of one mapping taken together.
type inspected struct {
	Depth   int
	Name    string
	Kind    image.Kind
	Offset  int64
	Parent  uint32
	Fields  []image.Field
	Trailer int64 // raw bytes behind it
}

// readImage reads the whole image that name says into v, with what is known up to an error.
func readImage(name string, stdin io.Reader, v *inspection) error {
	src, shut, err := imageSource(name, stdin)
	if err != nil {
		return err
	}
	defer shut()
	r := image.NewReader(src, core.Records)
	r.KeepUnknown = true
	start := src.Offset()
	err = image.Walk(r, func(depth int, rec *image.Record) error { return v.add(r, depth, rec) })
	v.Size = src.Offset() - start
	v.Whole = err == nil
	return errors.Join(imageFault(name, err), r.Close())
}

// imageSource opens an image by its name on the command line.
func imageSource(name string, stdin io.Reader) (src image.Source, shut func(), err error) {
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, nil, err
		}
		src, err := image.OpenSource(f)
		return src, func() { f.Close() }, err
	}
	f, isFile := stdin.(*os.File)
	if !isFile {
		return image.NewStreamSource(stdin), func() {}, nil
	}
	if term.IsTerminal(int(f.Fd())) {
		return nil, nil, errors.New("standard input is a terminal: give the name of an image, or redirect one")
	}
	src, err = image.OpenSource(f)
	return src, func() {}, err
}

// imageFault gives an error of reading its code. An ERROR record that the writer left keeps the writer's text.
func imageFault(name string, err error) error {
	if err == nil {
		return nil
	}
	if name == "-" {
		name = "standard input"
	}
	f := &fault.Error{Code: fault.ImageRead, Object: name, Err: err}
	var remote *image.RemoteError
	switch {
	case errors.Is(err, image.ErrTruncated):
		f.Code = fault.ImageEnded
	case errors.As(err, &remote):
		f.Code = fault.ImageRemote
	case errors.Is(err, image.ErrSum):
		f.Code = fault.ImageSum
	case errors.Is(err, image.ErrUnknown):
		f.Code = fault.ImageRecord
	case errors.Is(err, image.ErrFormat):
		f.Code = fault.ImageFormat
	}
	return f
}

// add takes one record. Runs of pages become one line for each mapping, which the empty run at their end closes.
func (v *inspection) add(r *image.Reader, depth int, rec *image.Record) error {
	depth = v.place(depth, rec)
	v.Outwards.Add(rec.Parent, rec.Value)
	v.addProcess(rec.Value)
	row := inspected{Depth: depth, Name: rec.Name(), Kind: rec.Kind, Offset: rec.Offset, Parent: rec.Parent, Fields: image.Fields(rec.Value), Trailer: rec.Trailer}
	switch value := rec.Value.(type) {
	case *image.HeadArch:
		v.FPU = value
	case *image.Machine:
		v.Machine = value
	case *image.PageArray:
		v.run += value.Pages
		v.Pages += value.Pages
		if value.Pages > 0 || v.run == 0 {
			return nil
		}
		row.Name = "pages"
		row.Fields = []image.Field{{Name: "Pages", Value: fmt.Sprint(v.run)}, {Name: "Size", Value: byteSize(int64(v.run) * r.PageSize())}}
		v.run = 0
	}
	v.pageSize = r.PageSize()
	v.Records = append(v.Records, row)
	if tree, ok := rec.Value.(*image.Tree); ok {
		return v.addTasks(r, depth+1, rec, tree)
	}
	return nil
}

// place moves what belongs to one mapping or descriptor below it.
func (v *inspection) place(depth int, rec *image.Record) int {
	if rec.Spec == nil {
		return depth
	}
	section := rec.Spec.Section
	switch {
	case rec.Kind == image.KindVMA || rec.Kind == image.KindFDEntry:
		v.item = depth
	case rec.Kind == image.KindPageArray && v.item > 0:
		return v.item + 1
	case section == image.Anywhere:
		return v.last + 1
	case rec.Spec.Opens || rec.Kind == image.KindMMContext || section != image.InMM && section != image.InFiles:
		v.item = 0
	case v.item > 0:
		depth = v.item + 1
	}
	v.last = depth
	return depth
}

// addTasks shows the process ids behind TREE.
func (v *inspection) addTasks(r *image.Reader, depth int, rec *image.Record, tree *image.Tree) error {
	raw, err := r.Raw(int(rec.Trailer))
	if err != nil {
		return err
	}
	pids, err := image.DecodePIDs(raw)
	if err != nil {
		return fmt.Errorf("decode the %d process ids of TREE: %w", tree.Tasks, err)
	}
	for _, p := range pids {
		v.Records = append(v.Records, inspected{Depth: depth, Name: "pids", Kind: rec.Kind, Offset: rec.Offset, Fields: image.Fields(&p)})
	}
	return nil
}

// byteSize is a number of bytes in the largest unit of 1024 that leaves a whole digit before the point.
func byteSize(n int64) string {
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	size, unit := float64(n), -1
	for size >= 1024 {
		size, unit = size/1024, unit+1
	}
	return fmt.Sprintf("%.1f %ciB", size, "KMGTPE"[unit])
}
