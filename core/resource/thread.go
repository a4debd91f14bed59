package resource

import (
	"encoding/binary"
	"fmt"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/tracer"
)

// thread is what the kernel keeps for a thread on behalf of its C library.
var thread = Part{
	Name:    "thread",
	Support: Full,
	Note:    "clear_child_tid, robust futex list, restartable sequences. The thread id is that of the restarter.",
	Records: []image.Spec{
		image.Row[threadRecord](threadKind, "THREAD_MORE", image.InThread, "addresses that the thread has registered with the kernel", image.Times(image.OncePerTask)),
	},
	Save:    func() Saving { return new(threadSave) },
	Restore: func() Restoring { return new(threadRestore) },
}

const threadKind image.Kind = 6505

type threadRecord struct {
	ClearTID   uint64 `fmt:"hex" doc:"set_tid_address(2)"`
	RobustHead uint64 `fmt:"hex" doc:"set_robust_list(2)"`
	RobustLen  uint64
	Rseq       uint64 `fmt:"hex" doc:"rseq(2): address, 0 if none"`
	RseqSize   uint32
	RseqSig    uint32 `fmt:"hex"`
}

// The x86-64 values of THREAD, of which 2009 knew only i386: three entries of
// eight bytes, none in use.
const tlsEntries, tlsBytes = 3, 24

// prGetTIDAddress is PR_GET_TID_ADDRESS (prctl(2), CONFIG_CHECKPOINT_RESTORE).
const prGetTIDAddress = 40

type threadSave struct {
	nothingToRefuse
	clearTID *answer
}

func (t *threadSave) Ask(s *Saver, p *tracer.Program) {
	t.clearTID = s.answer(p, 8)
	p.Prctl(prGetTIDAddress, tracer.Ptr(t.clearTID.at))
}

func (t *threadSave) Dump(s *Saver) error {
	if err := s.W.Put(s.vpid(), &image.Thread{GDTEntryTLSEntries: tlsEntries, SizeofTLSArray: tlsBytes}); err != nil {
		return err
	}
	rec := threadRecord{ClearTID: binary.LittleEndian.Uint64(t.clearTID.data)}
	head, length, err := s.Tracee.RobustList()
	if err != nil {
		return fmt.Errorf("read robust list: %w", err)
	}
	rec.RobustHead, rec.RobustLen = uint64(head), length
	rseq, err := s.Tracee.Rseq()
	if err != nil {
		return fmt.Errorf("read rseq registration: %w", err)
	}
	rec.Rseq, rec.RseqSize, rec.RseqSig = uint64(rseq.Pointer), rseq.Size, rseq.Signature
	return s.W.Put(s.vpid(), &rec)
}

type threadRestore struct{ rec *threadRecord }

func (t *threadRestore) Load(b *Builder) error {
	v13, _, err := image.Expect[image.Thread](b.R)
	if err != nil {
		return err
	}
	if v13.NTLS != 0 {
		return badImage(fault.ImageUnsupported, "thread", "%d i386 TLS entries", v13.NTLS)
	}
	if t.rec, _, err = image.Expect[threadRecord](b.R); err != nil {
		return err
	}
	const robustLen, rseqAlign = 24, 32 // sizeof(struct robust_list_head); alignment of struct rseq
	end := uint64(addressSpace().End)
	switch r := t.rec; {
	case r.ClearTID >= end || r.RobustHead >= end || r.Rseq >= end-uint64(r.RseqSize):
		return badImage(fault.ImageRange, "thread", "registered address in kernel space")
	case r.RobustHead != 0 && r.RobustLen != robustLen:
		return badImage(fault.ImageValue, "thread", "robust list of %d bytes", r.RobustLen)
	case r.Rseq != 0 && (r.Rseq%rseqAlign != 0 || r.RseqSize < rseqAlign || r.RseqSize > 4096):
		return badImage(fault.ImageValue, "thread", "rseq area %#x of %d bytes", r.Rseq, r.RseqSize)
	}
	return nil
}

func (t *threadRestore) Commit(_ *Builder, p *tracer.Program) error {
	p.SetTidAddress(tracer.Addr(t.rec.ClearTID))
	if t.rec.RobustHead != 0 {
		p.SetRobustList(tracer.Addr(t.rec.RobustHead), t.rec.RobustLen)
	}
	if t.rec.Rseq != 0 {
		p.Rseq(tracer.Addr(t.rec.Rseq), t.rec.RseqSize, 0, t.rec.RseqSig)
	}
	return nil
}

// letGo takes back what the caller's own C library has registered, while the
// memory that it points to is still there.
func (b *Builder) letGo(p *tracer.Program) error {
	rseq, err := b.Tracee.Rseq()
	if err != nil {
		return fmt.Errorf("read rseq registration of %s: %w", b.Caller.Name(), err)
	}
	if rseq.Pointer != 0 {
		const unregister = 1 // RSEQ_FLAG_UNREGISTER
		p.Rseq(rseq.Pointer, rseq.Size, unregister, rseq.Signature)
	}
	p.SetRobustList(0, 24)
	p.SetTidAddress(0)
	return nil
}
