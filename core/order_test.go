package core

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/crshim/crshim/core/image"
)

// order2009 is the order in which the code of 2009 wrote the records of one
// task (checkpoint/checkpoint.c and ckpt_mem.c, ckpt_file.c of v13).
var order2009 = regexp.MustCompile(`^HEAD HEAD_ARCH TREE TASK STRING ` +
	`MM (VMA (FNAME )?(PGARR )+)+MM_CONTEXT ` +
	`FILES (FD_ENT (FD_DATA FNAME )?)*` +
	`THREAD CPU TAIL $`)

// Without our own kinds, an image is one of 2009.
func TestOrderOf2009(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	pid := start(t, build(t, counter), out)
	waitLines(t, out, 3)
	img, err := os.Create(filepath.Join(t.TempDir(), "image"))
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	var engine Engine
	if _, err := engine.Checkpoint(CheckpointRequest{PID: pid, Target: pid, Out: img, OutFD: -1}); err != nil {
		t.Fatal(err)
	}
	if _, err := img.Seek(0, 0); err != nil {
		t.Fatal(err)
	}
	source, err := image.OpenSource(img)
	if err != nil {
		t.Fatal(err)
	}
	var kinds strings.Builder
	if err := image.Walk(image.NewReader(source, Records), func(_ int, rec *image.Record) error {
		if !rec.Kind.Own() {
			kinds.WriteString(rec.Name() + " ")
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if !order2009.MatchString(kinds.String()) {
		t.Errorf("order is not that of 2009: %s", kinds.String())
	}
}
