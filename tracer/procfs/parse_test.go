package procfs

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// same fails unless parse makes want of data.
func same[T any](t *testing.T, parse func([]byte) (T, error), data string, want T) {
	t.Helper()
	got, err := parse([]byte(data))
	if err != nil {
		t.Fatalf("parse %q: %v", data, err)
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(fdinfo{}, execStart{})); diff != "" {
		t.Errorf("parse %q (-want +got):\n%s", data, diff)
	}
}

// refused fails unless parse calls each of the texts malformed.
func refused[T any](t *testing.T, parse func([]byte) (T, error), texts ...string) {
	t.Helper()
	for _, text := range texts {
		if v, err := parse([]byte(text)); !errors.Is(err, ErrFormat) {
			t.Errorf("parse %q = %+v, %v; want ErrFormat", text, v, err)
		}
	}
}

func TestParseStatus(t *testing.T) {
	got, err := parseStatus([]byte(sampleStatus))
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"Name", "Umask", "VmSwap", "Cpus_allowed"} {
		if !got.Has(key) {
			t.Errorf("Has(%q) = false", key)
		}
	}
	if got.Has("Zmask") {
		t.Error(`Has("Zmask") = true`)
	}
	got.seen = nil
	want := &Status{
		Name: "a\nb\\c d ", Umask: 0o22, State: 't', Tgid: 7306, Pid: 7307, PPid: 7304, TracerPid: 99,
		Uid: [4]uint32{1000, 1001, 1002, 1003}, Gid: [4]uint32{4294967294, 2001, 2002, 2003},
		FDSize: 256, Groups: []uint32{4, 24, 1000},
		NStgid: []PID{7306, 5, 1}, NSpid: []PID{7307, 6, 2}, NSpgid: []PID{7304, 0, 0}, NSsid: []PID{5094, 0, 0},
		VmPeak: 3060 << 10, VmSize: 3056 << 10, VmLck: 4 << 10, VmPin: 8 << 10, VmHWM: 1616 << 10,
		VmRSS: 1612 << 10, RssAnon: 112 << 10, RssFile: 1500 << 10, VmData: 360 << 10, VmStk: 132 << 10,
		VmExe: 20 << 10, VmLib: 1528 << 10, VmPTE: 40 << 10, VmSwap: 12 << 10, HugetlbPages: 2048 << 10,
		THPEnabled: true, UntagMask: 1<<64 - 1, Threads: 3, SigQ: 2, SigQMax: 96365,
		SigPnd: 1, ShdPnd: 0x200, SigBlk: 0x7fffffff00000000, SigIgn: 0x1000, SigCgt: 0x1800004ec,
		CapPrm: 0x1fffeffffff, CapEff: 0x1fffeffffff, CapBnd: 0x1fffeffffff, CapAmb: 2,
		NoNewPrivs: true, Seccomp: 2, SeccompFilters: 1,
		SpeculationStoreBypass: "thread vulnerable", SpeculationIndirectBranch: "conditional enabled",
		CpusAllowedList: "0-1", MemsAllowedList: "0", VoluntarySwitches: 17, NonvoluntarySwitches: 4,
		Extra: []Field{
			{"Cpus_allowed", "3"}, {"Mems_allowed", "00000000,00000001"},
			{"x86_Thread_features", ""}, {"x86_Thread_features_locked", ""},
		},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(Status{})); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestParseStatusOfZombie(t *testing.T) {
	got, err := parseStatus([]byte(sampleZombie))
	if err != nil {
		t.Fatal(err)
	}
	if got.State != 'Z' || got.Has("Umask") || got.Has("VmRSS") || !got.Has("Groups") || got.Groups != nil {
		t.Errorf("zombie parsed as %+v", got)
	}
}

func TestParseStatusRefuses(t *testing.T) {
	change := func(old, new string) string {
		if !strings.Contains(sampleZombie, old) {
			t.Fatalf("the sample has no %q", old)
		}
		return strings.Replace(sampleZombie, old, new, 1)
	}
	refused(t, parseStatus, "", "\n", "Name", ":\tx\n",
		change("Pid:\t12\n", ""), change("State:\tZ (zombie)", "State:\t"),
		change("Pid:\t12\n", "Pid:\t12\nPid:\t13\n"), change("PPid:\t1", "PPid:\t2147483648"),
		change("Uid:\t0\t0\t0\t0", "Uid:\t0\t0\t0"), change("Uid:\t0", "Uid:\t4294967296"),
		change("SigQ:\t0/", "SigQ:\t0 "), change("FDSize:\t0", "FDSize:\t-1"),
		change("Groups:\t", "Groups:\tx"), sampleZombie+"VmRSS:\t12 MB\n",
		sampleZombie+"VmRSS:\t18014398509481984 kB\n", sampleZombie+"Kthread:\t2\n",
		sampleZombie+"untag_mask:\tff\n", sampleZombie+"CapInh:\t10000000000000000\n")
}

func TestParseStat(t *testing.T) {
	same(t, parseStat, sampleStat, &Stat{
		PID: 7307, Comm: "a) R 1 (\nb", State: 't', PPid: 7304, Pgrp: 7304, Session: 5094, TTY: 34816, TPgid: -1,
		Flags: 4194304, MinFlt: 99, MajFlt: 2, UTime: 4, STime: 5, Priority: -51, Nice: -5, NumThreads: 3,
		StartTime: 138825, VSize: 3133440, RSS: 360, RSSLim: Unlimited,
		StartCode: 94825649373184, EndCode: 94825649393065, StartStack: 140728682248848,
		ExitSignal: 17, Processor: 1, RTPriority: 9, Policy: 2,
		StartData: 94825649409072, EndData: 94825649410688, StartBrk: 94826400800768,
		ArgStart: 140728682257091, ArgEnd: 140728682257111, EnvStart: 140728682257112, EnvEnd: 140728682258411,
		ExitCode: 256,
	})
	refused(t, parseStat, "", "1", "(a) R", "1 a R", "1 )a( R",
		strings.Replace(sampleStat, "34816", "x", 1),
		strings.Replace(sampleStat, " t 7304", " tt 7304", 1),
		strings.TrimSuffix(sampleStat, " 256\n"))
}

func TestParseMaps(t *testing.T) {
	want := []Mapping{
		{Range: Range{0x400000, 0x401000}, Perms: Perms{Read: true, Exec: true}, Offset: 0x1000, Major: 8,
			Minor: 1, Inode: 1234, Name: "/bin/a b"},
		{Range: Range{0x401000, 0x402000}, Perms: Perms{Read: true, Write: true}, Offset: 0x2000, Major: 8,
			Minor: 1, Inode: 1234, Name: "/tmp/line\nend", Deleted: true},
		{Range: Range{0x402000, 0x500000}},
		{Range: Range{0x600000, 0x700000}, Perms: Perms{Read: true, Write: true, Shared: true}, Minor: 1,
			Inode: 77, Name: "/dev/zero", Deleted: true},
		{Range: Range{0x700000, 0x701000}, Perms: Perms{Read: true, Write: true}, Name: "[anon: a b (deleted)]"},
		{Range: Range{0x7fff00000000, 0x7fff00021000}, Perms: Perms{Read: true, Write: true}, Name: "[stack]"},
		{Range: Range{0xffffffffff600000, 0xffffffffff601000}, Perms: Perms{Exec: true}, Name: "[vsyscall]"},
	}
	same(t, parseMaps, sampleMaps, want)
	same(t, parseMaps, "", []Mapping{})

	special := []Special{"", "", "", SpecialSharedAnon, SpecialAnon, SpecialStack, SpecialVSyscall}
	for i, m := range want {
		if got := m.Special(); got != special[i] {
			t.Errorf("Special of %v = %q, want %q", &m, got, special[i])
		}
	}
	if name, ok := want[4].AnonName(); !ok || name != " a b (deleted)" {
		t.Errorf("AnonName = %q, %v", name, ok)
	}
	if name, ok := want[0].AnonName(); ok {
		t.Errorf("AnonName of a file = %q", name)
	}
	if got, want := want[1].String(), "401000-402000 rw-p 00002000 08:01 1234 /tmp/line\nend (deleted)"; got != want {
		t.Errorf("String = %q, want %q", got, want)
	}
}

func TestParseMapsRefuses(t *testing.T) {
	refused(t, parseMaps, "\n", "x", "1-2", "1000-2000 r-xp 0 08:01",
		"2000-2000 r-xp 0 08:01 1", "2000-1000 r-xp 0 08:01 1", "10002000 r-xp 0 08:01 1",
		"1000-2000 rrxp 0 08:01 1", "1000-2000 r-x 0 08:01 1", "1000-2000 r-xp g 08:01 1",
		"1000-2000 r-xp 0 0801 1", "1000-2000 r-xp 0 08:100000000 1", "1000-2000 r-xp 0 08:01 -1",
		"1000-10000000000000000 r-xp 0 08:01 1",
		"1000-3000 r-xp 0 0:0 0\n2000-3000 r-xp 0 0:0 0\n",
		"3000-4000 r-xp 0 0:0 0\n1000-2000 r-xp 0 0:0 0\n")
}

// TestParseMapsOfRunning is text that a process which runs can bring about.
func TestParseMapsOfRunning(t *testing.T) {
	for text, want := range map[string][]Range{
		"1000-3000 ---p 0 0:0 0\n2000-4000 ---p 0 0:0 0\n":                         {{0x1000, 0x2000}, {0x2000, 0x4000}},
		"1000-3000 ---p 0 0:0 0\n1000-4000 ---p 0 0:0 0\n":                         {{0x1000, 0x4000}},
		"1000-2000 ---p 0 0:0 0\n2000-3000 ---p 0 0:0 0\n0-4000 ---p 0 0:0 0\n":    {{0, 0x4000}},
		"1000-2000 ---p 0 0:0 0\n2000-3000 ---p 0 0:0 0\n1800-4000 ---p 0 0:0 0\n": {{0x1000, 0x1800}, {0x1800, 0x4000}},
	} {
		list, err := parseMaps([]byte(text))
		if err != nil {
			t.Errorf("parse %q: %v", text, err)
			continue
		}
		var got []Range
		for _, m := range list {
			got = append(got, m.Range)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("parse %q (-want +got):\n%s", text, diff)
		}
	}
}

func TestParseSmaps(t *testing.T) {
	same(t, parseSmaps, sampleSmaps, []Mapping{
		{
			Range: Range{0x7f0000000000, 0x7f0000200000}, Perms: Perms{Read: true, Write: true}, Name: "[heap]",
			Flags: VMRead | VMWrite | VMMayRead | VMMayWrite | VMMayExec | VMAccount | VMSoftDirty | VMHugePage,

			UnknownFlags: []string{"zz"}, KernelPageSize: 4096, RSS: 2044 << 10, Pss: 1022 << 10,
			PrivateClean: 16 << 10, PrivateDirty: 2028 << 10, Anonymous: 2040 << 10, AnonHugePages: 2032 << 10,
			SwapBytes: 24 << 10, Locked: 8 << 10, THPEligible: true, ProtectionKey: 3,
		},
		{
			Range: Range{0x7f0000300000, 0x7f0000301000}, Perms: Perms{Read: true, Shared: true},
			Offset: 0xf000, Major: 0x103, Minor: 0xa, Inode: 42, Name: "/f",
			Flags: VMRead | VMShared | VMMayRead | VMMayWrite | VMMayExec | VMMayShare,
		},
	})
	refused(t, parseSmaps, "Rss: 4 kB\n", "1000-2000 r-xp 0 0:0 0\nRss: x kB\n",
		"1000-2000 r-xp 0 0:0 0\nTHPeligible: 2\n", "1000-2000 r-xp 0 0:0 0\nProtectionKey: -1\n",
		"1000-2000 r-xp 0 0:0 0\nSize 4 kB\n", sampleSmaps+sampleSmaps)
}

func TestSpecial(t *testing.T) {
	nameless := Mapping{Inode: 5, Minor: 1, Deleted: true}
	for name, want := range map[string]Special{
		"[heap]": SpecialHeap, "[vdso]": SpecialVDSO, "[vvar]": SpecialVVar, "[uprobes]": SpecialUprobes,
		"[vvar_vclock]": SpecialVVarVClock, "[anon_shmem:x]": SpecialAnonShmem, "[anon:]": SpecialAnon,
		"[new]": SpecialOther, "/SYSV0000abcd": SpecialSysV, "/SYSV0000ABCD": "", "/SYSV1": "",
		"/memfd:": SpecialMemfd, "/memfd:x y": SpecialMemfd, "/anon_hugepage": SpecialHugeTLB,
		"/[aio]": SpecialAIO, "/dev/zero": SpecialSharedAnon, "/dev/zeroes": "", "": "",
	} {
		m := nameless
		m.Name = name
		if got := m.Special(); got != want {
			t.Errorf("Special of %q = %q, want %q", name, got, want)
		}
		// The same name on a disk, or not deleted, is a file of that name.
		if !strings.HasPrefix(name, "[") {
			onDisk, alive := m, m
			onDisk.Major, alive.Deleted = 8, false
			if a, b := onDisk.Special(), alive.Special(); a != "" || b != "" {
				t.Errorf("Special of the file %q = %q, %q", name, a, b)
			}
		}
	}
}

func TestVMFlagsString(t *testing.T) {
	all := strings.Join(vmFlagLetters[:], " ")
	flags, unknown := parseVMFlags([]byte(all + "  x7 "))
	if flags.String() != all || flags != 1<<len(vmFlagLetters)-1 {
		t.Errorf("flags = %v", flags)
	}
	if diff := cmp.Diff([]string{"x7"}, unknown); diff != "" {
		t.Error(diff)
	}
	if VMMTE != 1<<(len(vmFlagLetters)-1) {
		t.Errorf("the last constant is %#x, the table has %d entries", uint64(VMMTE), len(vmFlagLetters))
	}
}

func TestParseFDInfo(t *testing.T) {
	same(t, parseFDInfo, sampleFDInfo, fdinfo{pos: -12, flags: 0o2100002, mntID: 15, extra: []Field{
		{"lock", "1: FLOCK  ADVISORY  WRITE 359 00:13:11691 0 EOF"},
		{"tfd", "5 events:       19 data:         61af401  pos:0 ino:61af sdev:7"},
		{"inotify", "wd:2 ino:7388 sdev:800003 mask:800afce ignored_mask:0 fhandle-bytes:8"},
		{"settime flags", "01"}, {"it_value", "(0, 49406829)"}, {"pos", "99"}, {"", "no colon"},
	}})
	f := FD{Extra: []Field{{"a", "1"}, {"b", "2"}, {"a", "3"}}}
	if diff := cmp.Diff([]string{"1", "3"}, f.Values("a")); diff != "" {
		t.Error(diff)
	}
	refused(t, parseFDInfo, "", "pos:\t0\n", "pos:\t0\nflags:\t02\n", "pos:\t0\nflags:\t08\nmnt_id:\t1\n",
		"flags:\t02\npos:\t0\nmnt_id:\t1\n", "pos:\tx\nflags:\t02\nmnt_id:\t1\n", "pos:\t0\nflags:\t02\nmnt_id:\t-1\n",
		"\n\n\n")
}

func TestParseTimers(t *testing.T) {
	same(t, parseTimers, sampleTimers, []Timer{
		{ID: 1, Signal: 60, Value: 0x7fff86e452a8, Notify: NotifySignal, Target: 2634},
		{ID: 0, Signal: 60, Value: 1<<64 - 1, Notify: NotifyNone, ToThread: true, Clock: -6},
		{ID: 7, Notify: NotifyThread, Target: 3, Clock: 1},
	})
	same(t, parseTimers, "", nil)
	refused(t, parseTimers, "ID: 1\n", "ID: 1\nID: 2\n", "signal: 1/0\n", "ID: x\n",
		"ID: 1\nsignal: 60\n", "ID: 1\nsignal: 60/x\n", "ID: 1\nsignal: 6/0\nnotify: signal\n",
		"ID: 1\nsignal: 6/0\nnotify: what/pid.1\n", "ID: 1\nsignal: 6/0\nnotify: none/cat.1\n",
		"ID: 1\nsignal: 6/0\nnotify: none/pid.x\n", sampleTimers+"ID: 9\n")
}

func TestParseLimits(t *testing.T) {
	got, err := parseLimits([]byte(sampleLimits))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []Limit{
		{0, "Max cpu time", 1, Unlimited, "seconds"},
		{7, "Max open files", 20000, 20001, "files"},
		{13, "Max nice priority", 0, 40, ""},
		{15, "Max realtime timeout", Unlimited, Unlimited, "us"},
	} {
		if got[want.Resource] != want {
			t.Errorf("limit %d = %+v, want %+v", want.Resource, got[want.Resource], want)
		}
	}
	refused(t, parseLimits, "", "heading\n", sampleLimits+"Max fun 1 2 laughs\n",
		strings.Replace(sampleLimits, "20001", "-1", 1), strings.Replace(sampleLimits, "20000 ", "", 1)+"\nx",
		strings.Replace(sampleLimits, "Max locked memory         8388608", "Max locked memory         many", 1))
}

func TestParseSyscall(t *testing.T) {
	same(t, parseSyscall, "running\n", Syscall{Running: true})
	same(t, parseSyscall, "-1 0x7ffc2a709128 0x7eff4ad2a2ad\n", Syscall{Nr: -1, SP: 0x7ffc2a709128, IP: 0x7eff4ad2a2ad})
	same(t, parseSyscall, "1000 0x3 0x7eff4abaf000 0x20000 0x4 0xffffffffffffffff 0x0 0x10 0x20\n",
		Syscall{Nr: 1000, Args: [6]uint64{3, 0x7eff4abaf000, 0x20000, 4, 1<<64 - 1, 0}, SP: 0x10, IP: 0x20})
	refused(t, parseSyscall, "", "run", "1 0x1 0x2", "-1 0x1", "x 0x1 0x2", "-1 1 0x2", "-1 0x1 0xg",
		"-1 0x3 0x7 0x2 0x4 0xf 0x0 0x10 0x20", "0 0x3 0x7 0x2 0x4 0xf x 0x10 0x20", "0 0x0 0x0 0x0 0x0 0x0 0x0 0x0")
}

func TestParseCgroups(t *testing.T) {
	same(t, parseCgroups, sampleCgroup, []Cgroup{
		{Hierarchy: 9, Controllers: []string{"name=systemd"}, Path: "/"},
		{Hierarchy: 3, Controllers: []string{"cpu", "cpuacct"}, Path: "/a:b"},
		{Path: "/../x y", Deleted: true},
	})
	refused(t, parseCgroups, "\n", "0:/x", "0::", "0::x", "-1::/", "x::/")
}

func TestParseSched(t *testing.T) {
	ruler := strings.Repeat("-", 67)
	same(t, parseSched, sampleSched, execStart{at: 1387655424752 * time.Nanosecond, told: true})
	same(t, parseSched, "x (1, #threads: 1)\n"+ruler+"\nnr_switches : 3\n", execStart{})
	head := "x (1, #threads: 1)\n" + ruler + "\nse.exec_start : "
	refused(t, parseSched, "", "se.exec_start : 1.000000\n", head+"1\n", head+"1.00000\n", head+"-1.000000\n",
		head+"1.00000x\n", head+"9223372036854.775808\n")
	same(t, parseSched, head+"9223372036853.999999\n", execStart{at: 9223372036853999999, told: true})
}

func TestParseSmallFiles(t *testing.T) {
	same(t, parseChildren, "12 13 400000 ", []PID{12, 13, 400000})
	same(t, parseChildren, "", nil)
	refused(t, parseChildren, "12 x", "-1", "2147483648")

	same(t, parseNS, "pid_for_children:[4026531836]", 4026531836)
	refused(t, parseNS, "", "pid:4026531836", "pid:[]", "pid:[12", "pid:[-1]")

	same(t, parseComm, "a\nb \n", "a\nb ")
	refused(t, parseComm, "", "a")

	same(t, parseStrings, "", nil)
	same(t, parseStrings, "a\x00\x00b c\x00", []string{"a", "", "b c"})
	same(t, parseStrings, "\x00", []string{""})
	same(t, parseStrings, "title without end", []string{"title without end"})

	same(t, onlyLine(hex32), "00040000\n", 0x40000)
	same(t, onlyLine(intOf[int16]), "-1000\n", -1000)
	refused(t, onlyLine(hex32), "", "100000000\n", "1\n\n")
	refused(t, onlyLine(intOf[int16]), "32768\n")
}
