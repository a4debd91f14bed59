// Package core does what the calls mean: it saves processes into images and
// rebuilds them, in the steps of the 2009 design.
//
// # Checkpoint
//
//	predump   catch the caller, ask the kernel for its rights, look at the target and
//	          refuse with a list of everything that stands in the way
//	freeze    stop every task of the target
//	survey    ask and look again, now that nothing can change
//	dump      write the image
//	thaw      let the target go on, stop it or kill it
//	postdump  what the thaw need not wait for
//
// Up to the dump nothing is written, so a refusal leaves no image behind.
//
// # Restart
//
//	receive   take the image's descriptor
//	decode    read and check what concerns the machine, before anybody is stopped
//	catch     stop the caller, or make a blank process
//	stage     read everything else and build it beside what the caller has
//	commit    put it in the caller's place: the only part that cannot fail harmlessly
//	record    let it run
//
// Each step is a row of a table, and a test can end the supervisor after each.
//
// # Trees
//
// A checkpoint from outside takes the target with all that descend from it
// (member.go, forest.go); a caller that saves itself goes alone. In the stage of
// a restart each process is forked by its parent when the image comes to it
// (grow.go), or is a task that a restarter has forked and that waits for the root
// (muster.go, adopt.go); in the commit the children go first.
//
// # Threads and trust
//
// An operation runs on one goroutine that owns one OS thread (tracer.Run), so
// any number of them run side by side; task.Claims keeps them off each
// other's processes. What a process may do to another one is decided by the
// kernel with that process's own rights: the supervisor's are never lent.
// Images are hostile input.
package core
