// Package fault is the table of everything that can go wrong.
//
// Each way of failing has a number, printed as CR1203, and one Entry: the
// errno that the emulated system call returns, one line that says what
// failed, why that is so, and what a person can try. The numbers are part of
// the interface: they are never reused, and gaps are normal.
//
//	1000  a process cannot be saved       2000  an image cannot be restarted
//	1100  its memory                      2100  files of the image
//	1200  its descriptors                 2200  process ids
//	1300  its signals and timers          2300  identity
//	1400  its identity and limits         2400  the caller of restart
//	1500  the image cannot be written     2500  the commit
//	3000  a call was made wrongly         2600  the stage
//	3100  a container
//	4000  the host lacks something
//	5000  a command cannot be started
//
// Code that fails makes an *Error with a Code, the object that it was about
// and the cause, or a List of them when it refuses for several reasons at
// once. The function Errno turns any error into the one errno that a program
// sees; nothing else in crshim decides that.
//
// The errnos of entries 1000-1500 are those of the 2009 code where it names
// one (EBADF for a descriptor that is neither file nor directory, ENOSYS for
// a mapping that is shared with a device or of huge pages), else EOPNOTSUPP.
package fault
