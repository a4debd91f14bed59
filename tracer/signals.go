package tracer

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"
)

// Siginfo is siginfo_t as the kernel lays it out on x86-64.
type Siginfo [128]byte

// Signo is si_signo.
func (s *Siginfo) Signo() unix.Signal { return unix.Signal(binary.LittleEndian.Uint32(s[0:])) }

// Code is si_code: negative or 0 from a process, positive from the kernel.
func (s *Siginfo) Code() int32 { return int32(binary.LittleEndian.Uint32(s[8:])) }

// PID is si_pid, of a signal that a process sent.
func (s *Siginfo) PID() TID { return TID(binary.LittleEndian.Uint32(s[16:])) }

// bare is what the kernel makes up of a signal that it had no room to queue the
// information of (RLIMIT_SIGPENDING; collect_signal of kernel/signal.c).
func (s *Siginfo) bare() bool {
	const user = 0 // SI_USER

	return s.Code() == user && binary.LittleEndian.Uint64(s[16:]) == 0 // si_pid, si_uid
}

const siTkill = -6 // SI_TKILL of <asm-generic/siginfo.h>

func bit(sig unix.Signal) uint64 { return 1 << (uint(sig) - 1) }

// Sigmask is the set of blocked signals: bit n-1 for signal n. In a call like
// sigsuspend(2) it is the set that will be blocked afterwards.
func (e *Tracee) Sigmask() (uint64, error) {
	if err := e.ready(); err != nil {
		return 0, e.fault("read signal mask of", err)
	}
	mask, err := e.getSigmask()
	return mask, e.fault("read signal mask of", err)
}

// SetSigmask replaces the set of blocked signals.
func (e *Tracee) SetSigmask(mask uint64) error {
	err := e.ready()
	if err == nil {
		err = e.setSigmask(mask)
	}
	return e.fault("set signal mask of", err)
}

// Siginfo describes the signal of a SignalStop; in a group stop there is none,
// and the error wraps EINVAL (ptrace(2), PTRACE_GETSIGINFO).
func (e *Tracee) Siginfo() (Siginfo, error) {
	if err := e.ready(); err != nil {
		return Siginfo{}, e.fault("read siginfo of", err)
	}
	info, err := e.getSiginfo()
	return info, e.fault("read siginfo of", err)
}

// PeekSiginfo returns the signals that are queued and not yet delivered, in
// their order: those sent to the whole process if shared, else those sent to
// this thread (PTRACE_PEEKSIGINFO).
func (e *Tracee) PeekSiginfo(shared bool) ([]Siginfo, error) {
	if err := e.ready(); err != nil {
		return nil, e.fault("read queued signals of", err)
	}
	var flags uint32
	if shared {
		flags = unix.PTRACE_PEEKSIGINFO_SHARED
	}
	var all []Siginfo
	chunk := make([]Siginfo, 32)
	for {
		n, err := e.peekSiginfo(uint64(len(all)), flags, chunk)
		if err != nil {
			return nil, e.fault("read queued signals of", err)
		}
		all = append(all, chunk[:n]...)
		if n < len(chunk) {
			return all, nil
		}
	}
}

// signal sends sig to this thread.
func (e *Tracee) signal(sig unix.Signal) error {
	leader, err := e.Leader()
	if err != nil {
		return err
	}
	return unix.Tgkill(int(leader), int(e.tid), sig)
}

// resend sends a signal that was taken from the task once more. The kernel
// takes a siginfo from us only if it says that a process queued it; else the
// signal alone has to do.
func (e *Tracee) resend(info *Siginfo) error {
	sig := info.Signo()
	if info.Code() < 0 && info.Code() != siTkill {
		leader, err := e.Leader()
		if err == nil {
			err = queueSignal(leader, e.tid, sig, info)
		}
		return err
	}
	if err := e.signal(sig); err != nil {
		return fmt.Errorf("send %s again: %w", unix.SignalName(sig), err)
	}
	return nil
}
