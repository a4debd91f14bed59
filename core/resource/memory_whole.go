package resource

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// What holds for the address space as a whole, and for what is mapped later.

const mmMoreKind image.Kind = 6209

// mmMore completes the 2009 record of the address space.
type mmMore struct {
	Flags      uint32 `fmt:"flags" flags:"1=LOCK_FUTURE 2=LOCK_ON_FAULT 4=REFUSE_EXEC_GAIN 8=NO_INHERIT 10=MERGE_ANY" doc:"mlockall(2), PR_SET_MDWE, PR_SET_MEMORY_MERGE of prctl(2)"`
	CoreFilter uint32 `fmt:"hex" doc:"/proc/PID/coredump_filter"`
}

const (
	lockFuture  = 1 << iota // MCL_FUTURE
	lockOnFault             // and MCL_ONFAULT
	refuseExecGain
	mdweNoInherit
	mergeAny
	allMMFlags = 1<<iota - 1
)

const (
	prSetMDWE        = 65 // since Linux 6.3
	prGetMDWE        = 66
	prSetMemoryMerge = 67 // since Linux 6.4
	prGetMemoryMerge = 68
)

// mmAnswer is what a task tells of its address space.
type mmAnswer struct {
	mapped, kept, mdwe, merge *tracer.Row
	resident                  *answer
}

// askMM tries a page of memory: what is locked from the beginning is not given
// back on advice, and is there at once unless it is locked on fault only.
func askMM(p *tracer.Program, resident *answer) mmAnswer {
	a := mmAnswer{resident: resident}
	zero := tracer.Imm(0)
	a.mdwe = p.Prctl(prGetMDWE, zero, zero, zero, zero).Tolerate()
	a.merge = p.Prctl(prGetMemoryMerge, zero, zero, zero, zero).Tolerate()
	size := tracer.Imm(procfs.PageSize)
	a.mapped = p.Call(unix.SYS_MMAP, zero, size, tracer.Imm(unix.PROT_READ), tracer.Imm(unix.MAP_PRIVATE|unix.MAP_ANONYMOUS), tracer.FD(-1), zero).Tolerate()
	a.mapped.Undo(unix.SYS_MUNMAP, a.mapped, size)
	p.Call(unix.SYS_MINCORE, a.mapped, size, tracer.Ptr(resident.at)).Tolerate()
	a.kept = p.Call(unix.SYS_MADVISE, a.mapped, size, tracer.Imm(unix.MADV_DONTNEED)).Tolerate()
	p.Call(unix.SYS_MUNMAP, a.mapped, size).Tolerate()
	return a
}

func (a mmAnswer) flags() (flags uint32) {
	if a.mapped.Err() == nil && errors.Is(a.kept.Err(), unix.EINVAL) {
		flags |= lockFuture
		if a.resident.data[0]&1 == 0 {
			flags |= lockOnFault
		}
	}
	if a.mdwe.Err() == nil {
		flags |= uint32(a.mdwe.Result()&3) * refuseExecGain
	}
	if a.merge.Err() == nil && a.merge.Result() == 1 {
		flags |= mergeAny
	}
	return flags
}

// dumpMore writes it.
func (s *memorySave) dumpMore(d *Saver) error {
	filter, err := d.Proc.CoredumpFilter()
	if err != nil {
		return fmt.Errorf("read core dump filter: %w", err)
	}
	return d.W.Put(d.vpid(), &mmMore{Flags: s.whole.flags(), CoreFilter: filter})
}

// loadMore reads it, and refuses what the caller has and cannot put off.
func (r *memoryRestore) loadMore(b *Builder) error {
	kind, err := b.R.Peek()
	if err != nil || kind != mmMoreKind {
		return err
	}
	rec, _, err := image.Expect[mmMore](b.R)
	if err != nil {
		return err
	}
	if rec.Flags&^allMMFlags != 0 || rec.Flags&(lockFuture|lockOnFault) == lockOnFault || rec.Flags&(refuseExecGain|mdweNoInherit) == mdweNoInherit {
		return badImage(fault.ImageValue, "address space", "flags %#x", rec.Flags)
	}
	r.more = rec
	if r.own, err = b.ownMMFlags(); err != nil {
		return err
	}
	const mdwe = refuseExecGain | mdweNoInherit
	for _, x := range []struct {
		bits uint32
		what string
	}{{lockFuture, "mlockall(MCL_FUTURE)"}, {mdwe, "PR_SET_MDWE"}, {mergeAny, "PR_SET_MEMORY_MERGE"}} {
		if r.own&x.bits != 0 && r.own&x.bits != rec.Flags&x.bits {
			return &fault.Error{Code: fault.CallerMemory, Object: b.Caller.Name(), Detail: x.what}
		}
	}
	return r.checkMore(b, r.own)
}

// ownMMFlags are those of the caller. A child has them from its parent, but for
// mlockall(2).
func (b *Builder) ownMMFlags() (uint32, error) {
	if b.forked() {
		return b.parent.mem.own &^ (lockFuture | lockOnFault), nil
	}
	if err := b.Flush(); err != nil {
		return 0, err
	}
	p := b.Remote.Program()
	var answers answers
	asked := askMM(p, answers.reserve(p, 1))
	if err := p.Run(); err != nil {
		return 0, err
	}
	if err := answers.read(b.Remote); err != nil {
		return 0, err
	}
	return asked.flags(), nil
}

// checkMore tries what the commit will do, as far as it can be refused.
func (r *memoryRestore) checkMore(b *Builder, own uint32) error {
	if r.more.Flags&lockFuture != 0 && own&lockFuture == 0 {
		var limit unix.Rlimit
		if err := unix.Prlimit(int(b.Caller.PID), unix.RLIMIT_MEMLOCK, nil, &limit); err != nil {
			return fmt.Errorf("read limit of locked memory of %s: %w", b.Caller.Name(), err)
		}
		if limit.Cur == 0 && !b.capable(capIPCLock) {
			return &fault.Error{Code: fault.StageMemory, Object: b.Caller.Name(), Detail: "locked memory, RLIMIT_MEMLOCK", Err: unix.EPERM}
		}
	}
	now, err := b.Caller.Proc.CoredumpFilter()
	if err != nil {
		return fmt.Errorf("read core dump filter: %w", err)
	}
	if now != r.more.CoreFilter {
		// Opened now, as the commit may change who the caller is.
		if r.coreFilter, err = b.openFile("/proc/self/coredump_filter", unix.O_WRONLY, fault.FileOpen); err != nil {
			return err
		}
	}
	for _, x := range []struct {
		bit uint32
		get int
	}{{refuseExecGain, prGetMDWE}, {mergeAny, prGetMemoryMerge}} {
		if r.more.Flags&x.bit != 0 {
			zero := tracer.Imm(0)
			b.Expect(b.Stage().Prctl(x.get, zero, zero, zero, zero), fault.StageFailed, "address space")
		}
	}
	return nil
}

// commitMore comes when all is in place.
func (r *memoryRestore) commitMore(b *Builder, p *tracer.Program) {
	if r.more == nil {
		return
	}
	zero := tracer.Imm(0)
	if r.more.Flags&mergeAny != 0 {
		p.Prctl(prSetMemoryMerge, tracer.Imm(1), zero, zero, zero)
	}
	if mdwe := r.more.Flags / refuseExecGain & 3; mdwe != 0 {
		p.Prctl(prSetMDWE, tracer.Imm(uint64(mdwe)), zero, zero, zero)
	}
	if r.more.Flags&lockFuture != 0 {
		how := unix.MCL_FUTURE
		if r.more.Flags&lockOnFault != 0 {
			how |= unix.MCL_ONFAULT
		}
		p.Call(unix.SYS_MLOCKALL, tracer.Int(how))
	}
	if r.coreFilter != nil {
		text := fmt.Sprintf("%#x", r.more.CoreFilter)
		p.Write(r.coreFilter.fd, p.Bytes([]byte(text)), uint64(len(text)))
	}
}

// workingSpace is how much address space a task needs at least for the calls
// that save it (tracer.InjectOptions).
const workingSpace = 1 << 20

// refuseSpace refuses a process that is at its limit of address space.
func (v *View) refuseSpace() *fault.Error {
	limit, err := v.Limit(unix.RLIMIT_AS)
	if err != nil {
		return &fault.Error{Code: fault.ProcUnreadable, Object: v.Name(), Err: err}
	}
	if limit.Soft == procfs.Unlimited || limit.Soft >= v.Stat.VSize+workingSpace {
		return nil
	}
	return &fault.Error{Code: fault.TargetMemory, Object: v.Name(), Detail: fmt.Sprintf("%d bytes of address space, RLIMIT_AS is %d", v.Stat.VSize, limit.Soft)}
}
