package resource

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// ThreadSaving is a part of one thread on its way into an image.
type ThreadSaving interface {
	// Survey names what of the thread cannot be saved.
	Survey(v *View, status *procfs.Status) fault.List
	// Ask adds calls to the program that the thread itself runs before Dump:
	// a few, with immediate arguments, and buffers of some hundred bytes.
	Ask(s *Saver, t *SavedThread, p *tracer.Program)
	// Dump writes the part's records.
	Dump(s *Saver, t *SavedThread) error
}

// ThreadRestoring is a part of one thread on its way out of an image.
type ThreadRestoring interface {
	// Load reads the part's records and checks them.
	Load(b *Builder, t *LoadedThread) error
	// Commit adds the calls that the thread makes for itself: a few, with
	// immediate arguments, that do not fail, and some hundred bytes of data.
	Commit(b *Builder, t *LoadedThread, p *tracer.Program) error
}

// threadLeading is for parts of a thread for which its leader does something,
// in the program that commits the process.
type threadLeading interface {
	Lead(b *Builder, t *LoadedThread, p *tracer.Program) error
}

// SavedThread is a thread of the frozen process.
type SavedThread struct {
	TID    procfs.PID
	Tracee *tracer.Tracee
	Status *procfs.Status
	State  tracer.State // as it was stopped, before anything was run in it
	// Called says that it is the one that asked for the checkpoint: there the
	// call returns 0.
	Called bool
	Asleep Asleep

	parts   []ThreadSaving // nil where Parts has none for threads
	answers answers
}

// leader tells whether the thread gave the process its number.
func (t *SavedThread) leader() bool { return t.TID == t.Status.Tgid }

// owner is the parent that the thread's records carry.
func (t *SavedThread) owner() uint32 { return uint32(t.TID) }

func (t *SavedThread) name(v *View) string {
	return threadName(v, t.Status)
}

// LoadedThread is a thread of the image.
type LoadedThread struct {
	State tracer.State // what it goes on with
	// Interrupted is set by the cpu part: the call that the thread was in, to
	// be begun again for what was left of it.
	Interrupted *SleepingCall
	// Saved is the number that it had, and TID the one that it has now, from
	// Commit on, both in its own pid namespace.
	Saved, TID procfs.PID

	deathSignal uint32 // PR_SET_PDEATHSIG
	noNewPrivs  bool
	parts       []ThreadRestoring
}

// answers are what calls of Ask tell, once they have been made.
type answers []*answer

// answer is where a call leaves what it tells, and what that is once the
// program has run.
type answer struct {
	at   tracer.Addr
	data []byte
}

// reserve reserves n bytes for what a call tells.
func (a *answers) reserve(p *tracer.Program, n int) *answer {
	one := &answer{at: p.Buffer(uint64(n)), data: make([]byte, n)}
	*a = append(*a, one)
	return one
}

// read fetches them all.
func (a answers) read(r *tracer.Remote) error {
	var ranges []procfs.Range
	var total uint64
	for _, one := range a {
		n := uint64(len(one.data))
		ranges = append(ranges, procfs.Range{Start: one.at, End: one.at + tracer.Addr(n)})
		total += n
	}
	buf := make([]byte, total)
	if err := r.Tracee().ReadV(ranges, buf); err != nil {
		return err
	}
	for _, one := range a {
		one.data, buf = buf[:len(one.data):len(one.data)], buf[len(one.data):]
	}
	return nil
}

// answer reserves n bytes for what a call of the thread tells.
func (t *SavedThread) answer(p *tracer.Program, n int) *answer { return t.answers.reserve(p, n) }

// siblings are the threads but the first.
func (s *Saver) siblings() []*SavedThread { return s.Threads[1:] }

// askSiblings has every thread but the first tell about itself.
func (s *Saver) askSiblings() (err error) {
	others := s.siblings()
	if len(others) == 0 {
		return nil
	}
	tasks, states := make([]*tracer.Tracee, len(others)), make([]tracer.State, len(others))
	for i, t := range others {
		tasks[i], states[i] = t.Tracee, t.State
	}
	visit, err := s.Remote.Visit(tasks)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, visit.Close()) }()
	var all answers
	for i, t := range others {
		p := visit.Program(i)
		for _, part := range t.parts {
			if part != nil {
				part.Ask(s, t, p)
			}
		}
		all = append(all, t.answers...)
	}
	if err := visit.Run(states); err != nil {
		return err
	}
	return all.read(s.Remote)
}

// dumpThread writes what one part has to say of a thread.
func (s *Saver) dumpThread(t *SavedThread, i int) error {
	if t.parts[i] == nil {
		return nil
	}
	if err := t.parts[i].Dump(s, t); err != nil {
		return fmt.Errorf("save %s of %s: %w", Parts[i].Name, t.name(s.View), err)
	}
	return nil
}

// surveyThreads names threads that the process does not share everything with,
// and asks every part about each.
func (v *View) surveyThreads() fault.List {
	list := v.threadsApart()
	for _, status := range append([]*procfs.Status{v.Status}, v.Siblings...) {
		if status != v.Status {
			if refusal := v.apart(status); refusal != nil {
				list = append(list, refusal)
			}
		}
		for _, part := range Parts {
			if part.SaveThread != nil {
				list = append(list, part.SaveThread().Survey(v, status)...)
			}
		}
	}
	return list
}

// apart refuses a thread that has a descriptor table of its own (unshare(2)), or
// directories that cannot be made its own again.
func (v *View) apart(status *procfs.Status) *fault.Error {
	name := fmt.Sprintf("thread %d of %s", status.Pid, v.Name())
	for _, of := range []struct {
		kind int
		code fault.Code
	}{{kcmpFiles, fault.TableShared}, {kcmpFS, fault.FSShared}} {
		order, err := kcmp(v.PID, status.Pid, of.kind, 0, 0)
		switch {
		case errors.Is(err, unix.ESRCH):
			return nil // it has ended
		case err != nil:
			return &fault.Error{Code: fault.NoKcmp, Object: name, Err: err}
		case order != 0 && of.kind == kcmpFS:
			if err := v.ownPlace(status.Pid); err != nil && !errors.Is(err, procfs.ErrGone) {
				return &fault.Error{Code: of.code, Object: name, Detail: "of its own", Err: err}
			}
		case order != 0:
			return &fault.Error{Code: of.code, Object: name, Detail: "of its own"}
		}
	}
	return nil
}

// Operations of kcmp(2).
const (
	kcmpVM      = 1
	kcmpFiles   = 2
	kcmpFS      = 3
	kcmpSighand = 4
)
