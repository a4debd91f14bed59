package resource

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// insnSize is that of struct sock_filter of <linux/filter.h>: code u16, jt u8,
// jf u8, k u32.
const insnSize = 8

// asksOthers says why a filter is more than its code: what it returns may be a
// question to whoever holds its listener, and that is not there at restart.
func asksOthers(code []byte) string {
	for ; len(code) >= insnSize; code = code[insnSize:] {
		k := binary.LittleEndian.Uint32(code[4:])
		switch op := binary.LittleEndian.Uint16(code); {
		case op == unix.BPF_RET|unix.BPF_K && k&unix.SECCOMP_RET_ACTION_FULL == unix.SECCOMP_RET_USER_NOTIF:
			return "it asks a listener (SECCOMP_RET_USER_NOTIF)"
		case op == unix.BPF_RET|unix.BPF_A:
			return "it returns a value that it computes, which may be a question to a listener"
		}
	}
	return ""
}

// allowAll is a filter that allows every call: BPF_RET|BPF_K SECCOMP_RET_ALLOW.
var allowAll = []byte{unix.BPF_RET | unix.BPF_K, 0, 0, 0, 0, 0, 0xff, 0x7f}

// tryFilters has the kernel check filters without loading them. A thread of
// ours, which ends with it, has one with a listener: another that wants a
// listener as well is refused, but is read and checked before that
// (seccomp_set_mode_filter of kernel/seccomp.c).
func tryFilters(filters []*sandboxFilter) error {
	tried := make(chan error)
	go func() {
		runtime.LockOSThread() // for ever: nothing else is to run under the filter
		tried <- tryAll(filters)
	}()
	return <-tried
}

func tryAll(filters []*sandboxFilter) error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	listener, err := loadFilter(allowAll, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER)
	switch {
	case err == nil:
		defer func() { _ = unix.Close(listener) }() // nothing is asked
	case !errors.Is(err, unix.EBUSY): // else there is one above us already
		return fmt.Errorf("load a filter: %w", err)
	}
	for _, f := range filters {
		switch _, err := loadFilter(f.code, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER); {
		case errors.Is(err, unix.EINVAL):
			return fmt.Errorf("filter %d: %w", f.ID, errBadFilter)
		case !errors.Is(err, unix.EBUSY):
			return fmt.Errorf("try filter %d: %w", f.ID, err)
		}
	}
	return nil
}

var errBadFilter = errors.New("not a program that the kernel takes")
