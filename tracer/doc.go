// Package tracer is eyes and hands in another process: it stops a thread,
// looks at it, changes it, has it make system calls, and lets it go on.
//
// # The promise
//
// We may be ended by SIGKILL at any moment, and the task must go on as if
// nothing had been done to it. Nothing here relies on code of ours being run
// afterwards: whatever a stopped task is left in leads it back by itself.
//
// # Threads
//
// The kernel takes ptrace(2) requests for a tracee from one thread only. Run
// starts a goroutine on an OS thread of its own; Tracer, Tracee and Remote
// belong to it, and panic elsewhere. They wait with __WNOTHREAD, and so never
// take a child of other threads; nor must anybody else wait for their tracees
// (exec.Cmd.Wait would steal stops).
//
// # Injection
//
// A Tracee makes no system calls. Inject borrows the task and passes a Remote
// that has it run a Program: a list of calls in which an argument may be the
// result of an earlier one, made in one go and with a single stop at its end.
// A Remote cannot Inject, so loans do not nest on one thread. Who needs several
// threads at a time has Borrow and GiveBack instead, and has their programs run
// beside each other by Start and Finish; Fork makes a child of the borrowed
// process.
//
//	err := task.Inject(tracer.InjectOptions{}, func(r *tracer.Remote) error {
//		p := r.Program()
//		file := p.Openat(tracer.FD(unix.AT_FDCWD), "/etc/motd", unix.O_RDONLY, 0)
//		file.Undo(unix.SYS_CLOSE, file)
//		p.Dup3(file, tracer.FD(5), 0)
//		return p.Run()
//	})
//
// How a loan goes, and what a task does at each point if we are gone then:
//
//	boot code, in the zeros at the end of the vdso, is filled with the task's
//	  registers and mask         nothing has happened to the task
//	instruction pointer to boot  makes the call (mmap), unmaps again, loads all it
//	                             had, goes on
//	scratch memory is mapped, filled with the stub and a header
//	                             same
//	instruction pointer to stub  runs the program, makes the undo calls,
//	                             unmaps scratch memory by the boot code, goes on
//	parked between programs      makes the undo calls, and so forth
//	instruction pointer to boot  unmaps scratch memory, loads all it had, goes on
//	registers and mask are put back
//	                             goes on
//
// A task parks by sending itself a signal that is ignored by default (SIGURG,
// SIGWINCH or SIGCHLD): a traced one stops for it, any other takes no notice
// of it, or runs its own handler. All other signals are blocked until the end.
//
// After Remote.Become the header holds another state instead of the task's
// own, and that is what the task loads, here or by itself.
//
// # Siblings
//
// The other threads of a borrowed process run programs of their own in a region
// that they share (Visit), and so do new ones (Spawn). They wait for a word of
// it by futex(2) and are stopped by us only there; the borrowed thread sets the
// word, and if we are gone it does so as one of its undo calls. A visited
// thread then goes back by rt_sigreturn(2), a spawned one ends or, after
// Become, goes on as what it was to be.
//
// What can remain if we are ended: 216 bytes in the vdso's padding, which
// nobody reads; scratch memory beyond the first area (programs with much
// data), and all of it after Become or Keep; a SIGSTOP, or a foreign signal of
// the kind that parks, that came during the loan is lost; the region of siblings;
// of a call that a visited thread was in, the time that was left: it ends with
// EINTR.
//
// A seccomp filter that forbids mmap, munmap, getpid, gettid, tgkill or
// rt_sigprocmask makes a task impossible to borrow without CAP_SYS_ADMIN: with
// it filters do not apply while we trace (PTRACE_O_SUSPEND_SECCOMP). One that
// forbids rt_sigprocmask or munmap leaves signals blocked or memory mapped if
// we are ended.
//
// # Errors
//
// Death is ordinary: every method may return ErrGone. A failed call in the
// task is a *CallError, which is its errno. Misuse (a wrong thread, a Remote
// after its Inject) panics.
package tracer
