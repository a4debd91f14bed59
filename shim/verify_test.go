package shim

import (
	"bytes"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/crshim/crshim/core/image"
)

func verifyHere(t *testing.T, img []byte, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	return cli(append(append([]string{"verify"}, args...), writeFile(t, img))...)
}

func TestVerifyNamesMissingFiles(t *testing.T) {
	status, out, errs := verifyHere(t, sampleImage(t, nil))
	if status != statusNo || !strings.Contains(errs, "crshim: CR2101 ") || !strings.Contains(errs, "/bin/counter") {
		t.Errorf("status %d, stderr %q", status, errs)
	}
	for _, want := range []string{"yes  structure and checksum", "yes  machine", "no   files"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing from:\n%s", want, out)
		}
	}
}

func TestVerifyMachine(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*image.Machine)
		code   string
	}{
		{"architecture", func(m *image.Machine) { m.Arch = [16]byte{'v', 'a', 'x'} }, "CR2005"},
		{"xsave", func(m *image.Machine) { m.XFeatures |= 1 << 62 }, "CR2006"},
		{"page size", func(m *image.Machine) { m.PageSize = 65536 }, "CR2007"},
		{"vdso", func(m *image.Machine) { m.VdsoSize, m.VdsoSum = m.VdsoSize+4096, m.VdsoSum^1 }, "CR2008"},
		{"profile", func(m *image.Machine) { m.CallProfile = 23 }, "CR2014"},
		{"none", nil, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			var v inspection
			img := sampleImage(t, nil)
			if err := readImage(writeFile(t, img), nil, &v); err != nil {
				t.Fatal(err)
			}
			if test.change != nil {
				test.change(v.Machine)
			}
			checks, faults := v.verify()
			if machine := checks[1]; machine.Name != "machine" || machine.OK != (test.code == "") || machine.Code != test.code {
				t.Errorf("%+v", machine)
			}
			if test.code != "" && (len(faults) == 0 || faults[0].Code.String() != test.code) {
				t.Errorf("faults: %v", faults)
			}
		})
	}
}

func TestVerifyDamagedAndJSON(t *testing.T) {
	img := bytes.Clone(sampleImage(t, nil))
	img[len(img)-30] ^= 1
	status, out, _ := verifyHere(t, img, "--json")
	var r verifyReport
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatal(err)
	}
	if status != statusNo || r.OK || len(r.Checks) != 1 || r.Checks[0].OK || r.SchemaVersion != schemaVersion {
		t.Errorf("status %d, %+v", status, r)
	}
}

func TestVerifyYes(t *testing.T) {
	var v inspection
	if err := readImage(writeFile(t, sampleImage(t, nil)), nil, &v); err != nil {
		t.Fatal(err)
	}
	v.Records = slices.DeleteFunc(v.Records, func(rec inspected) bool { return rec.Kind == image.KindFName })
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	v.Records = append(v.Records, inspected{Name: "FNAME", Kind: image.KindFName, Fields: image.Fields(&image.FName{Name: self})})
	if checks, faults := v.verify(); len(faults) > 0 {
		t.Errorf("%v: %v", faults, checks)
	}
}
