// Package shim is the program crshim: its verbs, the launcher, the supervisor's loop, logging, and how an error is shown.
//
// # Streams
//
// Standard output carries data only: an image, a report, or what the program under `crshim run` writes. Everything
// that is meant for a person to read on the way (errors, log, progress) goes to standard error. An image is never
// written to a terminal.
//
// # Errors
//
// A verb returns an error and prints nothing itself; Main prints it once, in the shape
//
//	crshim: CR1203 cannot save fd 7 of pid 421 (redis-server): io_uring instance
//	why: ...
//	try: ...
//
// with every blocker of a refusal in one list. See errors.go.
//
// # Exit status
//
// `run` and `restart` end as their target does, by status or by signal; if crshim itself fails they end with 125, with
// 126 if the command cannot be invoked and 127 if it is not found. Every other verb ends with 0 for ok or yes, 1 for
// failed or no, 2 for a wrong command line.
//
// # Where things are
//
// One verb is one file. newRootCommand in root.go lists them all; completion, help and man pages follow from that tree.
package shim
