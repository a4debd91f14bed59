// Package syscalls says what the emulated calls mean: a table of them, how their arguments are read, and how an error
// becomes an errno. It knows nothing of how a call arrives (package seccomp) and does nothing to a process itself
// (package core).
//
// # A call
//
// One row of Table is one call: its number, name, arguments, handler, and how complete it is. A handler is
//
//	func(c *Context) (int64, error)
//
// and comes in two kinds. A simple one computes a value and returns; Dispatcher.Serve then answers the waiting caller
// with the value, or with -fault.Errno(err). An engine call (checkpoint, restart) answers on its way, by c.Answer, in
// order to catch the caller at the exit of its call, and puts the result into the caller's registers itself; what it
// returns is then for the trace and the log only.
//
// # Numbers
//
// First to Last are the numbers set aside for emulated calls, on x86-64 and i386 alike. They lie beyond both of the
// kernel's tables (Linux 6.18: 470), so without crshim they fail with ENOSYS.
//
// # Who runs what
//
// Serve runs on a goroutine of its own for each request; requests run side by side, but those of one task follow each
// other: a task may run on while the handler of its call still has to put something down. A Context belongs to that one
// goroutine, except Answer, Answered and Valid, which any goroutine may call. A handler that panics costs its caller
// an ENOSYS, and nobody else anything.
//
// docs/adding-a-syscall.md shows how to add a call.
package syscalls
