package tracer

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Regs is struct user_regs_struct of <sys/user.h>.
type Regs unix.PtraceRegs

// Errors that the kernel keeps to itself (include/linux/errno.h): a stopped
// task shows them in rax while its system call waits to be restarted.
const (
	erestartsys          = -512
	erestartnointr       = -513
	erestartnohand       = -514
	erestartRestartblock = -516
)

const (
	noSyscall    = ^uint64(0) // orig_rax outside of a system call
	syscallSize  = 2          // 0f 05
	trapFlag     = 1 << 8
	userCS       = 0x33 // __USER_CS
	user32CS     = 0x23 // __USER32_CS
	taskSize     = 1<<47 - 4096
	offsetRIP    = 16 * 8 // in struct user
	offsetRAX    = 10 * 8
	offsetNR     = 15 * 8 // orig_rax
	offsetRSP    = 19 * 8
	resumeNumber = unix.SYS_RESTART_SYSCALL
)

// IP is the instruction pointer.
func (r *Regs) IP() Addr { return Addr(r.Rip) }

// SP is the stack pointer.
func (r *Regs) SP() Addr { return Addr(r.Rsp) }

// Result is what the system call returned, an error as a negative number.
func (r *Regs) Result() int64 { return int64(r.Rax) }

// SetResult makes the system call return v, and keeps the kernel from
// restarting it.
func (r *Regs) SetResult(v int64) { r.Rax, r.Orig_rax = uint64(v), noSyscall }

// SyscallNr is the number of the system call that the task is in, negative
// outside of one.
func (r *Regs) SyscallNr() int64 { return int64(r.Orig_rax) }

// InSyscall says whether the task is in a system call.
func (r *Regs) InSyscall() bool { return int64(r.Orig_rax) >= 0 }

// Is32 says whether the task runs 32-bit code.
func (r *Regs) Is32() bool { return r.Cs == user32CS }

// Restart is -512, -513, -514 or -516 if the task is in a system call that
// was interrupted and that the kernel would restart, else 0.
func (r *Regs) Restart() int {
	if r.InSyscall() {
		switch r.Result() {
		case erestartsys, erestartnointr, erestartnohand, erestartRestartblock:
			return int(r.Result())
		}
	}
	return 0
}

// settled returns the registers with which the task, on its own, does what
// the kernel would have done when it resumed: an interrupted system call is
// made again (arch/x86/kernel/signal.c, arch_do_signal_or_restart).
func (r Regs) settled() Regs {
	switch r.Restart() {
	case 0:
	case erestartRestartblock:
		r.Rip -= syscallSize
		r.Rax = resumeNumber
	default:
		r.Rip -= syscallSize
		r.Rax = r.Orig_rax
	}
	r.Orig_rax = noSyscall
	return r
}

// calling returns the registers with which the task makes one system call by
// the syscall instruction at ip.
func (r Regs) calling(ip Addr, nr uint64, args ...uint64) Regs {
	r.Rip, r.Rax, r.Orig_rax = uint64(ip), nr, noSyscall
	r.Eflags &^= trapFlag
	for i, dst := range []*uint64{&r.Rdi, &r.Rsi, &r.Rdx, &r.R10, &r.R8, &r.R9} {
		if i < len(args) {
			*dst = args[i]
		}
	}
	return r
}

// ValidateRegs says whether a task can be given these registers and live:
// SETREGS refuses kernel selectors and bases (arch/x86/kernel/ptrace.c), but
// takes an instruction pointer that kills. The error matches ErrState.
func ValidateRegs(r Regs) error {
	bad := func(name string, v uint64) error {
		return fmt.Errorf("%s %#x: %w", name, v, ErrState)
	}
	for _, a := range []struct {
		name string
		v    uint64
	}{{"rip", r.Rip}, {"rsp", r.Rsp}, {"fs_base", r.Fs_base}, {"gs_base", r.Gs_base}} {
		if a.v >= taskSize {
			return bad(a.name, a.v)
		}
	}
	if r.Cs != userCS && r.Cs != user32CS {
		return bad("cs", r.Cs)
	}
	for _, s := range []struct {
		name string
		v    uint64
	}{{"ss", r.Ss}, {"ds", r.Ds}, {"es", r.Es}, {"fs", r.Fs}, {"gs", r.Gs}} {
		if s.v > 0xffff || s.v != 0 && s.v&3 != 3 || s.v == 0 && s.name == "ss" {
			return bad(s.name, s.v)
		}
	}
	// IOPL, VM, VIF and VIP are not the task's to set.
	const userFlags = 0x0ed5 | 0x2 | 1<<14 | 1<<16 | 1<<18 | 1<<21 | trapFlag
	if r.Eflags&^userFlags != 0 {
		return bad("eflags", r.Eflags)
	}
	return nil
}
