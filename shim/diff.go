package shim

import (
	"errors"
	"io"

	"github.com/spf13/cobra"

	"github.com/crshim/crshim/core"
	"github.com/crshim/crshim/core/image"
)

func newDiffCommand() *cobra.Command {
	asJSON := false
	cmd := &cobra.Command{
		Use:   "diff A B",
		Short: "Show what differs between two images",
		Long: `Compare two images: which records differ, by task, mapping, descriptor and thread, and which pages of memory. When
they were written does not count. Tasks belong together if they have the same process id or, if no two have, by order.

A and B are files; one of them may be - for standard input. Both are read once, side by side, and not kept in memory.`,
		Example: "  crshim diff monday.img tuesday.img\n  ssh host cat img | crshim diff --json img -",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if args[0] == toStdout && args[1] == toStdout {
				return usageError{cmd: cmd, err: errors.New("only one of the images can be standard input")}
			}
			d, err := diffImages(args[0], args[1], cmd.InOrStdin())
			if err != nil {
				return err
			}
			if asJSON {
				err = writeJSON(cmd.OutOrStdout(), diffJSON(d))
			} else {
				err = writeDiff(cmd.OutOrStdout(), d)
			}
			if err == nil && !d.Same() {
				err = endWith(statusNo)
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return asComparison(cmd)
}

// diffImages compares the images that two words of the command line name.
func diffImages(a, b string, stdin io.Reader) (d *image.Difference, err error) {
	var readers [2]*image.Reader
	names := [2]string{a, b}
	for i, name := range names {
		src, shut, err := imageSource(name, stdin)
		if err != nil {
			return nil, err
		}
		defer shut()
		r := image.NewReader(src, core.Records)
		r.KeepUnknown = true
		readers[i] = r
	}
	d, err = image.Diff(readers[0], readers[1])
	var side *image.SideError
	switch {
	case errors.As(err, &side) && side.B:
		err = imageFault(b, side.Err)
	case errors.As(err, &side):
		err = imageFault(a, side.Err)
	}
	return d, errors.Join(err, readers[0].Close(), readers[1].Close())
}
