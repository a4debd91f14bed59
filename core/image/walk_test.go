package image

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestWalkDepths(t *testing.T) {
	var tree []string
	r := NewReader(NewStreamSource(bytes.NewReader(sample(t, 1, 2))), table)
	err := Walk(r, func(depth int, rec *Record) error {
		line := strings.Repeat("  ", depth) + rec.Name()
		if rec.Trailer > 0 {
			line += fmt.Sprintf(" +%d", rec.Trailer)
		}
		tree = append(tree, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"HEAD", "HEAD_ARCH", "MACHINE", "TREE +16",
		"TASK", "  STRING",
		"  MM", "    VMA", "      FNAME", "      PGARR +8208", "      PGARR", "    VMA", "      PGARR", "    MM_CONTEXT",
		"  FILES", "    FD_ENT", "    FD_DATA", "      FNAME", "    FD_ENT",
		"  THREAD", "  CPU +576",
		"SUM", "TAIL",
	}
	if !slices.Equal(tree, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(tree, "\n"), strings.Join(want, "\n"))
	}
}

func TestWalkEndsWithTheErrorOfItsFunction(t *testing.T) {
	stop := errors.New("stop")
	calls := 0
	err := Walk(NewReader(NewStreamSource(bytes.NewReader(sample(t, 1))), table), func(int, *Record) error {
		calls++
		return stop
	})
	if err != stop || calls != 1 {
		t.Errorf("%d calls, %v", calls, err)
	}
}

func TestFields(t *testing.T) {
	head := Head{Magic: 0x10, Major: 6, Time: 1234567890}
	copy(head.Release[:], "6.18.0")
	for i := range head.Machine {
		head.Machine[i] = 'm' // no NUL
	}
	for _, tt := range []struct {
		rec  any
		want []Field
	}{
		{&VMA{Type: 2, Start: 0x400000, Flags: VMRead | VMExec | VMMergeable | 1<<40}, []Field{
			{"Type", "2"}, {"Start", "0x400000"}, {"End", "0x0"}, {"PageProt", "0x0"},
			{"Flags", "READ|EXEC|MERGEABLE|0x10000000000"}, {"Pgoff", "0x0"},
		}},
		{VMA{}, []Field{
			{"Type", "0"}, {"Start", "0x0"}, {"End", "0x0"}, {"PageProt", "0x0"}, {"Flags", "0x0"}, {"Pgoff", "0x0"},
		}},
		{head, []Field{
			{"Magic", "0x10"}, {"Major", "6"}, {"Minor", "0"}, {"Patch", "0"}, {"Rev", "0"},
			{"Time", "2009-02-13T23:31:30Z"}, {"Flags", "0x0"}, {"Release", `"6.18.0"`}, {"Version", `""`},
			{"Machine", `"` + strings.Repeat("m", 64) + `"`},
		}},
		{&Head{Time: 1 << 63}, nil},
		{FDData{Flags: 0o100002, Mode: 0xf}, []Field{
			{"Type", "0"}, {"Mode", "0xf"}, {"Flags", "0100002"}, {"Pos", "0"}, {"Version", "0"},
		}},
		{&Buffer{Data: []byte{1, 2}}, []Field{{"Data", "2 bytes"}}},
		{FName{Name: "/a \n"}, []Field{{"Name", `"/a \n"`}}},
		{Thread{NTLS: -1}, []Field{{"GDTEntryTLSEntries", "0"}, {"SizeofTLSArray", "0"}, {"NTLS", "-1"}}},
		{entries{Flags: 9, List: []entry{{Start: 1, Low: -2}}}, []Field{{"Flags", "A|D"}, {"List", "[{Start=1 End=0 Low=-2}]"}}},
		{numbers{List: []uint32{1, 2}}, []Field{{"List", "[1 2]"}}},
		{7, nil},
		{nil, nil},
	} {
		got := Fields(tt.rec)
		if _, ok := tt.rec.(*Head); ok {
			if got[5] != (Field{"Time", "9223372036854775808"}) {
				t.Errorf("a time beyond the calendar is %v", got[5])
			}
			continue
		}
		if !reflect.DeepEqual(got, tt.want) {
			t.Errorf("Fields(%+v)\ngot  %v\nwant %v", tt.rec, got, tt.want)
		}
	}
}

// The names in the tag are those of the constants.
func TestVMFlagNames(t *testing.T) {
	for bit, want := range map[uint64]string{
		VMRead: "READ", VMWrite: "WRITE", VMExec: "EXEC", VMShared: "SHARED", VMMayRead: "MAYREAD", VMMayWrite: "MAYWRITE",
		VMMayExec: "MAYEXEC", VMMayShare: "MAYSHARE", VMGrowsDown: "GROWSDOWN", VMUffdMissing: "UFFD_MISSING", VMPFNMap: "PFNMAP",
		VMDenyWrite: "DENYWRITE", VMUffdWP: "UFFD_WP", VMLocked: "LOCKED", VMIO: "IO", VMSeqRead: "SEQ_READ", VMRandRead: "RAND_READ",
		VMDontCopy: "DONTCOPY", VMDontExpand: "DONTEXPAND", VMLockOnFault: "LOCKONFAULT", VMAccount: "ACCOUNT",
		VMNoReserve: "NORESERVE", VMHugeTLB: "HUGETLB", VMSync: "SYNC", VMWipeOnFork: "WIPEONFORK", VMDontDump: "DONTDUMP",
		VMSoftDirty: "SOFTDIRTY", VMMixedMap: "MIXEDMAP", VMHugePage: "HUGEPAGE", VMNoHugePage: "NOHUGEPAGE", VMMergeable: "MERGEABLE", VMSealed: "SEALED",
	} {
		if got := Fields(VMA{Flags: bit})[4].Value; got != want {
			t.Errorf("%#x is called %s, want %s", bit, got, want)
		}
	}
}
