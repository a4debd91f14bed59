package resource

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// thread is what the kernel keeps for a thread on behalf of its C library.
var thread = Part{
	Name:    "registrations of a thread",
	Support: Full,
	Note:    "clear_child_tid, robust futex list, restartable sequences.",
	Records: []image.Spec{
		image.Row[threadRecord](threadKind, "THREAD_MORE", image.InThread, "addresses that the thread has registered with the kernel", image.Times(image.OncePerThread), image.MinLen(threadWithoutTID)),
	},
	SaveThread:    func() ThreadSaving { return new(threadSave) },
	RestoreThread: func() ThreadRestoring { return new(threadRestore) },
}

const threadKind image.Kind = 6505

type threadRecord struct {
	ClearTID   uint64 `fmt:"hex" doc:"set_tid_address(2)"`
	RobustHead uint64 `fmt:"hex" doc:"set_robust_list(2)"`
	RobustLen  uint64
	Rseq       uint64 `fmt:"hex" doc:"rseq(2): address, 0 if none"`
	RseqSize   uint32
	RseqSig    uint32 `fmt:"hex"`
	TIDWord    uint64 `fmt:"hex" doc:"where the C library notes the thread id, 0 if not known"`
}

const threadWithoutTID = 40 // bytes of the record before TIDWord

// The x86-64 values of THREAD, of which 2009 knew only i386: three entries of
// eight bytes, none in use.
const tlsEntries, tlsBytes = 3, 24

// prGetTIDAddress is PR_GET_TID_ADDRESS (prctl(2), CONFIG_CHECKPOINT_RESTORE).
const prGetTIDAddress = 40

type threadSave struct{ clearTID *answer }

func (*threadSave) Survey(*View, *procfs.Status) fault.List { return nil }

func (t *threadSave) Ask(_ *Saver, of *SavedThread, p *tracer.Program) {
	t.clearTID = of.answer(p, 8)
	p.Prctl(prGetTIDAddress, tracer.Ptr(t.clearTID.at))
}

func (t *threadSave) Dump(s *Saver, of *SavedThread) error {
	if err := s.W.Put(of.owner(), &image.Thread{GDTEntryTLSEntries: tlsEntries, SizeofTLSArray: tlsBytes}); err != nil {
		return err
	}
	rec := threadRecord{ClearTID: binary.LittleEndian.Uint64(t.clearTID.data)}
	head, length, err := of.Tracee.RobustList()
	if err != nil {
		return fmt.Errorf("read robust list: %w", err)
	}
	rec.RobustHead, rec.RobustLen = uint64(head), length
	rseq, err := of.Tracee.Rseq()
	if err != nil {
		return fmt.Errorf("read rseq registration: %w", err)
	}
	rec.Rseq, rec.RseqSize, rec.RseqSig = uint64(rseq.Pointer), rseq.Size, rseq.Signature
	if s.View.memory != nil && rec.Rseq != 0 {
		return s.refuseSharer("and has registered rseq(2)")
	}
	rec.TIDWord = of.tidWord(rec.ClearTID)
	return s.W.Put(of.owner(), &rec)
}

// tidWord finds where the C library notes the thread id: glibc in the word that
// the kernel clears when the thread ends; musl in its own structure.
func (t *SavedThread) tidWord(clearTID uint64) uint64 {
	tid := uint32(t.Status.NSpid[len(t.Status.NSpid)-1])
	for _, at := range []uint64{clearTID, t.muslTID()} {
		var word [4]byte
		if at == 0 || t.Tracee.ReadMem(tracer.Addr(at), word[:]) != nil {
			continue // nothing is mapped there
		}
		if binary.LittleEndian.Uint32(word[:]) == tid {
			return at
		}
	}
	return 0
}

type threadRestore struct{ rec *threadRecord }

func (t *threadRestore) Load(b *Builder, _ *LoadedThread) error {
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
	case r.ClearTID >= end || r.RobustHead >= end || r.Rseq >= end-uint64(r.RseqSize) || r.TIDWord >= end-4:
		return badImage(fault.ImageRange, "thread", "registered address in kernel space")
	case r.RobustHead != 0 && r.RobustLen != robustLen:
		return badImage(fault.ImageValue, "thread", "robust list of %d bytes", r.RobustLen)
	case r.Rseq != 0 && (r.Rseq%rseqAlign != 0 || r.RseqSize < rseqAlign || r.RseqSize > 4096):
		return badImage(fault.ImageValue, "thread", "rseq area %#x of %d bytes", r.Rseq, r.RseqSize)
	case r.Rseq != 0 && b.sharesMemory():
		return badImage(fault.ImageValue, "thread", "rseq area of a process that has its memory of another one")
	}
	return nil
}

func (t *threadRestore) Commit(b *Builder, of *LoadedThread, p *tracer.Program) error {
	if b.sharesMemory() {
		return nil // the memory is not in place
	}
	t.register(b, of, p)
	return nil
}

// register adds the calls.
func (t *threadRestore) register(b *Builder, of *LoadedThread, p *tracer.Program) {
	if t.rec.TIDWord != 0 && of.TID != of.Saved {
		word := binary.LittleEndian.AppendUint64(nil, uint64(of.TID))
		from := iovec(uint64(p.Bytes(word)), 4)
		to := iovec(t.rec.TIDWord, 4)
		p.Call(unix.SYS_PROCESS_VM_WRITEV, tracer.Imm(uint64(b.VPID)), tracer.Ptr(p.Bytes(from)), tracer.Imm(1),
			tracer.Ptr(p.Bytes(to)), tracer.Imm(1), tracer.Imm(0)).Tolerate()
	}
	p.SetTidAddress(tracer.Addr(t.rec.ClearTID))
	if t.rec.RobustHead != 0 {
		p.SetRobustList(tracer.Addr(t.rec.RobustHead), t.rec.RobustLen)
	}
	if t.rec.Rseq != 0 {
		p.Rseq(tracer.Addr(t.rec.Rseq), t.rec.RseqSize, 0, t.rec.RseqSig)
	}
}

// iovec is struct iovec.
func iovec(base, length uint64) []byte {
	return binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, base), length)
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
