package resource

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math/bits"
	"os"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Policies of sched(7) that golang.org/x/sys has no names for.
const (
	schedNormal   = 0
	schedFIFO     = 1
	schedRR       = 2
	schedBatch    = 3
	schedIdle     = 5
	schedDeadline = 6
	schedExt      = 7
)

// Flags of sched_setattr(2).
const (
	schedResetOnFork = 0x01
	schedReclaim     = 0x02
	schedOverrun     = 0x04
	schedClampMin    = 0x20
	schedClampMax    = 0x40
)

// schedAttr is what sched_setattr(2) sets of a thread.
type schedAttr struct {
	Policy                    uint32
	Nice                      int32
	Priority                  uint32 // real-time
	Flags                     uint32
	Runtime, Deadline, Period uint64 // of a deadline; the runtime of others is their slice, 0 for the usual one
	UtilMin, UtilMax          uint32
}

const schedAttrSize = 56 // SCHED_ATTR_SIZE_VER1

func (a *schedAttr) realtime() bool { return a.Policy == schedFIFO || a.Policy == schedRR }

// fair tells whether the nice value counts.
func (a *schedAttr) fair() bool { return a.Policy == schedNormal || a.Policy == schedBatch }

// encode is struct sched_attr. The clamps are given only where they are to
// change: a kernel without them refuses the mention of them.
func (a *schedAttr) encode(clamps bool) []byte {
	flags := uint64(a.Flags)
	if clamps {
		flags |= schedClampMin | schedClampMax
	}
	b := words32(schedAttrSize, a.Policy)
	b = binary.LittleEndian.AppendUint64(b, flags)
	b = append(b, words32(uint32(a.Nice), a.Priority)...)
	for _, v := range []uint64{a.Runtime, a.Deadline, a.Period} {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	return append(b, words32(a.UtilMin, a.UtilMax)...)
}

// decodeSched reads struct sched_attr as sched_getattr(2) gives it. The nice
// value, which it tells of some policies alone, is that of getpriority(2).
func decodeSched(b []byte, nice int32) schedAttr {
	word, long := binary.LittleEndian.Uint32, binary.LittleEndian.Uint64
	a := schedAttr{
		Policy: word(b[4:]), Flags: uint32(long(b[8:])) & (schedResetOnFork | schedReclaim | schedOverrun), Nice: nice, Priority: word(b[20:]),
		Runtime: long(b[24:]), Deadline: long(b[32:]), Period: long(b[40:]), UtilMin: word(b[48:]), UtilMax: word(b[52:]),
	}
	if a.Policy != schedDeadline && a.Runtime == usualSlice() {
		a.Runtime = 0
	}
	return a
}

// usualSlice is the slice of a thread that has not asked for another: we have
// not (since Linux 6.12; 0 before).
var usualSlice = sync.OnceValue(func() uint64 {
	own, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		return 0
	}
	return own.Runtime
})

// maySchedule says whether a thread without CAP_SYS_NICE may change its own
// scheduling like this (user_check_sched_setscheduler and can_nice of
// kernel/sched/syscalls.c). The limits are RLIMIT_NICE and RLIMIT_RTPRIO.
func maySchedule(from, to *schedAttr, niceLimit, priorityLimit uint64) bool {
	mayNice := func(nice int32) bool { return uint64(20-nice) <= niceLimit }
	switch {
	case to.Policy == schedDeadline && *from != *to,
		to.Nice < from.Nice && !mayNice(to.Nice),
		to.realtime() && to.Policy != from.Policy && priorityLimit == 0,
		to.realtime() && to.Priority > from.Priority && uint64(to.Priority) > priorityLimit,
		from.Policy == schedIdle && to.Policy != schedIdle && !mayNice(from.Nice),
		from.Flags&schedResetOnFork != 0 && to.Flags&schedResetOnFork == 0:
		return false
	}
	return true
}

// cpuSet has bit n%64 of word n/64 for processor n.
type cpuSet []uint64

const maxCPUs = 8192 // NR_CPUS of the largest configuration

// parseCPUs parses the form of Cpus_allowed_list, such as "0-3,8".
func parseCPUs(list string) (cpuSet, error) {
	var set cpuSet
	for part := range strings.SplitSeq(strings.TrimSpace(list), ",") {
		first, last, ranged := strings.Cut(part, "-")
		if !ranged {
			last = first
		}
		a, err := strconv.ParseUint(first, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("parse list of processors %q: %w", list, err)
		}
		z, err := strconv.ParseUint(last, 10, 32)
		if err != nil || a > z || z >= maxCPUs {
			return nil, fmt.Errorf("parse list of processors %q: %w", list, strconv.ErrRange)
		}
		for uint64(len(set)) <= z/64 {
			set = append(set, 0)
		}
		for n := a; n <= z; n++ {
			set[n/64] |= 1 << (n % 64)
		}
	}
	return set, nil
}

func (s cpuSet) count() (n int) {
	for _, w := range s {
		n += bits.OnesCount64(w)
	}
	return n
}

// and are the processors that are in both.
func (s cpuSet) and(t cpuSet) cpuSet {
	both := make(cpuSet, min(len(s), len(t)))
	for i := range both {
		both[i] = s[i] & t[i]
	}
	return both
}

func (s cpuSet) bytes() []byte {
	var b []byte
	for _, w := range s {
		b = binary.LittleEndian.AppendUint64(b, w)
	}
	return b
}

// onlineCPUs are the processors that this machine runs on, asked once for all
// threads of an operation.
type onlineCPUs struct{ set cpuSet }

func (o *onlineCPUs) get() (cpuSet, error) {
	if o.set != nil {
		return o.set, nil
	}
	text, err := os.ReadFile("/sys/devices/system/cpu/online")
	if errors.Is(err, fs.ErrNotExist) { // not mounted where we are
		if text, err = os.ReadFile("/proc/stat"); err == nil {
			text = []byte(cpusOfStat(string(text)))
		}
	}
	if err != nil {
		return nil, fmt.Errorf("list processors: %w", err)
	}
	o.set, err = parseCPUs(string(text))
	return o.set, err
}

// cpusOfStat lists the processors that /proc/stat tells of: those that are online
// (fs/proc/stat.c). It takes longer to make than the file of /sys.
func cpusOfStat(stat string) string {
	var cpus []string
	for line := range strings.Lines(stat) {
		name, _, _ := strings.Cut(line, " ")
		if number, ok := strings.CutPrefix(name, "cpu"); ok && number != "" {
			cpus = append(cpus, number)
		}
	}
	return strings.Join(cpus, ",")
}

// unbound tells whether a thread may run wherever the machine does.
func (s cpuSet) unbound(online cpuSet) bool { return s.and(online).count() == online.count() }
