// Package resource knows every kind of thing that a process has: how to see
// whether it can be saved, how to save it, and how to build it again.
//
// A resource is one file, both directions side by side, and one line in one
// table: Parts for what each task has once (its memory, its descriptors, its
// registers), Files for the kinds of open files. Record structs stand beside
// the code that writes and reads them.
//
// Saving: a View is what /proc shows of the process. Survey looks at it and
// names everything that cannot be saved, before anything is touched and again
// once the process is frozen. Ask adds system calls to one program that the
// frozen task runs, for what only the task itself can tell. Dump writes the
// records, in the order of the table, which is the order of the image.
//
// Restoring: Load reads the records and stages what they describe: mappings
// at addresses and files at descriptors that are free in the caller, so that
// dropping all that is new leaves the caller as it was. Commit adds, to one
// last program, the calls that put the staged things into place. Whatever can
// fail must fail in Load. The image is hostile input: each value is checked in
// Load before a system call sees it.
//
// Threads: what each has of its own is the matter of the same table. The first
// one's parts stand among those of the process; the others follow behind, and
// run programs of their own, all at the same time (threads.go).
//
// All of it runs on the thread of the operation's tracer, but for what only reads:
// views are taken, page maps are compared and memory is copied beside it.
package resource
