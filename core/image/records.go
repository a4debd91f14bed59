package image

// The records of 2009. Layouts, numbers and names are those of the headers
// that the v13 patches add; fields here bear the kernel's names in Go's
// spelling, and the tag c has the original one. All structs of 2009 are
// aligned(8), so that padding at their end belongs to them.

// Head is struct cr_hdr_head, the first record. Strings fill 64 bytes and
// then have no NUL.
type Head struct {
	Magic   uint64   `c:"magic" fmt:"hex" doc:"0x00feed0cc0a2d200"`
	Major   uint16   `c:"major" doc:"kernel version that wrote the image; not compared"`
	Minor   uint16   `c:"minor"`
	Patch   uint16   `c:"patch"`
	Rev     uint16   `c:"rev" doc:"revision of the format: 3"`
	Time    uint64   `c:"time" fmt:"time" diff:"-" doc:"when it was written, seconds since 1970"`
	Flags   uint64   `c:"flags" fmt:"hex" doc:"1 (CR_CTX_CKPT)"`
	Release [64]byte `c:"release" fmt:"text" doc:"uname release of the writer"`
	Version [64]byte `c:"version" fmt:"text" doc:"uname version"`
	Machine [64]byte `c:"machine" fmt:"text" doc:"uname machine"`
}

// HeadArch is struct cr_hdr_head_arch: the floating point unit.
type HeadArch struct {
	HasFXSR    uint16  `c:"has_fxsr" doc:"1 if the processor has fxsave"`
	HasXsave   uint16  `c:"has_xsave" doc:"1 if it has xsave"`
	XstateSize uint16  `c:"xstate_size" doc:"bytes after each CPU record"`
	_          [2]byte `c:"_pading"`
}

// Buffer is raw data in pieces of at most MaxPayload; the kernel of 2009
// declared it and never wrote one.
type Buffer struct {
	Data []byte `fmt:"size" doc:"bytes"`
}

// Str is a string. After TASK it is the command name, in 16 bytes as the
// kernel of 2009 wrote it.
type Str struct {
	Text string `pad:"16" doc:"string, with NUL bytes up to 16"`
}

// FName is a path as seen from the root directory of the first task.
type FName struct {
	Name string `doc:"path with its NUL"`
}

// Tree is struct cr_hdr_tree. Tasks entries of PIDs follow it raw.
type Tree struct {
	Tasks uint32  `c:"tasks_nr" doc:"number of tasks"`
	_     [4]byte `doc:"padding"`
}

// PIDs is struct cr_hdr_pids, one entry behind Tree: ids as the pid namespace
// of the first task has them. Tasks come depth first.
type PIDs struct {
	VPID  int32   `c:"vpid" doc:"thread id"`
	VTGID int32   `c:"vtgid" doc:"process id"`
	VPPID int32   `c:"vppid" doc:"parent's process id, 0 if outside"`
	_     [4]byte `doc:"padding"`
}

// Process says more of a process of a tree than PIDs does. Numbers are those of
// the pid namespace of the first task, 0 for what is outside.
type Process struct {
	VPID       int32    `doc:"process id"`
	VPPID      int32    `doc:"parent's process id, 0 if outside"`
	VPgrp      int32    `doc:"process group"`
	VSession   int32    `doc:"session"`
	State      uint32   `doc:"0 lives, 1 has ended and was not waited for"`
	ExitCode   int32    `doc:"of one that has ended, as wait(2) gives it"`
	ExitSignal int32    `doc:"signal to the parent at its end, 0 for none"`
	Name       [16]byte `doc:"command name of one that has ended"`
	Shares     uint32   `fmt:"flags" flags:"1=FILES 2=FS 4=VM 8=SIGHAND" doc:"what it has together with its maker: FILES the descriptor table, FS working directory, root and umask, VM memory, SIGHAND signal handlers (clone(2))"`
	Maker      int32    `doc:"process id of the sibling that it has that of; 0 if it is the parent"`
	_          [4]byte  `doc:"padding"`
}

// Values of Process.State.
const (
	ProcessLives = 0
	ProcessEnded = 1
)

// processAlone are the bytes of Process before Maker.
const processAlone = 48

// Bits of Process.Shares.
const (
	SharesFiles   = 1 << 0
	SharesFS      = 1 << 1
	SharesVM      = 1 << 2
	SharesSighand = 1 << 3
	SharesMask    = SharesFiles | SharesFS | SharesVM | SharesSighand
)

// Container says in what namespaces the processes are, if the first one is also
// the first of a pid namespace that crshim has made.
type Container struct {
	User       uint32 `doc:"user namespace: 0 none, 1 one in which its user is root, 2 one in which it is who it is"`
	Net        uint32 `doc:"network namespace: 0 none, 1 one in which nothing is up, 2 one in which lo is"`
	Own        uint32 `fmt:"flags" flags:"1=INIT 2=CGROUP 4=TIME" doc:"INIT: the first process is the init of crshim; other namespaces"`
	_          [4]byte
	Hostname   [64]byte `fmt:"text" doc:"as uname(2) has it"`
	Domainname [64]byte `fmt:"text" doc:"as uname(2) has it"`
}

// ContainerClocks says what the clocks of a time namespace showed.
type ContainerClocks struct {
	Monotonic int64 `diff:"-" doc:"CLOCK_MONOTONIC, nanoseconds"`
	Boottime  int64 `diff:"-" doc:"CLOCK_BOOTTIME, nanoseconds"`
}

// Bits of Container.Own.
const (
	OwnInit   = 1
	OwnCgroup = 2
	OwnTime   = 4
)

// Task is struct cr_hdr_task. Str follows with the command name.
type Task struct {
	State      uint32  `c:"state" fmt:"hex" doc:"task state: 0 running, 1 sleeping, 2 frozen, 0x84 stopped"`
	ExitState  uint32  `c:"exit_state"`
	ExitCode   uint32  `c:"exit_code"`
	ExitSignal uint32  `c:"exit_signal" doc:"signal to the parent at its end"`
	CommLen    int32   `c:"task_comm_len" doc:"length of the STRING that follows: 16"`
	_          [4]byte `doc:"padding"`
}

// Thread is struct cr_hdr_thread. On x86-64 NTLS is 0 and no array follows.
type Thread struct {
	GDTEntryTLSEntries int16   `c:"gdt_entry_tls_entries" doc:"3"`
	SizeofTLSArray     int16   `c:"sizeof_tls_array" doc:"24"`
	NTLS               int16   `c:"ntls" doc:"0 on x86-64; else SizeofTLSArray bytes follow"`
	_                  [2]byte `doc:"padding"`
}

// CPU is struct cr_hdr_cpu: the registers. On x86-64, of which v13 knows
// nothing, FS and GS hold the base addresses, as they do from v23 on. The
// extended state follows raw if UsedMath is not 0.
type CPU struct {
	R15       uint64    `c:"r15" fmt:"hex"`
	R14       uint64    `c:"r14" fmt:"hex"`
	R13       uint64    `c:"r13" fmt:"hex"`
	R12       uint64    `c:"r12" fmt:"hex"`
	BP        uint64    `c:"bp" fmt:"hex"`
	BX        uint64    `c:"bx" fmt:"hex"`
	R11       uint64    `c:"r11" fmt:"hex"`
	R10       uint64    `c:"r10" fmt:"hex"`
	R9        uint64    `c:"r9" fmt:"hex"`
	R8        uint64    `c:"r8" fmt:"hex"`
	AX        uint64    `c:"ax" fmt:"hex" doc:"0 in a self-checkpoint, so that the call returns 0 after restart"`
	CX        uint64    `c:"cx" fmt:"hex"`
	DX        uint64    `c:"dx" fmt:"hex"`
	SI        uint64    `c:"si" fmt:"hex"`
	DI        uint64    `c:"di" fmt:"hex"`
	OrigAX    uint64    `c:"orig_ax" fmt:"hex" doc:"number of the system call that was interrupted, or -1"`
	IP        uint64    `c:"ip" fmt:"hex"`
	CS        uint64    `c:"cs" fmt:"hex"`
	Flags     uint64    `c:"flags" fmt:"hex"`
	SP        uint64    `c:"sp" fmt:"hex"`
	SS        uint64    `c:"ss" fmt:"hex"`
	DS        uint64    `c:"ds" fmt:"hex"`
	ES        uint64    `c:"es" fmt:"hex"`
	FS        uint64    `c:"fs" fmt:"hex" doc:"fs_base on x86-64"`
	GS        uint64    `c:"gs" fmt:"hex" doc:"gs_base on x86-64"`
	DebugReg  [8]uint64 `c:"debugreg0" fmt:"hex" doc:"4 and 5 are 0"`
	UsesDebug uint32    `c:"uses_debug"`
	UsedMath  uint32    `c:"used_math" doc:"1 if xstate_size bytes of extended state follow"`
}

// MM is struct cr_hdr_mm: the address space. MapCount VMAs follow, then
// MMContext.
type MM struct {
	ObjRef     uint32 `c:"objref" doc:"0"`
	MapCount   uint32 `c:"map_count" doc:"number of VMA records"`
	StartCode  uint64 `c:"start_code" fmt:"hex"`
	EndCode    uint64 `c:"end_code" fmt:"hex"`
	StartData  uint64 `c:"start_data" fmt:"hex"`
	EndData    uint64 `c:"end_data" fmt:"hex"`
	StartBrk   uint64 `c:"start_brk" fmt:"hex"`
	Brk        uint64 `c:"brk" fmt:"hex"`
	StartStack uint64 `c:"start_stack" fmt:"hex"`
	ArgStart   uint64 `c:"arg_start" fmt:"hex"`
	ArgEnd     uint64 `c:"arg_end" fmt:"hex"`
	EnvStart   uint64 `c:"env_start" fmt:"hex"`
	EnvEnd     uint64 `c:"env_end" fmt:"hex"`
}

// VMA is struct cr_hdr_vma: one mapping. FName follows if Type is VMAFile,
// then its pages.
type VMA struct {
	Type     uint32  `c:"vma_type" doc:"1 anonymous, 2 of a file"`
	_        [4]byte `c:"_padding" doc:"padding"`
	Start    uint64  `c:"vm_start" fmt:"hex" doc:"first address"`
	End      uint64  `c:"vm_end" fmt:"hex" doc:"address behind the last"`
	PageProt uint64  `c:"vm_page_prot" fmt:"hex" doc:"page protection bits of the processor; informational"`
	Flags    uint64  `c:"vm_flags" fmt:"flags" flags:"1=READ 2=WRITE 4=EXEC 8=SHARED 10=MAYREAD 20=MAYWRITE 40=MAYEXEC 80=MAYSHARE 100=GROWSDOWN 200=UFFD_MISSING 400=PFNMAP 800=DENYWRITE 1000=UFFD_WP 2000=LOCKED 4000=IO 8000=SEQ_READ 10000=RAND_READ 20000=DONTCOPY 40000=DONTEXPAND 80000=LOCKONFAULT 100000=ACCOUNT 200000=NORESERVE 400000=HUGETLB 800000=SYNC 2000000=WIPEONFORK 4000000=DONTDUMP 8000000=SOFTDIRTY 10000000=MIXEDMAP 20000000=HUGEPAGE 40000000=NOHUGEPAGE 80000000=MERGEABLE 8000000000000000=SEALED" doc:"VM_* bits of include/linux/mm.h"`
	Pgoff    uint64  `c:"vm_pgoff" fmt:"hex" doc:"offset in the file, in pages"`
}

// PageArray is struct cr_hdr_pgarr: a run of pages. Addresses and then
// contents follow raw; one with no pages ends the pages of a VMA.
type PageArray struct {
	Pages uint64 `c:"nr_pages" doc:"pages that follow, at most 16384"`
}

// MMContext is struct cr_hdr_mm_context: the local descriptor table.
type MMContext struct {
	LDTEntrySize int16   `c:"ldt_entry_size" doc:"8"`
	NLDT         int16   `c:"nldt" doc:"descriptors that follow; 0 on x86-64"`
	_            [4]byte `doc:"padding"`
}

// Files is struct cr_hdr_files: the descriptor table. NFDs FDEntrys follow.
type Files struct {
	ObjRef uint32 `c:"objref" doc:"0"`
	NFDs   uint32 `c:"nfds" doc:"number of FD_ENT records"`
}

// FDEntry is struct cr_hdr_fd_ent: one descriptor. FDData follows if ObjRef
// is met for the first time.
type FDEntry struct {
	ObjRef      uint32  `c:"objref" doc:"number of the open file, from 1 up"`
	FD          int32   `c:"fd" doc:"descriptor"`
	CloseOnExec uint32  `c:"close_on_exec" doc:"1 if it closes on exec; 2 if the process did not have it, but its descendants"`
	_           [4]byte `doc:"padding"`
}

// FDData is struct cr_hdr_fd_data: one open file. Its parent is the ObjRef;
// FName follows.
type FDData struct {
	Type    uint16 `c:"fd_type" doc:"1 file, 2 directory"`
	Mode    uint16 `c:"f_mode" fmt:"hex" doc:"FMODE_* bits: 1 read, 2 write"`
	Flags   uint32 `c:"f_flags" fmt:"oct" doc:"open flags"`
	Pos     uint64 `c:"f_pos" doc:"offset"`
	Version uint64 `c:"f_version" doc:"informational"`
}

// Tail is struct cr_hdr_tail, the last record.
type Tail struct {
	Magic uint64 `c:"magic" fmt:"hex" doc:"0x002d2a0cc0deef00"`
}

// Our own records.

// Pad is stepped over. It brings page contents to a page boundary.
type Pad struct {
	Zero []byte `fmt:"size" doc:"zeros"`
}

// Error ends an image whose writer failed; no TAIL follows.
type Error struct {
	Errno int32  `doc:"errno of the call that failed"`
	Code  int32  `doc:"number of the failure as crshim explain knows it, or 0"`
	Text  string `doc:"the message"`
}

// Sum is the checksum of all bytes before this record.
type Sum struct {
	Algorithm uint32 `doc:"1: XXH64 with seed 0"`
	_         [4]byte
	Digest    uint64 `fmt:"hex" diff:"-" doc:"the checksum"`
	Bytes     uint64 `diff:"-" doc:"number of bytes covered"`
}

// Machine says what a machine must have for the image to run on it.
type Machine struct {
	PageSize    uint32   `doc:"bytes of a page"`
	XsaveSize   uint32   `doc:"bytes of the extended state"`
	XFeatures   uint64   `fmt:"hex" doc:"state components in use (XCR0 bits)"`
	VdsoSize    uint32   `doc:"bytes of the kernel's vdso; 0 if it was not mapped"`
	CallProfile uint32   `doc:"version of the emulated calls that the task had: 13, or 0 for none"`
	VdsoSum     uint64   `fmt:"hex" doc:"XXH64 of the vdso"`
	Arch        [16]byte `fmt:"text" doc:"architecture, as x86_64"`
}
