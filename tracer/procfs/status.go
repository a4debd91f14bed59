package procfs

import (
	"bytes"
	"fmt"
)

// Status is /proc/PID/status, as fs/proc/array.c prints it. Sizes are in
// bytes, masks have bit n-1 set for signal n, capability masks bit n for
// capability n. A line that the kernel left out (a zombie has no Vm lines, no
// Umask, no Groups) leaves its field zero; Has tells the cases apart.
type Status struct {
	Name      string // comm, with its escapes undone
	Umask     uint32
	State     byte // R S D T t Z X I P
	Tgid      PID
	Ngid      PID // NUMA group
	Pid       PID
	PPid      PID
	TracerPid PID
	Uid, Gid  [4]uint32 // real, effective, saved, file system
	FDSize    int
	Groups    []uint32

	// The task's numbers from our own namespace (first) to its innermost.
	NStgid, NSpid, NSpgid, NSsid []PID

	Kthread bool

	VmPeak, VmSize, VmLck, VmPin, VmHWM, VmRSS uint64
	RssAnon, RssFile, RssShmem                 uint64
	VmData, VmStk, VmExe, VmLib, VmPTE, VmSwap uint64
	HugetlbPages                               uint64

	CoreDumping bool
	THPEnabled  bool // no PR_SET_THP_DISABLE
	UntagMask   uint64

	Threads int
	SigQ    uint64 // queued signals of the real user
	SigQMax uint64 // and their limit

	SigPnd, ShdPnd, SigBlk, SigIgn, SigCgt uint64
	CapInh, CapPrm, CapEff, CapBnd, CapAmb uint64

	NoNewPrivs     bool
	Seccomp        int // 0 off, 1 strict, 2 filter
	SeccompFilters int

	SpeculationStoreBypass    string
	SpeculationIndirectBranch string
	CpusAllowedList           string
	MemsAllowedList           string
	VoluntarySwitches         uint64
	NonvoluntarySwitches      uint64

	// Extra holds the lines that have no field above, in their order.
	Extra []Field

	seen map[string]bool
}

// Has says whether the file had a line with this key ("Umask", "VmRSS").
func (s *Status) Has(key string) bool { return s.seen[key] }

// statusRequired are lines that every kernel prints for every task.
var statusRequired = []string{"Name", "State", "Tgid", "Pid", "PPid"}

type statusLine func(*Status, []byte) error

// into makes a statusLine of a field and the parser of its value.
func into[T any](field func(*Status) *T, parse func([]byte) (T, error)) statusLine {
	return func(s *Status, value []byte) error {
		v, err := parse(value)
		if err != nil {
			return err
		}
		*field(s) = v
		return nil
	}
}

var statusLines = map[string]statusLine{
	"Name":            into(func(s *Status) *string { return &s.Name }, unescapeComm),
	"Umask":           into(func(s *Status) *uint32 { return &s.Umask }, octal32),
	"State":           into(func(s *Status) *byte { return &s.State }, stateLetter),
	"Tgid":            into(func(s *Status) *PID { return &s.Tgid }, intOf[PID]),
	"Ngid":            into(func(s *Status) *PID { return &s.Ngid }, intOf[PID]),
	"Pid":             into(func(s *Status) *PID { return &s.Pid }, intOf[PID]),
	"PPid":            into(func(s *Status) *PID { return &s.PPid }, intOf[PID]),
	"TracerPid":       into(func(s *Status) *PID { return &s.TracerPid }, intOf[PID]),
	"Uid":             into(func(s *Status) *[4]uint32 { return &s.Uid }, fourIDs),
	"Gid":             into(func(s *Status) *[4]uint32 { return &s.Gid }, fourIDs),
	"FDSize":          into(func(s *Status) *int { return &s.FDSize }, count),
	"Groups":          into(func(s *Status) *[]uint32 { return &s.Groups }, listOf(decimal[uint32])),
	"NStgid":          into(func(s *Status) *[]PID { return &s.NStgid }, listOf(intOf[PID])),
	"NSpid":           into(func(s *Status) *[]PID { return &s.NSpid }, listOf(intOf[PID])),
	"NSpgid":          into(func(s *Status) *[]PID { return &s.NSpgid }, listOf(intOf[PID])),
	"NSsid":           into(func(s *Status) *[]PID { return &s.NSsid }, listOf(intOf[PID])),
	"Kthread":         into(func(s *Status) *bool { return &s.Kthread }, boolean),
	"VmPeak":          into(func(s *Status) *uint64 { return &s.VmPeak }, kilobytes),
	"VmSize":          into(func(s *Status) *uint64 { return &s.VmSize }, kilobytes),
	"VmLck":           into(func(s *Status) *uint64 { return &s.VmLck }, kilobytes),
	"VmPin":           into(func(s *Status) *uint64 { return &s.VmPin }, kilobytes),
	"VmHWM":           into(func(s *Status) *uint64 { return &s.VmHWM }, kilobytes),
	"VmRSS":           into(func(s *Status) *uint64 { return &s.VmRSS }, kilobytes),
	"RssAnon":         into(func(s *Status) *uint64 { return &s.RssAnon }, kilobytes),
	"RssFile":         into(func(s *Status) *uint64 { return &s.RssFile }, kilobytes),
	"RssShmem":        into(func(s *Status) *uint64 { return &s.RssShmem }, kilobytes),
	"VmData":          into(func(s *Status) *uint64 { return &s.VmData }, kilobytes),
	"VmStk":           into(func(s *Status) *uint64 { return &s.VmStk }, kilobytes),
	"VmExe":           into(func(s *Status) *uint64 { return &s.VmExe }, kilobytes),
	"VmLib":           into(func(s *Status) *uint64 { return &s.VmLib }, kilobytes),
	"VmPTE":           into(func(s *Status) *uint64 { return &s.VmPTE }, kilobytes),
	"VmSwap":          into(func(s *Status) *uint64 { return &s.VmSwap }, kilobytes),
	"HugetlbPages":    into(func(s *Status) *uint64 { return &s.HugetlbPages }, kilobytes),
	"CoreDumping":     into(func(s *Status) *bool { return &s.CoreDumping }, boolean),
	"THP_enabled":     into(func(s *Status) *bool { return &s.THPEnabled }, boolean),
	"untag_mask":      into(func(s *Status) *uint64 { return &s.UntagMask }, hexOf[uint64]),
	"Threads":         into(func(s *Status) *int { return &s.Threads }, count),
	"SigQ":            parseSigQ,
	"SigPnd":          into(func(s *Status) *uint64 { return &s.SigPnd }, hex64),
	"ShdPnd":          into(func(s *Status) *uint64 { return &s.ShdPnd }, hex64),
	"SigBlk":          into(func(s *Status) *uint64 { return &s.SigBlk }, hex64),
	"SigIgn":          into(func(s *Status) *uint64 { return &s.SigIgn }, hex64),
	"SigCgt":          into(func(s *Status) *uint64 { return &s.SigCgt }, hex64),
	"CapInh":          into(func(s *Status) *uint64 { return &s.CapInh }, hex64),
	"CapPrm":          into(func(s *Status) *uint64 { return &s.CapPrm }, hex64),
	"CapEff":          into(func(s *Status) *uint64 { return &s.CapEff }, hex64),
	"CapBnd":          into(func(s *Status) *uint64 { return &s.CapBnd }, hex64),
	"CapAmb":          into(func(s *Status) *uint64 { return &s.CapAmb }, hex64),
	"NoNewPrivs":      into(func(s *Status) *bool { return &s.NoNewPrivs }, boolean),
	"Seccomp":         into(func(s *Status) *int { return &s.Seccomp }, count),
	"Seccomp_filters": into(func(s *Status) *int { return &s.SeccompFilters }, count),
	"Speculation_Store_Bypass": into(
		func(s *Status) *string { return &s.SpeculationStoreBypass }, text),
	"SpeculationIndirectBranch": into(
		func(s *Status) *string { return &s.SpeculationIndirectBranch }, text),
	"Cpus_allowed_list": into(func(s *Status) *string { return &s.CpusAllowedList }, text),
	"Mems_allowed_list": into(func(s *Status) *string { return &s.MemsAllowedList }, text),
	"voluntary_ctxt_switches": into(
		func(s *Status) *uint64 { return &s.VoluntarySwitches }, decimal[uint64]),
	"nonvoluntary_ctxt_switches": into(
		func(s *Status) *uint64 { return &s.NonvoluntarySwitches }, decimal[uint64]),
}

func parseStatus(data []byte) (*Status, error) {
	s := &Status{seen: make(map[string]bool, 64)}
	err := lines(data, func(n int, line []byte) error {
		// The value of Name may begin or end in blanks of its own, so only
		// the one tab that the kernel prints goes.
		k, value, ok := bytes.Cut(line, []byte{':'})
		if !ok || len(k) == 0 {
			return fmt.Errorf("line %d: %w", n, malformed("status line", line))
		}
		key := string(k)
		value, _ = bytes.CutPrefix(value, []byte{'\t'})
		if key != "Name" {
			value = bytes.TrimSpace(value)
		}
		if s.seen[key] {
			return fmt.Errorf("line %d: %w", n, malformed("second line of key", k))
		}
		s.seen[key] = true
		parse, known := statusLines[key]
		if !known {
			s.Extra = append(s.Extra, Field{Key: key, Value: string(value)})
			return nil
		}
		if err := parse(s, value); err != nil {
			return fmt.Errorf("line %d, %s: %w", n, key, err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, key := range statusRequired {
		if !s.seen[key] {
			return nil, malformed("status without a line", []byte(key))
		}
	}
	return s, nil
}

// Status reads /proc/PID/status.
func (p *Proc) Status() (*Status, error) { return read(p, "status", parseStatus) }

// unescapeComm undoes seq_escape_str(comm, "\n\\"): a newline is written \n,
// a backslash twice.
func unescapeComm(b []byte) (string, error) {
	out := make([]byte, 0, len(b))
	for i := 0; i < len(b); i++ {
		if b[i] == '\\' && i+1 < len(b) {
			switch b[i+1] {
			case 'n':
				out = append(out, '\n')
				i++
				continue
			case '\\':
				out = append(out, '\\')
				i++
				continue
			}
		}
		out = append(out, b[i])
	}
	return string(out), nil
}

func parseSigQ(s *Status, b []byte) error {
	used, limit, ok := bytes.Cut(b, []byte{'/'})
	if !ok {
		return malformed("signal queue", b)
	}
	var err error
	if s.SigQ, err = decimal[uint64](used); err != nil {
		return err
	}
	s.SigQMax, err = decimal[uint64](limit)
	return err
}

func stateLetter(b []byte) (byte, error) {
	if len(b) == 0 || b[0] <= ' ' || b[0] > '~' {
		return 0, malformed("task state", b)
	}
	return b[0], nil
}

func fourIDs(b []byte) ([4]uint32, error) {
	ids, err := list(b, decimal[uint32])
	if err != nil {
		return [4]uint32{}, err
	}
	if len(ids) != 4 {
		return [4]uint32{}, malformed("four ids", b)
	}
	return [4]uint32(ids), nil
}

func boolean(b []byte) (bool, error) {
	switch string(b) {
	case "0":
		return false, nil
	case "1":
		return true, nil
	}
	return false, malformed("0 or 1", b)
}

func count(b []byte) (int, error) {
	v, err := intOf[int32](b)
	if err == nil && v < 0 {
		err = malformed("count", b)
	}
	if err != nil {
		return 0, err
	}
	return int(v), nil
}

func listOf[T any](parse func([]byte) (T, error)) func([]byte) ([]T, error) {
	return func(b []byte) ([]T, error) { return list(b, parse) }
}

func hex64(b []byte) (uint64, error)   { return uintOf[uint64](b, 16) }
func octal32(b []byte) (uint32, error) { return uintOf[uint32](b, 8) }
func text(b []byte) (string, error)    { return string(b), nil }
