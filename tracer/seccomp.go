package tracer

import "golang.org/x/sys/unix"

// A SeccompFilter is a filter of a task as it was given to seccomp(2).
type SeccompFilter struct {
	Code []byte // struct sock_filter[] of <linux/filter.h>, 8 bytes each
	Log  bool   // SECCOMP_FILTER_FLAG_LOG
}

// SeccompFilter returns the nth filter of a stopped task, counted from the
// oldest one, which is 0 (get_nth_filter of kernel/seccomp.c).
//
// The error wraps ENOENT if there are not so many, EACCES if we lack
// CAP_SYS_ADMIN over the machine or are under a filter ourselves, and
// EMEDIUMTYPE if the filter was not given as classic BPF.
func (e *Tracee) SeccompFilter(n int) (f SeccompFilter, err error) {
	if err := e.ready(); err != nil {
		return f, e.fault("read seccomp filter of", err)
	}
	if f.Code, err = e.getSeccompFilter(n); err == nil {
		var flags uint64
		flags, err = e.getSeccompFlags(n)
		f.Log = flags&unix.SECCOMP_FILTER_FLAG_LOG != 0
	}
	return f, e.fault("read seccomp filter of", err)
}
