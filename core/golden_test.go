package core

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/crshim/crshim/core/image"
)

var update = flag.Bool("update", false, "write what the golden images are read as")

// Images of every released format version are read for ever, and mean the
// same for ever. They were written by real checkpoints; restarting them takes
// the kernel that they came from.
func TestGoldenImages(t *testing.T) {
	images, err := filepath.Glob("../tests/testdata/images/*/*.img")
	if err != nil || len(images) == 0 {
		t.Fatalf("no golden images: %v", err)
	}
	for _, path := range images {
		t.Run(filepath.Base(filepath.Dir(path)), func(t *testing.T) {
			f, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			source, err := image.OpenSource(f)
			if err != nil {
				t.Fatal(err)
			}
			var b strings.Builder
			err = image.Walk(image.NewReader(source, Records), func(depth int, rec *image.Record) error {
				fmt.Fprintf(&b, "%s%s parent %d", strings.Repeat("  ", depth), rec.Name(), rec.Parent)
				for _, field := range image.Fields(rec.Value) {
					fmt.Fprintf(&b, " %s=%s", field.Name, field.Value)
				}
				b.WriteByte('\n')
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			golden := strings.TrimSuffix(path, ".img") + ".txt"
			if *update {
				if err := os.WriteFile(golden, []byte(b.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), b.String()); diff != "" {
				t.Errorf("read differently than before (-before +now):\n%s", diff)
			}
		})
	}
}
