package resource

import (
	"encoding/binary"
	"errors"
	"os"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// semaphores are those of System V. Sets of them belong to the IPC namespace; what a
// process has of its own is what the kernel is to take back when it ends (SEM_UNDO of
// semop(2)). Nothing tells how much that is, but it can be tried (semaphores_probe.go).
var semaphores = Part{
	Name:    "System V semaphores",
	Support: Partial,
	Note: "Adjustments of SEM_UNDO, also those of the threads of a process together. In a container the sets come back with their values; " +
		"elsewhere they stay where they are, and a restarted process takes again what the kernel has taken back, at once or not at all. " +
		"Refused: a list of adjustments that some threads have not, or that two processes share; and one about a set that the process may not use any more. " +
		"GETPID and the time of the last semop(2) tell of the restart.",
	Records: []image.Spec{
		image.Row[semUndoRecord](semUndoKind, "SEM_UNDO", image.InThread, "what the kernel is to do to a set of System V semaphores when the process ends"),
	},
	Save:    func() Saving { return new(semaphoresSave) },
	Restore: func() Restoring { return semaphoresRestore{} },
}

const semUndoKind image.Kind = 6741

type semUndoRecord struct {
	ID          uint32 `doc:"of the set"`
	Key         uint32 `fmt:"hex" doc:"by which it was made; 0 IPC_PRIVATE"`
	Adjustments []semAdjustment
}

func (r *semUndoRecord) name() string { return sysvSem.name(&IPCOwner{ID: r.ID, Key: r.Key}) }

// semAdjustment is of one semaphore.
type semAdjustment struct {
	Number uint16
	Value  uint16 // at the checkpoint
	By     int16  // is added when the process ends
	_      [2]byte
}

// maxAdjustments is how many of a set the record holds.
const maxAdjustments = 4000

// semMost is SEMVMX and SEMAEM of <linux/sem.h>.
const semMost = 32767

type semaphoresSave struct {
	nothingToAsk
	found []*semUndoRecord
}

// Survey refuses lists of adjustments that are not those of one process.
func (*semaphoresSave) Survey(v *View) (list fault.List) {
	for _, t := range v.Siblings {
		order, err := kcmp(v.PID, t.Pid, kcmpSysVSem, 0, 0)
		if err != nil && !errors.Is(err, unix.ESRCH) || order != 0 {
			list = append(list, &fault.Error{Code: fault.SemaphoresApart, Object: threadName(v, t), Err: err})
		}
	}
	return list
}

// Answered finds the adjustments, so that what cannot be kept is refused before the
// first byte.
func (g *semaphoresSave) Answered(s *Saver) error {
	none, err := s.withoutUndo()
	if none && err == nil {
		return nil
	}
	var sets []semSet
	if err == nil {
		sets, err = s.usedSets()
	}
	if err != nil {
		return &fault.Error{Code: fault.SemaphoreUndo, Object: s.Name(), Err: err}
	}
	for _, set := range sets {
		rec, err := s.adjustments(set)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EIDRM) {
			continue // somebody has removed it
		}
		if err != nil {
			return &fault.Error{Code: fault.SemaphoreUndo, Object: s.Name(), Detail: sysvSem.name(&set.IPCOwner), Err: err}
		}
		if len(rec.Adjustments) > 0 {
			g.found = append(g.found, rec)
		}
	}
	return nil
}

func (g *semaphoresSave) Dump(s *Saver) error {
	for _, rec := range g.found {
		if err := s.W.Put(s.vpid(), rec); err != nil {
			return err
		}
	}
	return nil
}

// sharedUndo refuses a list of adjustments that several processes have, by clone(2)
// with CLONE_SYSVSEM, also with the parent of the first one, who is not saved.
func (t *Tree) sharedUndo() (list fault.List) {
	var with []procfs.PID
	refuse := func(v *View, err error) {
		list = append(list, &fault.Error{Code: fault.SemaphoresApart, Object: v.Name(), Err: err})
	}
	for i, v := range t.views {
		none, err := v.withoutUndo()
		if err != nil {
			refuse(v, err)
		}
		if none || err != nil {
			continue
		}
		others := with
		if i == 0 {
			others = []procfs.PID{v.Stat.PPid}
		}
		for _, pid := range others {
			order, err := kcmp(v.PID, pid, kcmpSysVSem, 0, 0)
			if i == 0 && err != nil {
				continue // there is no parent, or it is another user's
			}
			if order == 0 {
				refuse(v, err)
				break
			}
		}
		with = append(with, v.PID)
	}
	return list
}

const kcmpSysVSem = 6

// withoutUndo tells whether the process has no list of adjustments. A thread of
// ours gives its own up, so that there is one to compare with.
func (v *View) withoutUndo() (bool, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Unshare(unix.CLONE_SYSVSEM); err != nil {
		return false, os.NewSyscallError("unshare", err)
	}
	order, err := kcmp(v.PID, procfs.PID(unix.Gettid()), kcmpSysVSem, 0, 0)
	return order == 0, err
}

// semSet is a set of semaphores in the namespace of a process.
type semSet struct {
	IPCOwner
	size int
}

// usedSets are those that have been operated on since the process was started. New
// threads share a list that is made for them even if it stays empty.
func (s *Saver) usedSets() (used []semSet, err error) {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return nil, os.NewSyscallError("sysinfo", err)
	}
	const ticks = 100 // USER_HZ
	started := time.Now().Unix() - info.Uptime + int64(s.Stat.StartTime/ticks)
	found, err := (&Namespaces{s: s}).list(&sysvSem)
	if err != nil {
		return nil, err
	}
	for _, o := range found {
		desc, err := parseIPC[semDesc](o.raw)
		if err != nil {
			return nil, err
		}
		if desc.OTime >= started-1 {
			used = append(used, semSet{sysvSem.owner(o.id, &desc.ipcPerm), int(desc.Sems)})
		}
	}
	return used, nil
}

type semaphoresRestore struct{}

// Load has the process do again what the kernel is to take back. It takes what the
// last one gave back when it ended, or in a new container, where the values are as
// they were, does it to no effect but the adjustment.
func (semaphoresRestore) Load(b *Builder) error {
	for first := true; ; first = false {
		if kind, err := b.R.Peek(); err != nil || kind != semUndoKind {
			return err
		}
		rec, _, err := image.Expect[semUndoRecord](b.R)
		if err != nil {
			return err
		}
		if err := rec.check(); err != nil {
			return err
		}
		if first {
			if err := b.beginAdjusting(rec); err != nil {
				return err
			}
		}
		if err := b.Flush(); err != nil {
			return err
		}
		if err := sysvSem.expect(b, &IPCOwner{ID: rec.ID, Key: rec.Key}); err != nil {
			return err
		}
		for _, a := range rec.Adjustments {
			ops := a.again(b.root().madeIPC)
			p := b.Stage()
			row := p.Call(unix.SYS_SEMOP, tracer.Imm(uint64(rec.ID)), tracer.Ptr(p.Bytes(semOps(ops))), tracer.Int(len(ops)))
			b.Expect(row, fault.SemaphoresTaken, rec.name())
			if b.adjusted++; b.adjusted%64 == 0 {
				if err := b.Flush(); err != nil {
					return err
				}
			}
		}
	}
}

func (semaphoresRestore) Commit(*Builder, *tracer.Program) error { return nil }

func (r *semUndoRecord) check() error {
	if r.ID > 1<<31-1 || len(r.Adjustments) == 0 || len(r.Adjustments) > maxAdjustments {
		return badImage(fault.ImageValue, r.name(), "%d adjustments", len(r.Adjustments))
	}
	last := -1
	for _, a := range r.Adjustments {
		if int(a.Number) <= last || a.Value > semMost || a.By == 0 {
			return badImage(fault.ImageValue, r.name(), "semaphore %d of value %d adjusted by %d", a.Number, a.Value, a.By)
		}
		last = int(a.Number)
	}
	return nil
}

// beginAdjusting registers how all that is taken is given back: by a list of
// adjustments that ends, as with the process.
func (b *Builder) beginAdjusting(rec *semUndoRecord) error {
	none, err := b.Caller.withoutUndo()
	if err == nil && !none {
		err = errors.New("the process that restarts has adjustments of its own")
	}
	if err != nil {
		return &fault.Error{Code: fault.SemaphoresTaken, Object: rec.name(), Err: err}
	}
	b.adjusts = true
	return b.undoAdjusting()
}

func (b *Builder) undoAdjusting() error {
	if !b.adjusts {
		return nil
	}
	return b.Remote.Undo(unix.SYS_UNSHARE, unix.CLONE_SYSVSEM)
}

// semOp is struct sembuf.
type semOp struct {
	number uint16
	by     int
	flags  int16
}

func semOps(ops []semOp) (raw []byte) {
	for _, o := range ops {
		for _, v := range []uint16{o.number, uint16(int16(o.by)), uint16(o.flags)} {
			raw = binary.LittleEndian.AppendUint16(raw, v)
		}
	}
	return raw
}

const semUndo = 0x1000 // SEM_UNDO

// again are the operations that make the adjustment; idle those that leave the
// value as it was in the end.
func (a semAdjustment) again(idle bool) (ops []semOp) {
	most := semMost
	if idle {
		most /= 2 // there is room for it above the value or below it
	}
	for left := -int(a.By); left != 0; {
		by := max(min(left, most), -most)
		left -= by
		op := semOp{a.Number, by, unix.IPC_NOWAIT | semUndo}
		if !idle {
			ops = append(ops, op)
			continue
		}
		pair := []semOp{op, {a.Number, -by, unix.IPC_NOWAIT}}
		if up := int(a.Value)+max(by, -by) <= semMost; up != (by > 0) {
			slices.Reverse(pair)
		}
		ops = append(ops, pair...)
	}
	return ops
}
