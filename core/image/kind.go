package image

import "strconv"

// Kind is the type field of a record header (struct cr_hdr).
type Kind int16

// Kinds of the 2009 format, as its enum has them once all patches of v13 are
// applied (include/linux/checkpoint_hdr.h, arch/x86/include/asm/checkpoint_hdr.h).
const (
	KindHead      Kind = 1
	KindHeadArch  Kind = 2
	KindBuffer    Kind = 3
	KindStr       Kind = 4
	KindFName     Kind = 5
	KindTree      Kind = 101
	KindTask      Kind = 102
	KindThread    Kind = 103
	KindCPU       Kind = 104
	KindMM        Kind = 201
	KindVMA       Kind = 202
	KindPageArray Kind = 203
	KindMMContext Kind = 204
	KindFiles     Kind = 301
	KindFDEntry   Kind = 302
	KindFDData    Kind = 303
	KindTail      Kind = 5001
)

// Kinds of our own that this package writes itself.
const (
	KindPad             Kind = 6001
	KindError           Kind = 6002
	KindSum             Kind = 6003
	KindMachine         Kind = 6004
	KindProcess         Kind = 6005
	KindContainer       Kind = 6007
	KindContainerClocks Kind = 6740
)

// Ranges of kinds.
const (
	firstOwn       Kind = 6001 // from here on no record has a raw trailer
	firstIgnorable Kind = 7001 // unknown ones are stepped over
	lastIgnorable  Kind = 7999
)

// Own reports whether k is not a kind of the 2009 format.
func (k Kind) Own() bool { return k >= firstOwn }

// Ignorable reports whether a reader that does not know k may leave it out.
func (k Kind) Ignorable() bool { return k >= firstIgnorable && k <= lastIgnorable }

// String returns the number; the name is in the row of the table.
func (k Kind) String() string { return strconv.Itoa(int(k)) }

// Sizes and limits of the format.
const (
	headerSize = 8     // struct cr_hdr
	MaxPayload = 32767 // the len field is a signed 16-bit integer
	MaxChunk   = 16384 // pages of one PGARR; the code of 2009 wrote at most 2048 on 64 bit

	// MaxTasks bounds TREE; no pid namespace has more (PID_MAX_LIMIT of
	// include/linux/threads.h).
	MaxTasks = 4 << 20

	// PageSize is what a page is until a MACHINE record says otherwise.
	PageSize = 4096

	pidsSize   = 16         // struct cr_hdr_pids
	addrSize   = 8          // bytes of one address after PGARR: unsigned long of x86-64
	maxParent  = 0x7fffffff // readers of 2009 took larger ones for a negative errno
	ldtEntries = 8192       // LDT_ENTRIES of arch/x86/include/uapi/asm/ldt.h
	ldtEntry   = 8          // LDT_ENTRY_SIZE there
)

// Values of the 2009 format.
const (
	MagicHead = 0x00feed0cc0a2d200 // CHECKPOINT_MAGIC_HEAD
	MagicTail = 0x002d2a0cc0deef00 // CHECKPOINT_MAGIC_TAIL
	Revision  = 3                  // CR_VERSION at the end of v13
	FlagCkpt  = 1                  // CR_CTX_CKPT, the one bit of Head.Flags
	CommLen   = 16                 // TASK_COMM_LEN
)

// Values of VMA.Type and FDData.Type.
const (
	VMAAnon = 1 // CR_VMA_ANON
	VMAFile = 2 // CR_VMA_FILE

	FDFile = 1 // CR_FD_FILE
	FDDir  = 2 // CR_FD_DIR
)

// AlgorithmXXH64 is the value of Sum.Algorithm: XXH64 with seed 0.
const AlgorithmXXH64 = 1

// Bits of VMA.Flags, the kernel's VM_* of include/linux/mm.h (Linux 6.18).
// Those below 0x800000 have kept their values since 2009.
const (
	VMRead        = 0x1
	VMWrite       = 0x2
	VMExec        = 0x4
	VMShared      = 0x8
	VMMayRead     = 0x10
	VMMayWrite    = 0x20
	VMMayExec     = 0x40
	VMMayShare    = 0x80
	VMGrowsDown   = 0x100
	VMUffdMissing = 0x200
	VMPFNMap      = 0x400
	VMDenyWrite   = 0x800
	VMUffdWP      = 0x1000
	VMLocked      = 0x2000
	VMIO          = 0x4000
	VMSeqRead     = 0x8000
	VMRandRead    = 0x10000
	VMDontCopy    = 0x20000
	VMDontExpand  = 0x40000
	VMLockOnFault = 0x80000
	VMAccount     = 0x100000
	VMNoReserve   = 0x200000
	VMHugeTLB     = 0x400000
	VMSync        = 0x800000
	VMArch1       = 0x1000000
	VMWipeOnFork  = 0x2000000
	VMDontDump    = 0x4000000
	VMSoftDirty   = 0x8000000
	VMMixedMap    = 0x10000000
	VMHugePage    = 0x20000000
	VMNoHugePage  = 0x40000000
	VMMergeable   = 0x80000000
	VMSealed      = 1 << 63 // as in Linux 6.10; later kernels have moved it
)
