package fault

import "golang.org/x/sys/unix"

// 2000: an image cannot be restarted.
const (
	ImageFormat       Code = 2001
	ImageEnded        Code = 2002
	ImageSum          Code = 2003
	ImageRemote       Code = 2004
	ImageArch         Code = 2005
	ImageXsave        Code = 2006
	ImagePageSize     Code = 2007
	ImageVdso         Code = 2008
	ImageRange        Code = 2009
	ImageRecord       Code = 2010
	ImageRegisters    Code = 2011
	ImageRead         Code = 2012
	ImageValue        Code = 2013
	ImageProfile      Code = 2014
	ImageUnsupported  Code = 2015
	ImageAddressSpace Code = 2016
)

var images = []Entry{
	{ImageFormat, unix.EINVAL, "cannot read {the image}: it is not well formed",
		"The bytes are not a checkpoint image, or they were changed after it was written.",
		"Check it with crshim verify, which names the first byte that is wrong."},
	{ImageEnded, unix.EPIPE, "cannot read {the image}: it ends too early",
		"The writer was interrupted, or the copy is not complete.",
		"Compare the length with that of the original; save the process again."},
	{ImageSum, unix.EINVAL, "cannot read {the image}: the checksum does not match",
		"At least one byte differs from what was written.",
		"Copy it again from where it was written, and check it with crshim verify."},
	{ImageRemote, unix.EINVAL, "cannot read {the image}: the checkpoint that wrote it failed",
		"The writer met an error on the way and left it in the stream in place of the rest.",
		"See the cause at the end of the line, which is the writer's; save the process again."},
	{ImageArch, unix.ENOEXEC, "cannot restart {the image}: it was saved on another architecture",
		"Registers and memory of one architecture mean nothing to another.",
		"Restart it on a machine of the architecture that crshim inspect shows."},
	{ImageXsave, unix.ENOEXEC, "cannot restart {the image}: this processor lacks registers that it uses",
		"The image holds extended registers, such as those of AVX-512, that this machine does not have or the kernel does not enable.",
		"Restart it on a machine with the features that crshim verify lists."},
	{ImagePageSize, unix.ENOEXEC, "cannot restart {the image}: its pages are of another size",
		"Memory was saved in pages of a size other than that of this kernel.",
		"Restart it on a machine with the same page size."},
	{ImageVdso, unix.ENOEXEC, "cannot restart {the image}: the kernel's vdso is another one",
		"The program has looked up addresses inside the code page that its kernel gave it, and this kernel's page differs.",
		"Restart it under the same kernel version as it was saved."},
	{ImageRange, unix.EINVAL, "cannot restart {the image}: a memory range is not valid",
		"A range is empty, not aligned to pages, over another one or outside the address space of a program.",
		"Check the image with crshim verify; save the process again."},
	{ImageRecord, unix.EINVAL, "cannot restart {the image}: a record of unknown kind",
		"A newer version wrote it and says that this record must not be left out.",
		"Restart it with the version of crshim that wrote it, or a newer one."},
	{ImageRegisters, unix.EINVAL, "cannot restart {the image}: register values that the kernel would refuse",
		"A program with these registers could not run: an address outside its address space, a segment of the kernel.",
		"Check the image with crshim verify; save the process again."},
	{ImageRead, 0, "cannot read {the image}",
		"Reading from the descriptor failed.",
		"See the cause at the end of the line."},
	{ImageValue, unix.EINVAL, "cannot restart {the image}: a value is not valid",
		"A record is well formed but holds a value that no process has.",
		"Check the image with crshim verify; save the process again."},
	{ImageProfile, unix.EINVAL, "cannot restart {the image}: written for another profile of the calls",
		"The image says that it follows a version of the interface that is not the one in use.",
		"Restart it with the version of crshim that wrote it."},
	{ImageUnsupported, unix.EOPNOTSUPP, "cannot restart {the image}: it holds what cannot be rebuilt yet",
		"The record is known and can be shown, but this version does not rebuild such a thing.",
		"Use a newer version of crshim."},
	{ImageAddressSpace, unix.ENOEXEC, "cannot restart {the image}: its addresses do not exist on this machine",
		"The process used a larger address space (five-level page tables) than this kernel offers.",
		"Restart it on a machine with la57 in /proc/cpuinfo."},
}
