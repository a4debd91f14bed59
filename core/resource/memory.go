package resource

import (
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/tracer/procfs"
)

// memory is the address space: the mm record with the program's own idea of
// where its parts lie, and every mapping with its contents.
var memory = Part{
	Name:    "memory",
	Support: Full,
	Note: "Private and shared anonymous memory, private file mappings with the pages that were copied on write, shared file mappings, " +
		"stack, heap, advice, locks (also of what is mapped later), guards, names, seals (mseal), protection keys, PR_SET_MDWE, " +
		"PR_SET_MEMORY_MERGE, the core dump filter. Files without a name (memfd_create, shm_open and unlink, deleted) and what no mapping " +
		"shows of shared memory are in the image, once. System V shared memory with contents, key and mode; its id where " +
		"/proc/sys/kernel/shm_next_id may be written, else a warning tells the new one; a segment that is still there and unused is taken " +
		"back to its contents. Memory of the huge page pool, taken from the pool of the restarter. Refused: what another process shares, as far as " +
		"/proc shows; named files of hugetlbfs, SHM_HUGETLB and shared memory of the pool that is mapped in parts; ranges of userfaultfd; secret memory. " +
		"An ordinary user's shared memory without a descriptor is searched page by page, untouched ones too.",
	Records: []image.Spec{
		image.Row[exeRecord](exeKind, "EXE", image.InMM, "the file that the program was started from"),
		image.Row[auxvRecord](auxvKind, "AUXV", image.InMM, "the auxiliary vector, as in /proc/PID/auxv"),
		image.Row[mmMore](mmMoreKind, "MM_MORE", image.InMM, "what holds for the address space as a whole", image.Times(image.AtMostOncePerTask)),
		image.Row[pkeysRecord](pkeysKind, "PKEYS", image.InMM, "protection keys; none if none is in use"),
		image.Row[vmaMore](vmaMoreKind, "VMA_MORE", image.InMM, "what the 2009 record of a mapping has no room for; follows it where it is needed"),
		image.Row[vmaPool](vmaPoolKind, "VMA_POOL", image.InMM, "the mapping is of the huge page pool; behind VMA_MORE"),
		image.Row[sysvRecord](sysvKind, "SYSV_SHM", image.InMM, "System V shared memory, where it is met first; its parent is its reference; FILE_DATA follow"),
		image.Row[inheritRecord](inheritKind, "VMA_INHERIT", image.InMM, "the mapping is that of the parent, but for what this lists and the pages that follow"),
		image.Row[heldRecord](heldKind, "HELD_MEMORY", image.InMM, "memory that descendants share which the process itself has not; its records follow"),
		image.Row[guardRecord](guardKind, "VMA_GUARD", image.InMM, "guard ranges within the mapping (MADV_GUARD_INSTALL)"),
	},
	Save:    func() Saving { return new(memorySave) },
	Restore: func() Restoring { return new(memoryRestore) },
}

// Our kinds for memory.
const (
	exeKind     image.Kind = 6201
	auxvKind    image.Kind = 6202
	vmaMoreKind image.Kind = 6203
	guardKind   image.Kind = 6204
)

// exeRecord is the target of /proc/PID/exe.
type exeRecord struct {
	Path string
}

// auxvRecord holds pairs of native words, AT_NULL last.
type auxvRecord struct {
	Words []uint64 `fmt:"hex"`
}

// vmaMore completes the 2009 record of a mapping.
type vmaMore struct {
	Special uint32 `doc:"1 vdso, 2 vvar, 3 vvar_vclock: moved, never mapped"`
	Objref  uint32 `doc:"reference of shared anonymous memory, or of a file that the image carries; its records follow at its first sight"`
	Size    uint64 `doc:"size of the shared object or of the file, in bytes"`
	MTime   int64  `doc:"modification time of the file, nanoseconds since the epoch"`
	Inode   uint64 `doc:"inode of the file when it was saved"`
	BuildID [20]byte
	IDLen   uint32 `doc:"bytes of the build id that are valid, 0 if the file has none"`
	Name    string `doc:"name given by PR_SET_VMA_ANON_NAME"`
}

// guardRecord lists [start, end) pairs.
type guardRecord struct {
	Bounds []uint64 `fmt:"hex"`
}

// specials are the mappings that the kernel makes for every process and that
// can only be moved. The order is that of vmaMore.Special.
var specials = []procfs.Special{"", procfs.SpecialVDSO, procfs.SpecialVVar, procfs.SpecialVVarVClock}

// rawFlags pairs what /proc shows of a mapping with the kernel's own bits,
// which the 2009 format stores (include/linux/mm.h).
var rawFlags = []struct {
	shown procfs.VMFlags
	raw   uint64
}{
	{procfs.VMRead, image.VMRead},
	{procfs.VMWrite, image.VMWrite},
	{procfs.VMExec, image.VMExec},
	{procfs.VMShared, image.VMShared},
	{procfs.VMMayRead, image.VMMayRead},
	{procfs.VMMayWrite, image.VMMayWrite},
	{procfs.VMMayExec, image.VMMayExec},
	{procfs.VMMayShare, image.VMMayShare},
	{procfs.VMGrowsDown, image.VMGrowsDown},
	{procfs.VMLocked, image.VMLocked},
	{procfs.VMLockOnFault, image.VMLockOnFault},
	{procfs.VMIO, image.VMIO},
	{procfs.VMSeqRead, image.VMSeqRead},
	{procfs.VMRandRead, image.VMRandRead},
	{procfs.VMDontCopy, image.VMDontCopy},
	{procfs.VMDontExpand, image.VMDontExpand},
	{procfs.VMAccount, image.VMAccount},
	{procfs.VMNoReserve, image.VMNoReserve},
	{procfs.VMHugeTLB, image.VMHugeTLB},
	{procfs.VMSync, image.VMSync},
	{procfs.VMWipeOnFork, image.VMWipeOnFork},
	{procfs.VMDontDump, image.VMDontDump},
	{procfs.VMHugePage, image.VMHugePage},
	{procfs.VMNoHugePage, image.VMNoHugePage},
	{procfs.VMMergeable, image.VMMergeable},
	{procfs.VMSealed, image.VMSealed},
}

func rawOf(shown procfs.VMFlags) uint64 {
	var raw uint64
	for _, f := range rawFlags {
		if shown&f.shown != 0 {
			raw |= f.raw
		}
	}
	return raw
}

// knownRaw is every bit that a mapping of an image may have.
var knownRaw = func() uint64 {
	var all uint64
	for _, f := range rawFlags {
		all |= f.raw
	}
	return all
}()

// advice pairs flags with the madvise(2) call that sets them.
var advice = []struct {
	raw    uint64
	advice int
}{
	{image.VMSeqRead, 2},     // MADV_SEQUENTIAL
	{image.VMRandRead, 1},    // MADV_RANDOM
	{image.VMDontCopy, 10},   // MADV_DONTFORK
	{image.VMMergeable, 12},  // MADV_MERGEABLE
	{image.VMHugePage, 14},   // MADV_HUGEPAGE
	{image.VMNoHugePage, 15}, // MADV_NOHUGEPAGE
	{image.VMDontDump, 16},   // MADV_DONTDUMP
	{image.VMWipeOnFork, 18}, // MADV_WIPEONFORK
}

// Further advice of madvise(2) that the restart gives.
const (
	madvGuardInstall = 102 // since Linux 6.13
)

// mapFixedNoReplace is MAP_FIXED_NOREPLACE (mmap(2), since Linux 4.17): a mapping
// that would hit another one fails.
const mapFixedNoReplace = 0x100000

// hugePage is the size of a transparent huge page on x86-64.
const hugePage = 2 << 20
