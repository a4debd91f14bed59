// Package seccomp is how a call arrives: it builds the filter that picks out a few system call numbers, loads it with a
// listener, receives the calls and answers each of them once. It knows nothing of what the calls mean.
//
// # Filter
//
// Build makes one program for both interfaces of an x86-64 kernel (x86-64 and i386). Numbers that are not asked for,
// x32 and foreign architectures are allowed; the filter never kills. docs/decisions/002-one-filter-for-two-architectures.md
// says how libseccomp is brought to it. Load attaches it to the calling thread, which must be locked to its goroutine, with
// SECCOMP_FILTER_FLAG_NEW_LISTENER and SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (Linux 5.19). libseccomp can set the second
// from version 2.6 on only, so the load is a plain seccomp(2).
//
// # Life of a notification (seccomp_unotify(2))
//
//	caller          supervisor
//	makes the call
//	waits           Recv: from here on only SIGKILL ends the wait (WAIT_KILLABLE_RECV)
//	waits           handles it; Valid tells whether the caller still waits
//	goes on         Return, Fail: the one answer
//
// Before Recv a signal to the caller withdraws the notification, as nothing has begun yet: the call is made again behind a
// handler with SA_RESTART, and fails with EINTR behind another. Recv passes over a withdrawn one. If the last copy of the listener is closed, all callers that wait get ENOSYS.
// A Listener is for one receiving goroutine; notifications are answered from any.
package seccomp
