package shim

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/crshim/crshim/core/image"
)

func TestDiffSame(t *testing.T) {
	a := writeFile(t, sampleImage(t, nil))
	if status, out, errs := cli("diff", a, a); status != 0 || out+errs != "" {
		t.Errorf("status %d, %q, %q", status, out, errs)
	}
	status, out, _ := cli("diff", "--json", a, a)
	var r diffReport
	if err := json.Unmarshal([]byte(out), &r); err != nil || status != 0 || !r.Same || r.SchemaVersion != schemaVersion || r.Records == nil || r.Pages == nil {
		t.Errorf("status %d, %v, %s", status, err, out)
	}
}

func TestDiffDiffers(t *testing.T) {
	img := sampleImage(t, nil)
	a, b := writeFile(t, img), writeFile(t, sampleImage(t, func(m *image.Machine) { m.VdsoSize, m.Arch[0] = 12288, 0x1b }))
	status, out, errs := cli("diff", a, b)
	if status != statusNo || errs != "" || !strings.Contains(out, "MACHINE VdsoSize: 8192 -> 12288 Arch: ") || !strings.HasSuffix(out, "1 records and 0 pages differ\n") {
		t.Errorf("status %d, %q, %q", status, out, errs)
	}
	if strings.ContainsRune(out, 0x1b) {
		t.Error("an escape sequence of the image reaches the terminal")
	}
	status, out, _ = cli("diff", "--json", a, b)
	var r diffReport
	if err := json.Unmarshal([]byte(out), &r); err != nil || status != statusNo || r.Same || len(r.Records) != 1 {
		t.Fatalf("status %d, %v, %s", status, err, out)
	}
	if got := r.Records[0]; got.Change != "changed" || got.Name != "MACHINE" || !slices.Contains(got.Fields, diffField{"VdsoSize", "8192", "12288"}) {
		t.Errorf("%+v", got)
	}
}

func TestDiffTrouble(t *testing.T) {
	img := sampleImage(t, nil)
	whole := writeFile(t, img)
	for _, test := range []struct {
		args []string
		says string
	}{
		{[]string{whole, writeFile(t, img[:len(img)-20])}, "CR2002"},
		{[]string{writeFile(t, []byte("this is not an image")), whole}, "CR2001"},
		{[]string{whole, filepath.Join(t.TempDir(), "none")}, "no such file"},
		{[]string{"-", "-"}, "only one"},
		{[]string{whole}, "2 arg"},
	} {
		status, out, errs := cli(append([]string{"diff"}, test.args...)...)
		if status != statusUsage || out != "" || !strings.Contains(errs, test.says) {
			t.Errorf("diff %v: status %d, %q, %q", test.args, status, out, errs)
		}
	}
}

// TestDiffPipe reads one of the images from a pipe.
func TestDiffPipe(t *testing.T) {
	img := sampleImage(t, nil)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	go func() {
		w.Write(img)
		w.Close()
	}()
	var out, errs bytes.Buffer
	root := newRootCommand()
	root.SetIn(r)
	root.SetOut(&out)
	root.SetErr(&errs)
	if status := execute(root, []string{"diff", "-", writeFile(t, img)}); status != 0 {
		t.Errorf("status %d: %s%s", status, out.String(), errs.String())
	}
}

func TestRecordLine(t *testing.T) {
	long := strings.Repeat("x", 200)
	for _, test := range []struct {
		change image.RecordChange
		want   string
	}{
		{image.RecordChange{Name: "FD_ENT", InA: true, Fields: []image.FieldChange{{Name: "FD", A: "0"}, {Name: "CloseOnExec", A: "0"}}}, "FD_ENT FD=0"},
		{image.RecordChange{Name: "BUFFER", InA: true, InB: true, Fields: []image.FieldChange{{Name: "Data", A: "6 bytes", B: "6 bytes"}}}, "BUFFER Data: other contents, 6 bytes"},
		{image.RecordChange{Name: "S", InA: true, InB: true, Fields: []image.FieldChange{{Name: "W", A: long + "a", B: long + "b"}}}, "S W: ...xxxxxxxxxxa -> ...xxxxxxxxxxb"},
		{image.RecordChange{Name: "VMA", InB: true, Fields: []image.FieldChange{{Name: "Start", B: "0x1000"}, {Name: "End", B: "0x2000"}, {Name: "Flags", B: "READ|WRITE"}}}, "VMA 0x1000-0x2000 rw-p"},
	} {
		if got := recordLine(test.change); got != test.want {
			t.Errorf("%q, want %q", got, test.want)
		}
	}
}
