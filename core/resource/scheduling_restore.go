package resource

import (
	"bytes"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/tracer"
)

// Decide finds what differs from the caller, and whether that may be had. Where
// the way back is certain the caller tries it: it alone knows what its control
// group allows, or whether a deadline fits.
func (r *schedulingRestore) Decide(b *Builder, t *LoadedThread) error {
	if r.schedulingRecord == nil || b.Policy.Limits == CallerLimits {
		r.cpus = nil
		return nil
	}
	from, name := b.sched.attr, fmt.Sprintf("thread %d", t.Saved)
	r.set = r.attr != from
	r.clamps = r.attr.UtilMin != from.UtilMin || r.attr.UtilMax != from.UtilMax
	r.ioprio = uint64(r.IOPrio) != b.sched.ioprio.Result()
	may, err := b.mayPrioritize()
	if err != nil {
		return err
	}
	if r.attr.Policy == schedDeadline {
		if b.sched.deadlines++; b.sched.deadlines > 1 {
			return &fault.Error{Code: fault.SchedulingRefused, Object: name, Detail: "more than one thread with a deadline"}
		}
	}
	switch {
	case r.ioprio && r.IOPrio>>ioClassShift == ioRealtime && !may && !b.capable(capSysAdmin):
		return &fault.Error{Code: fault.SchedulingRefused, Object: name, Detail: "real-time I/O priority", Err: unix.EPERM}
	case r.set && !may:
		limits, err := b.Caller.Proc.Limits()
		if err != nil {
			return err
		}
		if !maySchedule(&from, &r.attr, limits[unix.RLIMIT_NICE].Soft, limits[unix.RLIMIT_RTPRIO].Soft) {
			return &fault.Error{Code: fault.SchedulingRefused, Object: name, Detail: r.attr.String(), Err: unix.EPERM}
		}
	}
	if r.set && (may || r.attr.realtime()) {
		p := b.Stage()
		b.Expect(r.attr.setFor(p, 0, r.clamps), fault.SchedulingRefused, name)
		b.Expect(from.setFor(p, 0, r.clamps), fault.SchedulingRefused, name)
	}
	return r.decideCPUs(b, name)
}

// decideCPUs finds what processors the thread is to be bound to.
func (r *schedulingRestore) decideCPUs(b *Builder, name string) error {
	online, err := b.sched.online.get()
	if err != nil {
		return err
	}
	want := r.cpus
	switch {
	case r.Unbound == 1 && b.sched.cpus.unbound(online), slices.Equal(want, b.sched.cpus):
		r.cpus = nil
		return nil
	case r.Unbound == 1:
		r.cpus = slices.Repeat(cpuSet{^uint64(0)}, maxCPUs/64)
	case b.sched.tried == r.CPUs:
		return nil // by the thread before
	}
	b.sched.tried = r.CPUs
	p := b.Stage()
	mask := func(at tracer.Addr, nr uintptr) *tracer.Row {
		return p.Call(nr, tracer.Imm(0), tracer.Imm(maxCPUs/8), tracer.Ptr(at))
	}
	own, now := p.Bytes(make([]byte, maxCPUs/8)), p.Bytes(make([]byte, maxCPUs/8))
	b.Expect(mask(own, unix.SYS_SCHED_GETAFFINITY), fault.NoSuchCPU, name)
	b.Expect(setCPUs(p, 0, r.cpus), fault.NoSuchCPU, name)
	b.Expect(mask(now, unix.SYS_SCHED_GETAFFINITY), fault.NoSuchCPU, name)
	b.Expect(mask(own, unix.SYS_SCHED_SETAFFINITY), fault.NoSuchCPU, name)
	if err := b.Flush(); err != nil || r.Unbound == 1 {
		return err
	}
	got := make([]byte, maxCPUs/8)
	if err := b.Remote.ReadMem(now, got); err != nil {
		return err
	}
	if !bytes.Equal(bytes.TrimRight(got, "\x00"), bytes.TrimRight(want.bytes(), "\x00")) {
		b.Warn("%s is bound to what there is of the processors %s", name, r.CPUs)
	}
	return nil
}

// mayPrioritize tells whether the caller has CAP_SYS_NICE over the machine.
func (b *Builder) mayPrioritize() (bool, error) {
	ns, err := b.Caller.Proc.NS("user")
	return ns == initialUser && b.capable(unix.CAP_SYS_NICE), err
}

func (a *schedAttr) String() string {
	return fmt.Sprintf("policy %d, nice %d, priority %d", a.Policy, a.Nice, a.Priority)
}

// setFor adds the setting for a thread of the process, 0 for the one that makes the call.
func (a *schedAttr) setFor(p *tracer.Program, tid tracer.Imm, clamps bool) *tracer.Row {
	return p.Call(unix.SYS_SCHED_SETATTR, tid, tracer.Ptr(p.Bytes(a.encode(clamps))), tracer.Imm(0))
}

func setCPUs(p *tracer.Program, tid tracer.Imm, cpus cpuSet) *tracer.Row {
	return p.Call(unix.SYS_SCHED_SETAFFINITY, tid, tracer.Imm(8*len(cpus)), tracer.Ptr(p.Bytes(cpus.bytes())))
}

func (r *schedulingRestore) Commit(*Builder, *LoadedThread, *tracer.Program) error { return nil }

// Lead has the leader do it for every thread, while it has its rights and
// limits.
func (r *schedulingRestore) Lead(_ *Builder, t *LoadedThread, p *tracer.Program) error {
	tid := tracer.Imm(t.TID)
	if r.cpus != nil {
		setCPUs(p, tid, r.cpus)
	}
	if r.set {
		r.attr.setFor(p, tid, r.clamps)
		if !r.attr.fair() {
			p.Call(unix.SYS_SETPRIORITY, tracer.Imm(unix.PRIO_PROCESS), tid, tracer.Imm(int64(r.attr.Nice)))
		}
	}
	if r.ioprio {
		p.Call(unix.SYS_IOPRIO_SET, tracer.Imm(ioWhoProcess), tid, tracer.Imm(r.IOPrio))
	}
	return nil
}
