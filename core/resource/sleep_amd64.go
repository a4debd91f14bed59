package resource

import (
	"encoding/binary"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/tracer"
)

const sleepKind image.Kind = 6506

// sleepRecord is a call that the kernel would continue by restart_syscall(2):
// it keeps the time of its end to itself, in a block that a new task lacks.
type sleepRecord struct {
	NR        int32 `doc:"number of the call"`
	_         [4]byte
	Remaining int64 `doc:"nanoseconds that are left"`
}

// SleepingCall is the call to be begun in the restored task, and interrupted
// at once, so that the kernel has a block again and the registers stay as
// they were.
type SleepingCall struct {
	NR        int
	Remaining time.Duration
}

// sleepingCall finds out how long the frozen task would have slept on.
//
// nanosleep and clock_nanosleep write the rest to memory if the program wants
// to know it (hrtimer_nanosleep). Otherwise the time since the task last ran
// is taken off: that is exact unless the sleep had been interrupted before,
// and then too long rather than too short. Where the kernel does not tell that
// time, the whole interval is slept again.
func (t *SavedThread) sleepingCall() (sleepRecord, bool) {
	r := t.State.Regs
	if r.Restart() != restartBlock {
		return sleepRecord{}, false
	}
	rec := sleepRecord{NR: int32(r.Orig_rax)}
	var whole time.Duration
	var ok bool
	switch int(r.Orig_rax) {
	case unix.SYS_NANOSLEEP:
		if left, ok := t.timespec(r.Rsi); ok {
			rec.Remaining = int64(left)
			return rec, true
		}
		whole, ok = t.timespec(r.Rdi)
	case unix.SYS_CLOCK_NANOSLEEP:
		if left, ok := t.timespec(r.R10); ok {
			rec.Remaining = int64(left)
			return rec, true
		}
		whole, ok = t.timespec(r.Rdx)
	case unix.SYS_POLL:
		whole, ok = time.Duration(int32(r.Rdx))*time.Millisecond, int32(r.Rdx) >= 0
	case unix.SYS_FUTEX:
		const opMask, wait = 0x7f, 0 // FUTEX_CMD_MASK; of all waits only FUTEX_WAIT has an interval
		if r.Rsi&opMask == wait {
			whole, ok = t.timespec(r.R10)
		}
	}
	if !ok {
		return sleepRecord{}, false // begun anew, with its own arguments
	}
	if t.Asleep.Known {
		whole = max(whole-t.Asleep.For, 0)
	}
	rec.Remaining = int64(whole)
	return rec, true
}

// restartBlock is -ERESTART_RESTARTBLOCK (include/linux/errno.h).
const restartBlock = -516

// timespec reads a struct timespec of the task, false if there is none.
func (t *SavedThread) timespec(at uint64) (time.Duration, bool) {
	if at == 0 {
		return 0, false
	}
	raw := make([]byte, 16)
	if err := t.Tracee.ReadMem(tracer.Addr(at), raw); err != nil {
		return 0, false
	}
	sec, nsec := int64(binary.LittleEndian.Uint64(raw)), int64(binary.LittleEndian.Uint64(raw[8:]))
	const most = int64(1<<63-1) / int64(time.Second)
	if sec < 0 || sec >= most || nsec < 0 || nsec >= int64(time.Second) {
		return 0, false
	}
	return time.Duration(sec)*time.Second + time.Duration(nsec), true
}

func loadSleep(b *Builder) (*SleepingCall, error) {
	rec, _, err := image.Expect[sleepRecord](b.R)
	if err != nil {
		return nil, err
	}
	switch rec.NR {
	case unix.SYS_NANOSLEEP, unix.SYS_CLOCK_NANOSLEEP, unix.SYS_POLL, unix.SYS_FUTEX:
	default:
		return nil, badImage(fault.ImageValue, "interrupted call", "number %d", rec.NR)
	}
	if rec.Remaining < 0 {
		return nil, badImage(fault.ImageValue, "interrupted call", "%d ns left", rec.Remaining)
	}
	return &SleepingCall{NR: int(rec.NR), Remaining: time.Duration(rec.Remaining)}, nil
}

// resumeSleep begins a thread's interrupted call again for what is left of it and
// interrupts it at once. If it ends instead, because time is up or something
// happened meanwhile, its result is the result of the original call.
func (b *Builder) resumeSleep(t *LoadedThread, interrupted func(nr uintptr, args ...uint64) (int64, error)) error {
	r := &t.State.Regs
	if r.Restart() != restartBlock {
		return nil
	}
	call := t.Interrupted
	if call == nil || call.NR != int(r.Orig_rax) {
		const noInterrupt = -513 // -ERESTARTNOINTR: make the call anew
		r.Rax = ^uint64(-noInterrupt) + 1
		return nil
	}
	left := unix.NsecToTimespec(int64(call.Remaining))
	p := b.Remote.Program()
	timespec := p.Buffer(16)
	p.Store(timespec, tracer.Imm(uint64(left.Sec)))
	p.Store(timespec+8, tracer.Imm(uint64(left.Nsec)))
	if err := p.Run(); err != nil {
		return err
	}
	at := uint64(timespec)
	args := []uint64{r.Rdi, r.Rsi, r.Rdx, r.R10, r.R8, r.R9}
	switch call.NR {
	case unix.SYS_NANOSLEEP:
		args[0] = at
	case unix.SYS_CLOCK_NANOSLEEP:
		args[2] = at
	case unix.SYS_POLL:
		args[2] = uint64((call.Remaining + time.Millisecond - 1) / time.Millisecond)
	case unix.SYS_FUTEX:
		args[3] = at
	}
	result, err := interrupted(uintptr(call.NR), args...)
	if err != nil {
		return err
	}
	if result != restartBlock {
		r.SetResult(result)
	}
	return nil
}
