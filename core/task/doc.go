// Package task stops tasks and lets them go: callers of the emulated calls,
// and processes that someone else wants saved.
//
// A caller waits in the kernel for the answer to its notification and cannot
// be stopped there. Catch seizes it, leaves an interrupt pending, and only then
// answers: the task comes to a ptrace stop at the exit of its system call,
// before any instruction of its own (answer, then catch). The answer is an
// error, EINTR, so that a supervisor which dies now leaves behind a call that
// failed, never one that seems to have returned from a restart.
//
// Claims keep two operations off the same process. An operation claims all
// that it will stop at once, so there is no order to get wrong. A task that
// still waits with a call of its own while someone else freezes it is answered
// with a restart of that call: it will ask again when it runs again.
//
// A target that its control group has frozen is thawed for as long as it takes,
// under the eyes of the tracer, and so is whoever shares the group (freezer.go).
//
// A tree is stopped from its root downwards: who is stopped makes no more
// children, so that nobody escapes (tree.go).
//
// Everything that touches a tracee runs on the thread of its tracer; Claims
// may be used from any goroutine.
package task
