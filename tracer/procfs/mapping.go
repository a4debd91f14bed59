package procfs

import (
	"fmt"
	"strings"
)

// Perms is the column "rwxp" of /proc/PID/maps.
type Perms struct {
	Read, Write, Exec, Shared bool
}

func (p Perms) String() string {
	b := []byte("---p")
	for i, set := range []bool{p.Read, p.Write, p.Exec, p.Shared} {
		if set {
			b[i] = "rwxs"[i]
		}
	}
	return string(b)
}

// Mapping is one mapping (VMA) of a task. Maps fills the first group of
// fields, Mappings all of them. Sizes are in bytes.
type Mapping struct {
	Range
	Perms  Perms
	Offset uint64 // of Start in the file, in bytes
	Major  uint32 // device of the file, 0:0 without one
	Minor  uint32
	Inode  uint64 // 0 without a file
	// Name is the path as seen from our root directory, or one of the words
	// in brackets that Special tells apart. The kernel writes a newline as
	// \012 and leaves a backslash alone, so that a file whose name holds the
	// four characters \012 comes out wrong: MapFile is exact.
	Name    string
	Deleted bool // " (deleted)" followed the name of a file

	Flags          VMFlags
	UnknownFlags   []string // letters that VMFlags has no bit for
	KernelPageSize uint64   // the huge page size in a hugetlb mapping
	RSS            uint64
	Pss            uint64
	PrivateClean   uint64
	PrivateDirty   uint64
	Anonymous      uint64 // pages that do not belong to the file
	AnonHugePages  uint64
	SwapBytes      uint64
	Locked         uint64
	THPEligible    bool
	ProtectionKey  uint32
}

// Special says what a mapping is that no ordinary file stands behind.
type Special string

// Dots stand for a name that differs from mapping to mapping.
const (
	SpecialNone       Special = "" // a file, or nameless private memory
	SpecialVDSO       Special = "[vdso]"
	SpecialVVar       Special = "[vvar]"
	SpecialVVarVClock Special = "[vvar_vclock]" // since Linux 6.13
	SpecialVSyscall   Special = "[vsyscall]"
	SpecialStack      Special = "[stack]"
	SpecialHeap       Special = "[heap]"
	SpecialUprobes    Special = "[uprobes]"
	// PR_SET_VMA_ANON_NAME, on private and on shared memory.
	SpecialAnon      Special = "[anon:...]"
	SpecialAnonShmem Special = "[anon_shmem:...]"
	// MAP_SHARED|MAP_ANONYMOUS, which shmem keeps in a nameless file.
	SpecialSharedAnon Special = "/dev/zero (deleted)"
	// MAP_HUGETLB|MAP_ANONYMOUS, private or shared.
	SpecialHugeTLB Special = "/anon_hugepage (deleted)"
	SpecialSysV    Special = "/SYSV..."   // shmat(2)
	SpecialMemfd   Special = "/memfd:..." // memfd_create(2)
	SpecialAIO     Special = "/[aio] (deleted)"
	// A name in brackets that this list does not know.
	SpecialOther Special = "[...]"
)

var bracketed = map[string]Special{
	"[vdso]":        SpecialVDSO,
	"[vvar]":        SpecialVVar,
	"[vvar_vclock]": SpecialVVarVClock,
	"[vsyscall]":    SpecialVSyscall,
	"[stack]":       SpecialStack,
	"[heap]":        SpecialHeap,
	"[uprobes]":     SpecialUprobes,
}

// Special tells the kinds apart by name and device. Paths begin with a slash,
// so that no file can pose as a word in brackets; and the nameless files of
// the kernel's own mounts are on devices of major number 0 and always
// deleted.
func (m *Mapping) Special() Special {
	if strings.HasPrefix(m.Name, "[") {
		if s, ok := bracketed[m.Name]; ok {
			return s
		}
		switch {
		case strings.HasPrefix(m.Name, "[anon:"):
			return SpecialAnon
		case strings.HasPrefix(m.Name, "[anon_shmem:"):
			return SpecialAnonShmem
		}
		return SpecialOther
	}
	if !m.Deleted || m.Major != 0 {
		return SpecialNone
	}
	switch {
	case m.Name == "/dev/zero":
		return SpecialSharedAnon
	case m.Name == "/anon_hugepage":
		return SpecialHugeTLB
	case m.Name == "/[aio]":
		return SpecialAIO
	case strings.HasPrefix(m.Name, "/memfd:"):
		return SpecialMemfd
	case isSysV(m.Name):
		return SpecialSysV
	}
	return SpecialNone
}

// isSysV matches "/SYSV" and the key in eight digits, ipc/shm.c newseg().
func isSysV(name string) bool {
	key, ok := strings.CutPrefix(name, "/SYSV")
	return ok && len(key) == 8 && strings.Trim(key, "0123456789abcdef") == ""
}

// AnonName is the name given by PR_SET_VMA_ANON_NAME, and false if there is
// none.
func (m *Mapping) AnonName() (string, bool) {
	for _, prefix := range []string{"[anon:", "[anon_shmem:"} {
		if rest, ok := strings.CutPrefix(m.Name, prefix); ok {
			return strings.CutSuffix(rest, "]")
		}
	}
	return "", false
}

// String is the line of /proc/PID/maps, with single blanks.
func (m *Mapping) String() string {
	s := fmt.Sprintf("%x-%x %v %08x %02x:%02x %d", uint64(m.Start), uint64(m.End),
		m.Perms, m.Offset, m.Major, m.Minor, m.Inode)
	if m.Name != "" {
		s += " " + m.Name
	}
	if m.Deleted {
		s += " (deleted)"
	}
	return s
}
