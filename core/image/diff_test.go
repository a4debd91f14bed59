package image

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// diffed is one task for TestDiff.
type diffed struct {
	vpid  uint32
	time  uint64
	brk   uint64
	pages map[uint64]byte // of the anonymous mapping at 0x10000: a byte that fills it
	fds   []int32
	data  string // behind the last descriptor
	xmm   byte
}

var diffedBefore = diffed{vpid: 100, time: 1, brk: 0x500000, pages: map[uint64]byte{0x10000: 1, 0x11000: 2, 0x13000: 3}, fds: []int32{0, 1}, data: "queued", xmm: 7}

func (x diffed) write(t *testing.T) []byte {
	t.Helper()
	var out bytes.Buffer
	w := NewWriter(&out, table)
	var errs []error
	put := func(parent uint32, rec any) { errs = append(errs, w.Put(parent, rec)) }
	put(0, &Head{Magic: MagicHead, Rev: Revision, Flags: FlagCkpt, Time: x.time})
	put(0, &HeadArch{HasXsave: 1, XstateSize: sampleXstate})
	put(0, &Tree{Tasks: 1})
	errs = append(errs, w.Raw(EncodePIDs([]PIDs{{VPID: int32(x.vpid), VTGID: int32(x.vpid)}})))
	put(0, &Task{CommLen: CommLen})
	put(0, Str{Text: "counter"})
	put(x.vpid, &MM{MapCount: 1, StartBrk: 0x10000, Brk: x.brk})
	put(0, &VMA{Type: VMAAnon, Start: 0x10000, End: 0x20000})
	for addr := uint64(0x10000); addr < 0x20000; addr += PageSize {
		if fill, ok := x.pages[addr]; ok { // each a run of its own: how pages are grouped is no difference
			errs = append(errs, w.Pages([]uint64{addr}, &memory{w: &out, data: bytes.Repeat([]byte{fill}, PageSize)}))
		}
	}
	errs = append(errs, w.EndPages())
	put(0, &MMContext{LDTEntrySize: 8})
	put(x.vpid, &Files{NFDs: uint32(len(x.fds))})
	for _, fd := range x.fds {
		put(0, &FDEntry{ObjRef: uint32(fd) + 1, FD: fd})
		put(uint32(fd)+1, &FDData{Type: FDFile, Pos: 42})
		put(0, &FName{Name: fmt.Sprint("/file", fd)})
	}
	put(0, &Buffer{Data: []byte(x.data)})
	put(x.vpid, &Thread{GDTEntryTLSEntries: 3, SizeofTLSArray: 24})
	put(x.vpid, &CPU{IP: 1, UsedMath: 1})
	errs = append(errs, w.Raw(bytes.Repeat([]byte{x.xmm}, sampleXstate)))
	errs = append(errs, w.Close())
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func diffOf(a, b []byte) (*Difference, error) {
	return Diff(NewReader(NewStreamSource(bytes.NewReader(a)), table), NewReader(NewStreamSource(bytes.NewReader(b)), table))
}

func TestDiff(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*diffed)
		want   []string
	}{
		{"time", func(x *diffed) { x.time = 2 }, nil},
		{"field", func(x *diffed) { x.brk = 0x600000 }, []string{"100 {0 0} MM Brk 0x500000>0x600000"}},
		{"pages", func(x *diffed) { x.pages = map[uint64]byte{0x10000: 1, 0x11000: 9, 0x12000: 4} },
			[]string{"100 [heap] 0x11000-0x14000 changed 1, only 1 and 1"}},
		{"closed", func(x *diffed) { x.fds = []int32{0} }, []string{"100 {0 0} FILES NFDs 2>1", "100 {2 0} BUFFER Data >6 bytes", "100 {2 1} FD_ENT ObjRef 2> FD 1> CloseOnExec 0>"}},
		{"opened", func(x *diffed) { x.fds = []int32{0, 1, 2} }, []string{"100 {0 0} FILES NFDs 2>3", "100 {2 1} BUFFER Data 6 bytes>", "100 {2 2} FD_ENT ObjRef >3 FD >2 CloseOnExec >0"}},
		{"contents of one size", func(x *diffed) { x.data = "quEued" }, []string{"100 {2 1} BUFFER Data 6 bytes>6 bytes"}},
		{"trailer", func(x *diffed) { x.xmm = 8 }, []string{"100 {3 100} CPU trailer 576 bytes>576 bytes"}},
		// A process that came back under another number is the same one.
		{"number", func(x *diffed) { x.vpid = 200 }, []string{"100 {0 0} pids VPID 100>200 VTGID 100>200"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			after := diffedBefore
			test.change(&after)
			d, err := diffOf(diffedBefore.write(t), after.write(t))
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, r := range d.Records {
				line := fmt.Sprintf("%d %v %s", r.Task, r.Item, r.Name)
				for _, f := range r.Fields {
					line += fmt.Sprintf(" %s %s>%s", f.Name, f.A, f.B)
				}
				got = append(got, line)
			}
			for _, p := range d.Pages {
				got = append(got, fmt.Sprintf("%d %s %#x-%#x changed %d, only %d and %d", p.Task, p.Mapping, p.Start, p.End, p.Changed, p.OnlyA, p.OnlyB))
			}
			if !reflect.DeepEqual(got, test.want) {
				t.Errorf("%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(test.want, "\n"))
			}
			if d.Same() != (test.want == nil) {
				t.Errorf("Same is %v", d.Same())
			}
		})
	}
}

// TestDiffTasks: of a task that has ended there is one line, and the others still meet each other.
func TestDiffTasks(t *testing.T) {
	three, two := sample(t, 3, 2), sample(t, 2, 2)
	d, err := diffOf(three, two)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, r := range d.Records {
		names = append(names, r.Name)
	}
	if !reflect.DeepEqual(names, []string{"TASK"}) || len(d.Pages) != 1 || d.Pages[0].OnlyA != 2 || d.Pages[0].Changed+d.Pages[0].OnlyB != 0 {
		t.Errorf("%+v", d)
	}
}

func TestDiffSays(t *testing.T) {
	whole := diffedBefore.write(t)
	for _, test := range []struct {
		a, b []byte
		isB  bool
	}{{whole[:len(whole)-30], whole, false}, {whole, whole[:50], true}, {whole, nil, true}} {
		_, err := diffOf(test.a, test.b)
		var side *SideError
		if !errors.Is(err, ErrTruncated) || !errors.As(err, &side) || side.B != test.isB {
			t.Errorf("%v, of B: %v", err, side != nil && side.B)
		}
	}
}
