package image

import (
	"slices"
	"strings"
	"testing"
)

// A single task is written in the order of 2009, with MACHINE, PAD and SUM
// added.
func TestOrderOfASingleTask(t *testing.T) {
	got, err := names(sample(t, 1, 3, 20))
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Fields(`HEAD HEAD_ARCH MACHINE TREE TASK STRING
		MM VMA FNAME PGARR PGARR PGARR VMA PGARR MM_CONTEXT
		FILES FD_ENT FD_DATA FNAME FD_ENT THREAD CPU SUM TAIL`)
	if !slices.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}
