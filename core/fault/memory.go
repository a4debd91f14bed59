package fault

import "golang.org/x/sys/unix"

// 1100: memory cannot be saved.
const (
	MemoryShared      Code = 1101
	MemoryHugetlb     Code = 1102
	MemoryDevice      Code = 1103
	MemoryUnlinked    Code = 1104
	MemoryUnreachable Code = 1105
	MemoryUserfaultfd Code = 1106
	MemorySpecial     Code = 1107
	MemorySysV        Code = 1108
	MemoryMemfd       Code = 1109
	MemorySecret      Code = 1110
	MemoryUnreadable  Code = 1111
	MemoryShadowStack Code = 1112
	MemorySealed      Code = 1113
	MemoryFileShrunk  Code = 1114
)

var memory = []Entry{
	{MemoryShared, unix.EOPNOTSUPP, "cannot save {a mapping}: shared with another process",
		"Memory that a process outside the image shares would be a copy after restart: the two would silently part.",
		"Save the tree that holds all processes which share it, or have the program unmap it first."},
	{MemoryHugetlb, unix.ENOSYS, "cannot save {a mapping}: memory of the huge page pool",
		"Named files of hugetlbfs and segments of shmget with SHM_HUGETLB are not saved; of memory that is shared by mmap with MAP_HUGETLB only a mapping that shows it from its beginning and is the only one, since the kernel lets nobody map such memory twice.",
		"Use private memory (MAP_PRIVATE|MAP_HUGETLB), memfd_create with MFD_HUGETLB, or transparent huge pages (madvise MADV_HUGEPAGE)."},
	{MemoryDevice, unix.ENOSYS, "cannot save {a mapping}: memory of a device",
		"The mapping shows hardware or driver memory (VM_IO or VM_PFNMAP), which is not the program's own.",
		"Have the program close the device before it is saved."},
	{MemoryUnlinked, unix.EOPNOTSUPP, "cannot save {a mapping}: its file has been deleted",
		"The file has no name any more by which it could be opened again, as after an upgrade of a library under a running program.",
		"Restart the program so that it maps the present file, then save it."},
	{MemoryUnreachable, unix.EBADF, "cannot save {a mapping}: its file cannot be reached by its name",
		"The name leads to another file, or lies outside the root directory of the program.",
		"Make the file visible under that name, for example by undoing a mount over it."},
	{MemoryUserfaultfd, unix.EOPNOTSUPP, "cannot save {a mapping}: its page faults are handled by userfaultfd",
		"Pages that have not been delivered yet are known only to the program that serves them.",
		"Have the program unregister the range first."},
	{MemorySpecial, unix.EOPNOTSUPP, "cannot save {a mapping}: a kernel mapping of unknown kind",
		"The kernel provides this range itself and it is none of those known here (vdso, vvar, vsyscall).",
		"Report the line of /proc/PID/maps."},
	{MemorySysV, unix.EOPNOTSUPP, "cannot save {a mapping}: System V shared memory",
		"The segment is attached by another process as well, belongs to another IPC namespace, or may not be read.",
		"Have the other process detach it; ipcs -mp names the last one."},
	{MemoryMemfd, unix.EOPNOTSUPP, "cannot save {a mapping}: file in memory",
		"The file was made by memfd_create, or deleted, and cannot be read, or another process has it, too.",
		"Use a file with a name, for example in /dev/shm, or have the other process close and unmap it. A file that only a mapping is left of, of which no page may be written, can be read by root alone."},
	{MemorySecret, unix.EOPNOTSUPP, "cannot save {a mapping}: secret memory",
		"Memory of memfd_secret is made so that nobody else can read it, the kernel included.",
		"Have the program drop its secrets before it is saved."},
	{MemoryUnreadable, 0, "cannot save {a mapping}: its pages cannot be read",
		"Reading the pages failed, as for a file that was truncated under its mapping or a page that the hardware reported as bad.",
		"See the cause at the end of the line."},
	{MemoryShadowStack, unix.EOPNOTSUPP, "cannot save {a mapping}: shadow stack",
		"A shadow stack can be written only by the kernel and is not saved yet.",
		"Start the program with GLIBC_TUNABLES=glibc.cpu.x86_shstk=off."},
	{MemorySealed, unix.EOPNOTSUPP, "cannot save {a mapping}: the kernel has sealed its own mapping",
		"The vdso of every process is sealed by a kernel that was built with CONFIG_MSEAL_SYSTEM_MAPPINGS, and cannot be moved to where the image needs it.",
		"Boot a kernel without that option."},
	{MemoryFileShrunk, unix.EOPNOTSUPP, "cannot save {a mapping}: its file is shorter than the pages it shows",
		"The file was truncated while it was mapped; the pages behind its end are private copies of what no longer exists.",
		"Restart the program so that it maps the present file, then save it."},
}
