package tracer

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

func TestDecodeStop(t *testing.T) {
	for status, want := range map[uint32]Stop{
		0x0000:     {Kind: Exited},
		0x2a00:     {Kind: Exited, Status: 42},
		0x0009:     {Kind: Killed, Signal: unix.SIGKILL},
		0x008b:     {Kind: Killed, Signal: unix.SIGSEGV, Core: true},
		0x857f:     {Kind: SyscallStop},
		0x057f:     {Kind: SignalStop, Signal: unix.SIGTRAP},
		0x0a7f:     {Kind: SignalStop, Signal: unix.SIGUSR1},
		0x137f:     {Kind: SignalStop, Signal: unix.SIGSTOP},
		0x80057f:   {Kind: EventStop, Signal: unix.SIGTRAP},
		0x80137f:   {Kind: EventStop, Signal: unix.SIGSTOP},
		0x80147f:   {Kind: EventStop, Signal: unix.SIGTSTP},
		0x1057f:    {Kind: ForkStop},
		0x2057f:    {Kind: VforkStop},
		0x3057f:    {Kind: CloneStop},
		0x4057f:    {Kind: ExecStop},
		0x6057f:    {Kind: ExitStop},
		0x7057f:    {Kind: OtherStop},
		0x227f:     {Kind: SignalStop, Signal: 34},
		0x0000407f: {Kind: SignalStop, Signal: 64},
	} {
		if got := decodeStop(status); got != want {
			t.Errorf("%#x: got %+v, want %+v", status, got, want)
		}
	}
	equal(t, "group stop", decodeStop(0x80137f).GroupStop(), true)
	equal(t, "interrupt", decodeStop(0x80057f).GroupStop(), false)
}

// The listings are what the assembler makes of them.
func TestListings(t *testing.T) {
	for name, l := range map[string]struct {
		listing listing
		prefix  string
	}{
		"stub":    {stubListing, ".set hdr, base+0x1000\nbase:\n"},
		"boot":    {bootListing, fmt.Sprintf(".set data, base+%d\nbase:\n", bootData)},
		"blank":   {blankListing, ""},
		"init":    {initListing, ""},
		"sibling": {siblingListing, ""},
	} {
		var source strings.Builder
		source.WriteString(l.prefix)
		for line := range strings.Lines(string(l.listing)) {
			_, code, _ := strings.Cut(line, ";")
			source.WriteString(strings.TrimSpace(code) + "\n")
		}
		dir := t.TempDir()
		from, object, binary := filepath.Join(dir, "a.s"), filepath.Join(dir, "a.o"), filepath.Join(dir, "a.bin")
		must(t, os.WriteFile(from, []byte(source.String()), 0o600))
		for _, command := range [][]string{{"cc", "-c", "-o", object, from}, {"objcopy", "-O", "binary", "-j", ".text", object, binary}} {
			if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
				t.Fatalf("%v: %v\n%s", command, err, out)
			}
		}
		want, err := os.ReadFile(binary)
		must(t, err)
		if got := l.listing.assemble(); !bytes.Equal(got, want) {
			t.Errorf("%s: the listing is\n%x, the assembler says\n%x", name, got, want)
		}
	}
	equal(t, "instruction at stubCall", string(stubCode[stubCall:stubCall+2]), "\x0f\x05")
	equal(t, "instruction ahead of stubParked", string(stubCode[stubParked-2:stubParked]), "\x0f\x05")
	if len(bootCode) > bootData {
		t.Errorf("boot code of %d bytes runs into its data", len(bootCode))
	}
}

func TestValidateRegs(t *testing.T) {
	good := Regs{Rip: 0x401000, Rsp: 0x7ffc00000000, Cs: 0x33, Ss: 0x2b, Eflags: 0x246, Fs_base: 0x7f0000000000}
	must(t, ValidateRegs(good))
	for name, spoil := range map[string]func(*Regs){
		"kernel rip":        func(r *Regs) { r.Rip = 0xffffffff81000000 },
		"non-canonical rip": func(r *Regs) { r.Rip = 1 << 47 },
		"last page":         func(r *Regs) { r.Rip = 0x7ffffffff000 },
		"kernel rsp":        func(r *Regs) { r.Rsp = 1 << 63 },
		"kernel fs base":    func(r *Regs) { r.Fs_base = 0xffff888000000000 },
		"kernel gs base":    func(r *Regs) { r.Gs_base = 0xffff888000000000 },
		"kernel cs":         func(r *Regs) { r.Cs = 0x10 },
		"null cs":           func(r *Regs) { r.Cs = 0 },
		"kernel ss":         func(r *Regs) { r.Ss = 0x18 },
		"null ss":           func(r *Regs) { r.Ss = 0 },
		"wide ds":           func(r *Regs) { r.Ds = 0x1002b },
		"ring 1 es":         func(r *Regs) { r.Es = 0x29 },
		"IOPL":              func(r *Regs) { r.Eflags |= 0x3000 },
		"VM":                func(r *Regs) { r.Eflags |= 1 << 17 },
	} {
		bad := good
		spoil(&bad)
		if err := ValidateRegs(bad); !errors.Is(err, ErrState) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRegsSettled(t *testing.T) {
	in := Regs{Rip: 0x1002, Orig_rax: 35}
	for result, want := range map[int64]Regs{
		0:    {Rip: 0x1002, Rax: 0, Orig_rax: noSyscall},
		-4:   {Rip: 0x1002, Rax: ^uint64(3), Orig_rax: noSyscall},
		-512: {Rip: 0x1000, Rax: 35, Orig_rax: noSyscall},
		-513: {Rip: 0x1000, Rax: 35, Orig_rax: noSyscall},
		-514: {Rip: 0x1000, Rax: 35, Orig_rax: noSyscall},
		-515: {Rip: 0x1002, Rax: ^uint64(514), Orig_rax: noSyscall},
		-516: {Rip: 0x1000, Rax: 219, Orig_rax: noSyscall},
	} {
		r := in
		r.Rax = uint64(result)
		if got := r.settled(); got != want {
			t.Errorf("result %d: got %+v", result, got)
		}
		r.Orig_rax = noSyscall // the same number as a plain register value
		if got := r.settled(); got != r || r.Restart() != 0 {
			t.Errorf("result %d outside of a call: got %+v", result, got)
		}
	}
}

func TestValidateXstate(t *testing.T) {
	good := make([]byte, xstateMin)
	binary.LittleEndian.PutUint32(good[xstateMXCSR:], 0x1f80)
	binary.LittleEndian.PutUint64(good[xstateHeader:], 3)
	must(t, ValidateXstate(good))
	must(t, ValidateXstate(append(bytes.Clone(good), make([]byte, 20000)...)))
	for name, bad := range map[string]func([]byte) []byte{
		"short":       func(b []byte) []byte { return b[:xstateMin-1] },
		"huge":        func(b []byte) []byte { return append(b, make([]byte, xstateMax)...) },
		"mxcsr":       func(b []byte) []byte { b[xstateMXCSR+3] = 0x80; return b },
		"no such bit": func(b []byte) []byte { b[xstateHeader+7] = 0x40; return b },
		"compacted":   func(b []byte) []byte { b[xstateHeader+15] = 0x80; return b },
		"reserved":    func(b []byte) []byte { b[xstateMin-1] = 1; return b },
	} {
		if err := ValidateXstate(bad(bytes.Clone(good))); !errors.Is(err, ErrState) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The widest gap overlaps nothing and no free page more could be added to it.
func TestWidestGap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const page = 4096
		pages := rapid.IntRange(1, 64).Draw(t, "pages")
		within := Range{Start: page, End: Addr((1 + pages) * page)}
		var busy []Range
		taken := make([]bool, 80)
		for range rapid.IntRange(0, 12).Draw(t, "count") {
			start := rapid.IntRange(0, 66*page).Draw(t, "start")
			length := rapid.IntRange(0, 8*page).Draw(t, "length")
			busy = append(busy, Range{Start: Addr(start), End: Addr(start + length)})
			for a := start; a < start+length; a++ {
				taken[a/page] = true
			}
		}
		longest, now := 0, 0
		for i := 1; i <= pages; i++ {
			if now++; taken[i] {
				now = 0
			}
			longest = max(longest, now)
		}
		gap, ok := widestGap(busy, within)
		if ok != (longest > 0) || gap.Len() != uint64(longest*page) {
			t.Fatalf("got %v %v, longest is %d pages", gap, ok, longest)
		}
		for _, b := range busy {
			if gap.Overlaps(b) || ok && !within.ContainsRange(gap) {
				t.Fatalf("%v overlaps %v", gap, b)
			}
		}
	})
}

func TestParkSignal(t *testing.T) {
	urg, winch, chld := bit(unix.SIGURG), bit(unix.SIGWINCH), bit(unix.SIGCHLD)
	for _, c := range []struct {
		pending, caught uint64
		want            unix.Signal
	}{
		{0, 0, unix.SIGURG},
		{urg, 0, unix.SIGWINCH},
		{0, urg, unix.SIGWINCH},
		{winch, urg, unix.SIGCHLD},
		{0, urg | winch | chld, unix.SIGURG},
		{urg, winch | chld, unix.SIGWINCH},
		{urg | winch | chld, urg, unix.SIGWINCH},
		{^uint64(0), ^uint64(0), unix.SIGURG},
	} {
		equal(t, "signal", parkSignal(c.pending, c.caught), c.want)
	}
}

func TestErrors(t *testing.T) {
	err := error(&CallError{NR: unix.SYS_OPENAT, Name: "openat", Args: []uint64{^uint64(99), 0x7f0000000000}, Errno: unix.ENOENT})
	is(t, err, unix.ENOENT)
	equal(t, "message", err.Error(), "openat(-100, 0x7f0000000000) in the task: no such file or directory")
	is(t, ErrGone, unix.ESRCH)
	equal(t, "name", syscallName(unix.SYS_RESTART_SYSCALL), "restart_syscall")
	equal(t, "name", syscallName(^uint64(0)), "syscall_-1")
}

func TestParseFacts(t *testing.T) {
	got, err := parseFacts([]byte("Name:\tTgid:\t3\nTgid:\t12\nNStgid:\t12\t7\t1\nSigPnd:\t0000000000000001\n" +
		"ShdPnd:\t0000000000400000\nSigCgt:\tffffffffffffffff\nSeccomp:\t2\nSeccomp_filters:\t0\n"))
	must(t, err)
	equal(t, "facts", got, facts{leader: 12, self: 1, pending: 0x400001, caught: ^uint64(0), filtered: true})
	for _, bad := range []string{"", "Tgid:\t\n", "Tgid:\tx\n", "Tgid:\t1\nSigCgt:\t-\n"} {
		if got, err := parseFacts([]byte(bad)); err == nil || got != (facts{}) {
			t.Errorf("%q: %v, %v", bad, got, err)
		}
	}
}
