package procfs

import "strings"

// VMFlags is the line "VmFlags:" of smaps as a bit set. The bits are ours;
// the letters are those of show_smap_vma_flags() in fs/proc/task_mmu.c.
type VMFlags uint64

// The names follow the kernel's VM_ constants.
const (
	VMRead        VMFlags = 1 << iota // rd
	VMWrite                           // wr
	VMExec                            // ex
	VMShared                          // sh
	VMMayRead                         // mr
	VMMayWrite                        // mw
	VMMayExec                         // me
	VMMayShare                        // ms
	VMGrowsDown                       // gd
	VMPFNMap                          // pf: no struct pages behind it
	VMLocked                          // lo
	VMIO                              // io: device memory
	VMSeqRead                         // sr: MADV_SEQUENTIAL
	VMRandRead                        // rr: MADV_RANDOM
	VMDontCopy                        // dc: MADV_DONTFORK
	VMDontExpand                      // de: mremap may not grow it
	VMLockOnFault                     // lf: mlock2(MLOCK_ONFAULT)
	VMAccount                         // ac
	VMNoReserve                       // nr: MAP_NORESERVE
	VMHugeTLB                         // ht
	VMSync                            // sf: MAP_SYNC
	VMArch1                           // ar
	VMWipeOnFork                      // wf: MADV_WIPEONFORK
	VMDontDump                        // dd: MADV_DONTDUMP
	VMSoftDirty                       // sd
	VMMixedMap                        // mm
	VMHugePage                        // hg: MADV_HUGEPAGE
	VMNoHugePage                      // nh: MADV_NOHUGEPAGE
	VMMergeable                       // mg: MADV_MERGEABLE
	VMUffdMissing                     // um: userfaultfd, missing pages
	VMUffdWP                          // uw: userfaultfd, write protection
	VMUffdMinor                       // ui: userfaultfd, minor faults
	VMShadowStack                     // ss
	VMSealed                          // sl: mseal, since Linux 6.10
	VMDroppable                       // dp: MAP_DROPPABLE, since Linux 6.11
	VMMaybeGuard                      // gu: may hold guard pages, since Linux 6.19
	VMBTI                             // bt: arm64
	VMMTE                             // mt: arm64
)

// vmFlagLetters has the letters of bit n at index n.
var vmFlagLetters = [...]string{
	"rd", "wr", "ex", "sh", "mr", "mw", "me", "ms", "gd", "pf", "lo", "io",
	"sr", "rr", "dc", "de", "lf", "ac", "nr", "ht", "sf", "ar", "wf", "dd",
	"sd", "mm", "hg", "nh", "mg", "um", "uw", "ui", "ss", "sl", "dp", "gu",
	"bt", "mt",
}

var vmFlagByLetters = func() map[string]VMFlags {
	m := make(map[string]VMFlags, len(vmFlagLetters))
	for bit, letters := range vmFlagLetters {
		m[letters] = 1 << bit
	}
	return m
}()

// Has says whether all of the flags in all are set.
func (f VMFlags) Has(all VMFlags) bool { return f&all == all }

// String gives the letters, as smaps does.
func (f VMFlags) String() string {
	var set []string
	for bit, letters := range vmFlagLetters {
		if f.Has(1 << bit) {
			set = append(set, letters)
		}
	}
	return strings.Join(set, " ")
}

// parseVMFlags sets apart the letters that it does not know.
func parseVMFlags(b []byte) (flags VMFlags, unknown []string) {
	for {
		var w []byte
		if w, b = word(b); len(w) == 0 {
			return flags, unknown
		}
		bit, ok := vmFlagByLetters[string(w)]
		if !ok {
			unknown = append(unknown, string(w))
			continue
		}
		flags |= bit
	}
}
