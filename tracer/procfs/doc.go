// Package procfs reads what Linux tells about a task in /proc/PID: identity,
// memory map, pages, descriptors, timers, limits. It changes nothing in the
// other process.
//
// # Identity
//
// PID, Addr and Range are the words in which the other layers name tasks and
// memory. A PID is always a number of the pid namespace of our own /proc; a
// task of a nested namespace has further numbers, see Status.NSpid.
//
// A Proc holds a descriptor of the directory /proc/PID (or
// /proc/PID/task/TID) and reads everything relative to it. The directory
// belongs to the task, not to the number: once the task has been reaped every
// read gives ErrGone, even if the number is in use again.
//
// # Consistency
//
// One read of one file is as consistent as the kernel makes it, and no more:
// the lists of a running task (mappings, descriptors, threads, children) can
// be a mixture of two moments. Who needs an exact answer stops the task first.
// A zombie and a kernel thread have no mappings and no descriptors: the lists
// are empty and the error is nil, or wraps EACCES for an ordinary user.
//
// # Permission
//
// Most files want PTRACE_MODE_READ (ptrace(2)), judged with the credentials
// of the calling thread, when the file is opened. Refusal is an error wrapping
// EACCES or EPERM, whichever the kernel gave. Stat is the exception: it is
// always readable, with the addresses blanked.
//
// # Parsers
//
// Each file has a pure function parseX from bytes to a value. A parser either
// returns an error that wraps ErrFormat and the zero value, or a value whose
// numbers were all there. Lines and flags that newer kernels add are kept
// where that is cheap and skipped otherwise, never refused.
//
// Formats are those of proc(5) and Documentation/filesystems/proc.rst for
// Linux 5.19 to 6.18 on 64-bit machines.
//
// # Concurrency
//
// A Proc may be used from several goroutines, except that Close must come
// last. A Pagemap belongs to one goroutine at a time.
package procfs
