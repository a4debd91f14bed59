package resource

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// sandbox is what seccomp(2) lets a thread do. Its filters apply to the calls
// that we have it make as well, and so they are set aside while it is traced.
var sandbox = Part{
	Name:    "seccomp",
	Support: Partial,
	Note: "Strict mode, and the filters of each thread in their order, with their flag for logging; filters that all threads have in " +
		"common are one again. Needs crshim to have CAP_SYS_ADMIN over the machine and to be under no filter itself, when saving and " +
		"when restarting; else refused. A filter that asks a listener is refused. Should crshim be killed meanwhile, the filters " +
		"apply to the calls that take the work back, or complete it, and may end the process; it never gets out of them. As with any stop, " +
		"a sleep that is interrupted goes on by restart_syscall, which the filters must allow.",
	Records: []image.Spec{
		image.Row[filterRecord](filterKind, "SECCOMP_FILTER", image.InThread, "a filter that no thread before has; BUFFERs follow with its code, struct sock_filter[]"),
		image.Row[sandboxRecord](sandboxKind, "SECCOMP", image.InThread, "what confines the thread by seccomp(2), if anything does", image.Times(image.AtMostOncePerThread)),
	},
	SaveThread:    func() ThreadSaving { return new(sandboxSave) },
	RestoreThread: func() ThreadRestoring { return new(sandboxRestore) },
}

const (
	filterKind  image.Kind = 6106
	sandboxKind image.Kind = 6107
)

type filterRecord struct {
	ID     uint32 `doc:"its number in this image, from 1 up"`
	Length uint32 `doc:"instructions of 8 bytes"`
	Flags  uint32 `fmt:"hex" doc:"of SECCOMP_SET_MODE_FILTER: 2 LOG"`
	_      [4]byte
}

type sandboxRecord struct {
	Mode    uint32 `doc:"SECCOMP_MODE: 1 strict, 2 filter"`
	_       [4]byte
	Filters []uint32 `doc:"by their numbers, the oldest first"`
}

// sandboxFilter is a filter with its number.
type sandboxFilter struct {
	filterRecord
	code []byte
}

// maxSandbox bounds the instructions of all filters of one thread, and so how
// many these are. The kernel has a bound for what it translates them to, the
// restarter's own included (MAX_INSNS_PER_PATH of kernel/seccomp.c, 32768, and 4
// more for each filter); one becomes up to five.
const maxSandbox = 6000

// weight is what a filter counts against the bound.
func (f *sandboxFilter) weight() int { return len(f.code)/insnSize + 2 }

// ownFilters is how many filters a thread has loaded that we do not run under.
func (v *View) ownFilters(status *procfs.Status) int {
	if status.Seccomp != unix.SECCOMP_MODE_FILTER {
		return 0
	}
	return max(status.SeccompFilters-v.BenignFilters, 0)
}

// sandboxed tells whether the thread is confined by more than what we are.
func (v *View) sandboxed(status *procfs.Status) bool {
	return status.Seccomp == unix.SECCOMP_MODE_STRICT || v.ownFilters(status) > 0
}

type sandboxSave struct{ filters []uint32 }

// Survey refuses where filters can neither be read nor set aside. One name is
// enough for threads that have what the first one has.
func (*sandboxSave) Survey(v *View, status *procfs.Status) fault.List {
	if !v.sandboxed(status) || status != v.Status && v.sandboxed(v.Status) {
		return nil
	}
	if may, err := seesFilters(); err != nil {
		return fault.List{{Code: fault.OwnSeccompFilter, Object: threadName(v, status), Err: err}}
	} else if !may {
		return fault.List{v.refuseSandbox(status)}
	}
	return nil
}

func (v *View) refuseSandbox(status *procfs.Status) *fault.Error {
	detail := "strict mode"
	if n := v.ownFilters(status); n > 0 {
		detail = fmt.Sprintf("%d filters", n)
	}
	return &fault.Error{Code: fault.OwnSeccompFilter, Object: threadName(v, status), Detail: detail}
}

// seesFilters tells whether we may read and suspend the filters of others
// (seccomp_get_filter of kernel/seccomp.c, check_ptrace_options).
func seesFilters() (bool, error) {
	own, err := procfs.Open(procfs.PID(os.Getpid()))
	if err != nil {
		return false, err
	}
	defer own.Close()
	status, err := own.Status()
	if err != nil || status.Seccomp != unix.SECCOMP_MODE_DISABLED || status.CapEff&(1<<capSysAdmin) == 0 {
		return false, err
	}
	ns, err := own.NS("user")
	return ns == initialUser, err
}

func (*sandboxSave) Ask(*Saver, *SavedThread, *tracer.Program) {}

// Answered reads the filters, before the first byte is written.
func (g *sandboxSave) Answered(s *Saver, t *SavedThread) error {
	if !s.sandboxed(t.Status) {
		return nil
	}
	if !t.Tracee.SeccompSuspended() {
		return s.refuseSandbox(t.Status)
	}
	weight := 0
	for n := t.Status.SeccompFilters - s.ownFilters(t.Status); n < t.Status.SeccompFilters; n++ {
		f, err := t.Tracee.SeccompFilter(n)
		if errors.Is(err, unix.EMEDIUMTYPE) {
			return &fault.Error{Code: fault.FilterLost, Object: t.name(s.View), Err: err}
		}
		if err != nil {
			return err
		}
		if why := asksOthers(f.Code); why != "" {
			return &fault.Error{Code: fault.FilterLost, Object: t.name(s.View), Detail: why}
		}
		known := s.filter(f)
		g.filters = append(g.filters, known.ID)
		if weight += known.weight(); weight > maxSandbox {
			return &fault.Error{Code: fault.FilterLost, Object: t.name(s.View), Detail: fmt.Sprintf("more than %d instructions in all", maxSandbox)}
		}
	}
	return nil
}

// filter returns the one that is like it.
func (s *Saver) filter(f tracer.SeccompFilter) *sandboxFilter {
	var flags uint32
	if f.Log {
		flags = unix.SECCOMP_FILTER_FLAG_LOG
	}
	for _, known := range s.filters {
		if known.Flags == flags && slices.Equal(known.code, f.Code) {
			return known
		}
	}
	added := &sandboxFilter{filterRecord{ID: uint32(len(s.filters) + 1), Length: uint32(len(f.Code) / insnSize), Flags: flags}, f.Code}
	s.filters = append(s.filters, added)
	return added
}

func (g *sandboxSave) Dump(s *Saver, t *SavedThread) error {
	if !s.sandboxed(t.Status) {
		return nil
	}
	for _, id := range g.filters {
		if id <= s.filtersOut {
			continue
		}
		s.filtersOut = id // they are numbered in the order in which they are met
		f := s.filters[id-1]
		if err := s.W.Put(t.owner(), &f.filterRecord); err != nil {
			return err
		}
		for piece := range slices.Chunk(f.code, pieceOfPipe) {
			if err := s.W.Put(0, &image.Buffer{Data: piece}); err != nil {
				return err
			}
		}
	}
	return s.W.Put(t.owner(), &sandboxRecord{Mode: uint32(t.Status.Seccomp), Filters: g.filters})
}
