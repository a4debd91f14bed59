package shim

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/crshim/crshim/core"
	"github.com/crshim/crshim/core/image"
)

// pages is an image.Mover that writes zeroes with a mark in them.
type pages struct {
	w    io.Writer
	mark byte
}

func (p pages) Move(n int64) error {
	_, err := p.w.Write(bytes.Repeat([]byte{p.mark}, int(n)))
	return err
}

func (p pages) Digest(n int64, h io.Writer) error { return pages{h, p.mark}.Move(n) }

// sampleImage is one task with two mappings and one file, in the order of 2009. change may alter what it says about
// the machine.
func sampleImage(t *testing.T, change func(*image.Machine)) []byte {
	t.Helper()
	var out bytes.Buffer
	w := image.NewWriter(&out, core.Records)
	var errs []error
	put := func(parent uint32, rec any) { errs = append(errs, w.Put(parent, rec)) }
	// What every task must have by rows of ours, without contents.
	required := func(section image.Section) {
		for _, spec := range core.Records.Specs() {
			if spec.Kind.Own() && (spec.Occurs == image.OncePerTask || spec.Occurs == image.OncePerThread) && spec.Section == section {
				put(0, reflect.New(spec.Type).Interface())
			}
		}
	}
	head := image.Head{Magic: image.MagicHead, Major: 6, Minor: 18, Rev: image.Revision, Time: 1796000000, Flags: image.FlagCkpt}
	copy(head.Release[:], "6.18.0")
	put(0, &head)
	here, err := core.ThisMachine()
	if err != nil {
		t.Fatal(err)
	}
	machine := *here
	put(0, &image.HeadArch{HasFXSR: 1, HasXsave: 1, XstateSize: uint16(machine.XsaveSize)})
	if change != nil {
		change(&machine)
	}
	put(0, &machine)
	put(0, &image.Tree{Tasks: 1})
	errs = append(errs, w.Raw(image.EncodePIDs([]image.PIDs{{VPID: 3493, VTGID: 3493, VPPID: 1}})))
	put(0, &image.Task{ExitSignal: 17, CommLen: image.CommLen})
	put(0, image.Str{Text: "counter"})
	required(image.InTask)
	put(3493, &image.MM{MapCount: 2, StartCode: 0x400000, EndCode: 0x401000})
	required(image.InMM)
	put(0, &image.VMA{Type: image.VMAFile, Start: 0x400000, End: 0x403000, Flags: image.VMRead | image.VMExec | image.VMMayRead})
	put(0, &image.FName{Name: "/bin/counter\x1b[31m"})
	errs = append(errs, w.Pages([]uint64{0x400000, 0x401000}, pages{&out, 1}), w.Pages([]uint64{0x402000}, pages{&out, 2}), w.EndPages())
	put(0, &image.VMA{Type: image.VMAAnon, Start: 0x7ff000000000, End: 0x7ff000001000, Flags: image.VMRead | image.VMWrite | image.VMGrowsDown})
	errs = append(errs, w.EndPages())
	put(0, &image.MMContext{LDTEntrySize: 8})
	put(3493, &image.Files{NFDs: 1})
	required(image.InFiles)
	put(0, &image.FDEntry{ObjRef: 1, FD: 3})
	put(1, &image.FDData{Type: image.FDFile, Flags: 0o100002, Pos: 42})
	put(0, &image.FName{Name: "/tmp/out"})
	put(3493, &image.Thread{})
	required(image.InThread)
	put(3493, &image.CPU{IP: 0x400100})
	required(image.InCPU)
	errs = append(errs, w.Close())
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func writeFile(t *testing.T, data []byte) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "img")
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestInspectTree(t *testing.T) {
	img := sampleImage(t, nil)
	status, out, errs := cli("inspect", writeFile(t, img))
	if status != 0 || errs != "" {
		t.Fatalf("status %d, stderr %s", status, errs)
	}
	for _, want := range []string{
		"HEAD Magic=0xfeed0cc0a2d200", "Release=\"6.18.0\"",
		"\n└─ pids VPID=3493 VTGID=3493 VPPID=1\n",
		"├─ MM ",
		"│  ├─ VMA 0x400000-0x403000 r-xp\n",
		"│  │  ├─ FNAME Name=\"/bin/counter",
		"│  │  └─ pages Pages=3 Size=12.0 KiB\n",
		"VMA 0x7ff000000000-0x7ff000001000 rw-p growsdown\n",
		"FD_ENT ObjRef=1 FD=3\n",
		"   └─ FD_DATA Type=1 Flags=0100002 Pos=42\n",
		"      └─ FNAME Name=\"/tmp/out\"\n",
		"\nTAIL ",
		"3 pages (12.0 KiB)", "whole, checksum right",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing", want)
		}
	}
	if t.Failed() {
		t.Log(out)
	}
	if strings.ContainsRune(out, 0x1b) {
		t.Error("an escape sequence of the image reaches the terminal")
	}
}

func TestInspectJSON(t *testing.T) {
	img := sampleImage(t, nil)
	_, out, errs := cli("inspect", "--json", writeFile(t, img))
	var r inspectReport
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatalf("%v; stderr %s", err, errs)
	}
	if r.SchemaVersion != schemaVersion || !r.Whole || r.Error != "" || r.Pages != 3 || r.Page != image.PageSize || r.Size != int64(len(img)) {
		t.Errorf("report %+v", r)
	}
	vmas := 0
	for _, rec := range r.Records {
		if rec.Name == "VMA" {
			vmas++
			if rec.Fields["Start"] == "" || rec.Depth == 0 || rec.Offset == 0 {
				t.Errorf("%+v", rec)
			}
		}
	}
	if vmas != 2 {
		t.Errorf("%d mappings", vmas)
	}
}

// TestInspectPipe reads an image with other bytes behind it, as `./ckpt` leaves them, from a pipe.
func TestInspectPipe(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	img := sampleImage(t, nil)
	go func() {
		w.Write(append(img, "checkpoint id 1\n"...))
		w.Close()
	}()
	var out, errs bytes.Buffer
	root := newRootCommand()
	root.SetIn(r)
	root.SetOut(&out)
	root.SetErr(&errs)
	if status := execute(root, []string{"inspect", "-"}); status != 0 {
		t.Fatalf("status %d: %s", status, errs.String())
	}
	if !strings.Contains(out.String(), "whole, checksum right") {
		t.Error(out.String())
	}
	rest, err := io.ReadAll(r)
	if err != nil || string(rest) != "checkpoint id 1\n" {
		t.Errorf("left in the pipe: %q, %v", rest, err)
	}
}

func TestInspectDamaged(t *testing.T) {
	img := sampleImage(t, nil)
	flipped := bytes.Clone(img)
	flipped[len(flipped)/2] ^= 1 // inside the pages
	for _, test := range []struct {
		name string
		data []byte
		code string
		tree bool // something can be shown
	}{
		{"empty", nil, "CR2002", false},
		{"text", []byte("this is not an image"), "CR2001", false},
		{"cut", img[:len(img)-20], "CR2002", true},
		{"flipped", flipped, "CR2003", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			status, out, errs := cli("inspect", writeFile(t, test.data))
			if status != statusNo || !strings.HasPrefix(errs, "crshim: "+test.code+" ") || !strings.Contains(errs, "\ntry: ") {
				t.Errorf("status %d, stderr %q", status, errs)
			}
			if shown := strings.Contains(out, "NOT whole"); shown != test.tree {
				t.Errorf("stdout %q", out)
			}
		})
	}
	if status, _, errs := cli("inspect", filepath.Join(t.TempDir(), "none")); status != statusNo || !strings.Contains(errs, "no such file") {
		t.Errorf("status %d, stderr %q", status, errs)
	}
}

func TestBranches(t *testing.T) {
	var rows []inspected
	for _, depth := range []int{0, 1, 2, 2, 1, 0, 1, 2, 0} {
		rows = append(rows, inspected{Depth: depth})
	}
	want := []string{"", "├─ ", "│  ├─ ", "│  └─ ", "└─ ", "", "└─ ", "   └─ ", ""}
	for i, got := range branches(rows) {
		if got != want[i] {
			t.Errorf("row %d: %q, want %q", i, got, want[i])
		}
	}
}

func TestByteSize(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 12288: "12.0 KiB", 1 << 20: "1.0 MiB", 5 << 30: "5.0 GiB"} {
		if got := byteSize(n); got != want {
			t.Errorf("byteSize(%d) = %q, want %q", n, got, want)
		}
	}
}

// The processes of a tree are listed with their names, which stand elsewhere in the image.
func TestInspectListsProcesses(t *testing.T) {
	var v inspection
	ended := image.Process{VPID: 9, VPPID: 7, VPgrp: 7, VSession: 1, State: image.ProcessEnded, ExitCode: 5 << 8}
	copy(ended.Name[:], "gone")
	for _, rec := range []any{
		&image.Process{VPID: 7, VPgrp: 7, VSession: 1}, &image.Process{VPID: 8, VPPID: 7, VPgrp: 8, VSession: 1}, &ended,
		&image.Task{}, &image.Str{Text: "sh"}, &image.Str{Text: "no name"}, &image.Task{}, &image.Str{Text: "cat\x1b"},
	} {
		v.addProcess(rec)
	}
	var out strings.Builder
	if err := v.writeProcesses(&out); err != nil {
		t.Fatal(err)
	}
	want := `processes:
  PID  PARENT  GROUP  SESSION  STATE         NAME
  7    0       7      1        lives         sh
  8    7       8      1        lives         cat?
  9    7       7      1        ended with 5  gone
`
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}
