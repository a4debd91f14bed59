package tracer

import (
	"fmt"
	"structs"
	"unsafe"

	"golang.org/x/sys/unix"
)

// beforeRequest, when set, is called ahead of everything that is done to a
// tracee. Tests end the process there.
var beforeRequest func()

func ptrace(request int, tid TID, addr uintptr, data unsafe.Pointer) (uintptr, error) {
	if beforeRequest != nil {
		beforeRequest()
	}
	n, _, errno := unix.Syscall6(unix.SYS_PTRACE, uintptr(request), uintptr(tid), addr, uintptr(data), 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return n, nil
}

// ptraceValue is for requests whose data argument is a number.
func ptraceValue(request int, tid TID, addr, data uintptr) error {
	if beforeRequest != nil {
		beforeRequest()
	}
	_, _, errno := unix.Syscall6(unix.SYS_PTRACE, uintptr(request), uintptr(tid), addr, data, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

func (e *Tracee) getRegs() (regs Regs, err error) {
	_, err = ptrace(unix.PTRACE_GETREGS, e.tid, 0, unsafe.Pointer(&regs))
	return regs, err
}

func (e *Tracee) setRegs(regs Regs) error {
	_, err := ptrace(unix.PTRACE_SETREGS, e.tid, 0, unsafe.Pointer(&regs))
	return err
}

// peekUser reads the word at an offset of struct user (sys/user.h).
func (e *Tracee) peekUser(offset uintptr) (word uint64, err error) {
	_, err = ptrace(unix.PTRACE_PEEKUSR, e.tid, offset, unsafe.Pointer(&word))
	return word, err
}

func (e *Tracee) getSigmask() (mask uint64, err error) {
	_, err = ptrace(unix.PTRACE_GETSIGMASK, e.tid, unsafe.Sizeof(mask), unsafe.Pointer(&mask))
	return mask, err
}

func (e *Tracee) setSigmask(mask uint64) error {
	_, err := ptrace(unix.PTRACE_SETSIGMASK, e.tid, unsafe.Sizeof(mask), unsafe.Pointer(&mask))
	return err
}

func (e *Tracee) getSiginfo() (info Siginfo, err error) {
	_, err = ptrace(unix.PTRACE_GETSIGINFO, e.tid, 0, unsafe.Pointer(&info))
	return info, err
}

func (e *Tracee) eventMessage() (message uint64, err error) {
	_, err = ptrace(unix.PTRACE_GETEVENTMSG, e.tid, 0, unsafe.Pointer(&message))
	return message, err
}

// getRegset fills buf and returns the part of it that the kernel wrote.
func (e *Tracee) getRegset(set uintptr, buf []byte) ([]byte, error) {
	iov := unix.Iovec{Base: &buf[0], Len: uint64(len(buf))}
	if _, err := ptrace(unix.PTRACE_GETREGSET, e.tid, set, unsafe.Pointer(&iov)); err != nil {
		return nil, err
	}
	return buf[:iov.Len], nil
}

func (e *Tracee) setRegset(set uintptr, buf []byte) error {
	iov := unix.Iovec{Base: &buf[0], Len: uint64(len(buf))}
	_, err := ptrace(unix.PTRACE_SETREGSET, e.tid, set, unsafe.Pointer(&iov))
	return err
}

// peekSiginfoArgs is struct ptrace_peeksiginfo_args of <linux/ptrace.h>.
type peekSiginfoArgs struct {
	_     structs.HostLayout
	off   uint64
	flags uint32
	nr    int32
}

// peekSiginfo returns up to len(infos) queued signals from the off'th on.
func (e *Tracee) peekSiginfo(off uint64, flags uint32, infos []Siginfo) (int, error) {
	args := peekSiginfoArgs{off: off, flags: flags, nr: int32(len(infos))}
	if beforeRequest != nil {
		beforeRequest()
	}
	n, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_PEEKSIGINFO, uintptr(e.tid),
		uintptr(unsafe.Pointer(&args)), uintptr(unsafe.Pointer(&infos[0])), 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// rseqConfiguration is struct ptrace_rseq_configuration of <linux/ptrace.h>.
type rseqConfiguration struct {
	_         structs.HostLayout
	pointer   uint64
	size      uint32
	signature uint32
	flags     uint32
	pad       uint32
}

func (e *Tracee) getRseq() (RseqConfig, error) {
	var c rseqConfiguration
	n, err := ptrace(unix.PTRACE_GET_RSEQ_CONFIGURATION, e.tid, unsafe.Sizeof(c), unsafe.Pointer(&c))
	if err != nil {
		return RseqConfig{}, err
	}
	if n < unsafe.Offsetof(c.pad) {
		return RseqConfig{}, fmt.Errorf("%d bytes: %w", n, unix.EINVAL)
	}
	return RseqConfig{Pointer: Addr(c.pointer), Size: c.size, Signature: c.signature, Flags: c.flags}, nil
}

func getRobustList(tid TID) (head Addr, length uint64, err error) {
	_, _, errno := unix.Syscall(unix.SYS_GET_ROBUST_LIST, uintptr(tid),
		uintptr(unsafe.Pointer(&head)), uintptr(unsafe.Pointer(&length)))
	if errno != 0 {
		return 0, 0, errno
	}
	return head, length, nil
}

// queueSignal is rt_tgsigqueueinfo(2).
func queueSignal(leader, tid TID, sig unix.Signal, info *Siginfo) error {
	_, _, errno := unix.Syscall6(unix.SYS_RT_TGSIGQUEUEINFO, uintptr(leader), uintptr(tid), uintptr(sig),
		uintptr(unsafe.Pointer(info)), 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// sudConfig is struct ptrace_sud_config of <linux/ptrace.h>.
type sudConfig struct {
	_        structs.HostLayout
	mode     uint64
	selector uint64
	offset   uint64
	length   uint64
}

// getSyscallDispatch is PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG.
func (e *Tracee) getSyscallDispatch() (mode uint64, err error) {
	const request = 0x4211
	var c sudConfig
	_, err = ptrace(request, e.tid, unsafe.Sizeof(c), unsafe.Pointer(&c))
	return c.mode, err
}

// getSeccompFilter is PTRACE_SECCOMP_GET_FILTER.
func (e *Tracee) getSeccompFilter(n int) ([]byte, error) {
	const insnSize = 8 // struct sock_filter
	length, err := ptrace(unix.PTRACE_SECCOMP_GET_FILTER, e.tid, uintptr(n), nil)
	if err != nil {
		return nil, err
	}
	if length == 0 || length > unix.BPF_MAXINSNS {
		return nil, fmt.Errorf("%d instructions: %w", length, unix.EINVAL)
	}
	code := make([]byte, length*insnSize)
	again, err := ptrace(unix.PTRACE_SECCOMP_GET_FILTER, e.tid, uintptr(n), unsafe.Pointer(&code[0]))
	if err == nil && again != length {
		err = fmt.Errorf("%d instructions, then %d: %w", length, again, unix.EINVAL)
	}
	return code, err
}

// seccompMetadata is struct seccomp_metadata of <linux/ptrace.h>.
type seccompMetadata struct {
	_         structs.HostLayout
	filterOff uint64
	flags     uint64
}

// getSeccompFlags is PTRACE_SECCOMP_GET_METADATA.
func (e *Tracee) getSeccompFlags(n int) (uint64, error) {
	m := seccompMetadata{filterOff: uint64(n)}
	_, err := ptrace(unix.PTRACE_SECCOMP_GET_METADATA, e.tid, unsafe.Sizeof(m), unsafe.Pointer(&m))
	return m.flags, err
}
