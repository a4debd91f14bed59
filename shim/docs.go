package shim

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/crshim/crshim/core"
	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
)

// generated lists the pages of docs/ that are printed from tables in the code.
var generated = []struct {
	name  string
	write func(io.Writer) error
}{
	{"errors.md", fault.WriteDoc},
	{"support.md", writeSupport},
	{"image-format.md", func(w io.Writer) error { return image.WriteDoc(w, core.Records) }},
}

// newDocsCommand writes the generated pages. It is hidden: it serves `make generate`, not the users of crshim.
func newDocsCommand() *cobra.Command {
	check := false
	cmd := &cobra.Command{
		Use:    "docs DIR",
		Short:  "Write the generated pages of the documentation",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			for _, page := range generated {
				var text bytes.Buffer
				if err := page.write(&text); err != nil {
					return fmt.Errorf("generate %s: %w", page.name, err)
				}
				path := filepath.Join(args[0], page.name)
				if !check {
					if err := os.WriteFile(path, text.Bytes(), 0o644); err != nil {
						return err
					}
					continue
				}
				old, err := os.ReadFile(path)
				if err != nil {
					return err
				}
				if !bytes.Equal(old, text.Bytes()) {
					return fmt.Errorf("%s is out of date: run `make generate`", path)
				}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&check, "check", false, "write nothing, fail if a page is out of date")
	return cmd
}
