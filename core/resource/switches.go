package resource

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// switches are those of prctl(2) that a thread has turned for itself.
var switches = Part{
	Name:    "switches of a thread",
	Support: Full,
	Note: "PR_SET_TSC, PR_MCE_KILL, PR_SET_SPECULATION_CTRL. A thread or process with a key ring of its own, or that has its " +
		"system calls dispatched to a handler, or that has set PR_SET_IO_FLUSHER, is refused.",
	Records: []image.Spec{
		image.Row[switchesRecord](switchesKind, "SWITCHES", image.InThread, "settings of prctl(2) that are not those of a new thread", image.Times(image.AtMostOncePerThread)),
	},
	SaveThread:    func() ThreadSaving { return new(switchesSave) },
	RestoreThread: func() ThreadRestoring { return new(switchesRestore) },
}

const switchesKind image.Kind = 6510

type switchesRecord struct {
	TSC         uint32    `doc:"PR_GET_TSC: 1 readable, 2 SIGSEGV"`
	MCEKill     uint32    `doc:"PR_MCE_KILL_GET: 0 late, 1 early, 2 as the system does"`
	Speculation [3]uint32 `fmt:"hex" doc:"PR_GET_SPECULATION_CTRL of store bypass, indirect branches and L1D flush; 0 if not the thread's to set"`
	_           [4]byte
}

// What a new thread has (include/uapi/linux/prctl.h).
const (
	tscReadable    = 1
	tscSIGSEGV     = 2
	mceKillDefault = 2

	specPrctl  = 1 << 0 // the thread may set it
	specEnable = 1 << 1
	specMask   = 1<<5 - 1
)

type switchesSave struct {
	tsc         *answer
	mce         *tracer.Row
	speculation [3]*tracer.Row
	keyrings    [2]*tracer.Row
	flusher     *tracer.Row // of those who may ask
}

// Survey looks at what new threads inherit from the first one.
func (*switchesSave) Survey(v *View, status *procfs.Status) fault.List {
	if status != v.Status || !flushesIO(v.Stat.Flags) {
		return nil
	}
	return fault.List{{Code: fault.IOFlusher, Object: v.Name()}}
}

// flushesIO tells PR_SET_IO_FLUSHER by the flags of proc_pid_stat(5), since
// asking for it takes CAP_SYS_RESOURCE (PR_IO_FLUSHER of kernel/sys.c).
func flushesIO(flags uint32) bool {
	const both = 0x80000 | 0x100000 // PF_MEMALLOC_NOIO, PF_LOCAL_THROTTLE of include/linux/sched.h
	return flags&both == both
}

func (w *switchesSave) Ask(_ *Saver, t *SavedThread, p *tracer.Program) {
	none := tracer.Imm(0)
	w.tsc = t.answer(p, 4)
	p.Prctl(unix.PR_GET_TSC, tracer.Ptr(w.tsc.at))
	w.mce = p.Prctl(unix.PR_MCE_KILL_GET, none, none, none, none)
	for which := range w.speculation {
		w.speculation[which] = p.Prctl(unix.PR_GET_SPECULATION_CTRL, tracer.Imm(uint64(which)), none, none, none).Tolerate()
	}
	w.flusher = p.Prctl(unix.PR_GET_IO_FLUSHER, none, none, none, none).Tolerate()
	// Without the wish to create one, the answer is whether there is one (keyctl(2)).
	for i, id := range []int{unix.KEY_SPEC_THREAD_KEYRING, unix.KEY_SPEC_PROCESS_KEYRING} {
		w.keyrings[i] = p.Call(unix.SYS_KEYCTL, tracer.Imm(unix.KEYCTL_GET_KEYRING_ID), tracer.Int(id), none).Tolerate()
	}
}

// Answered refuses key rings, which nobody can hand to another process.
func (w *switchesSave) Answered(s *Saver, t *SavedThread) error {
	if w.flusher.Err() == nil && w.flusher.Result() != 0 {
		return &fault.Error{Code: fault.IOFlusher, Object: t.name(s.View)}
	}
	for i, row := range w.keyrings {
		err := row.Err()
		switch {
		case err == nil:
			return &fault.Error{Code: fault.KeyRing, Object: t.name(s.View), Detail: [...]string{"of a thread", "of the process"}[i]}
		case errors.Is(err, unix.ENOKEY), errors.Is(err, unix.ENOSYS): // none, or none in this kernel
		case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES): // forbidden by a filter: then it could make none
		default:
			return fmt.Errorf("ask for key rings: %w", err)
		}
	}
	return nil
}

func (w *switchesSave) Dump(s *Saver, t *SavedThread) error {
	rec := switchesRecord{TSC: binary.LittleEndian.Uint32(w.tsc.data), MCEKill: uint32(w.mce.Result())}
	for which, row := range w.speculation {
		if v := uint32(row.Result()); row.Err() == nil && v&specPrctl != 0 && v&specEnable == 0 {
			rec.Speculation[which] = v
		}
	}
	if rec == (switchesRecord{TSC: tscReadable, MCEKill: mceKillDefault}) {
		return nil
	}
	return s.W.Put(t.owner(), &rec)
}

type switchesRestore struct{ switchesRecord }

func (r *switchesRestore) Load(b *Builder, _ *LoadedThread) error {
	r.switchesRecord = switchesRecord{TSC: tscReadable, MCEKill: mceKillDefault}
	if kind, err := b.R.Peek(); err != nil || kind != switchesKind {
		return err
	}
	rec, _, err := image.Expect[switchesRecord](b.R)
	if err != nil {
		return err
	}
	if rec.TSC != tscReadable && rec.TSC != tscSIGSEGV || rec.MCEKill > mceKillDefault {
		return badImage(fault.ImageValue, "thread", "switches %d, %d", rec.TSC, rec.MCEKill)
	}
	for _, v := range rec.Speculation {
		if v&^specMask != 0 {
			return badImage(fault.ImageValue, "thread", "speculation control %#x", v)
		}
	}
	r.switchesRecord = *rec
	return nil
}

func (r *switchesRestore) Commit(_ *Builder, _ *LoadedThread, p *tracer.Program) error {
	none := tracer.Imm(0)
	const mceKillSet = 1 // PR_MCE_KILL_SET
	p.Prctl(unix.PR_MCE_KILL, tracer.Imm(mceKillSet), tracer.Imm(uint64(r.MCEKill)), none, none)
	for which, v := range r.Speculation {
		if v != 0 {
			// A processor that is not vulnerable has nothing to switch off.
			p.Prctl(unix.PR_SET_SPECULATION_CTRL, tracer.Imm(uint64(which)), tracer.Imm(uint64(v&^specPrctl)), none, none).Tolerate()
		}
	}
	p.Prctl(unix.PR_SET_TSC, tracer.Imm(uint64(r.TSC)))
	return nil
}
