package resource

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/tracer"
)

type sandboxRestore struct {
	*sandboxRecord // nil for a thread that nothing confines
	own            []*sandboxFilter
}

// loadedSandbox is what the threads of a process have in common.
type loadedSandbox struct {
	filters []*sandboxFilter // of the image, by their numbers less 1
	common  int              // how many, from the oldest on, all threads have
	at      []tracer.Addr    // where each lies as struct sock_fprog, once it is placed
}

// maxFilters bounds hostile input: all filters of an image.
const maxFilters = 8192

func (r *sandboxRestore) Load(b *Builder, _ *LoadedThread) error {
	for {
		kind, err := b.R.Peek()
		if err != nil {
			return err
		}
		if kind != filterKind {
			break
		}
		if err := b.sandbox.load(b); err != nil {
			return err
		}
	}
	if kind, err := b.R.Peek(); err != nil || kind != sandboxKind {
		return err
	}
	rec, _, err := image.Expect[sandboxRecord](b.R)
	if err != nil {
		return err
	}
	strict := rec.Mode == unix.SECCOMP_MODE_STRICT
	if !strict && rec.Mode != unix.SECCOMP_MODE_FILTER || strict != (len(rec.Filters) == 0) {
		return badImage(fault.ImageValue, "seccomp", "mode %d, %d filters", rec.Mode, len(rec.Filters))
	}
	weight := 0
	for _, id := range rec.Filters {
		if id < 1 || int(id) > len(b.sandbox.filters) {
			return badImage(fault.ImageValue, "seccomp", "filter %d", id)
		}
		f := b.sandbox.filters[id-1]
		r.own = append(r.own, f)
		weight += f.weight()
	}
	if weight > maxSandbox {
		return badImage(fault.ImageValue, "seccomp", "filters of more than %d instructions", maxSandbox)
	}
	r.sandboxRecord = rec
	return nil
}

// load reads one filter.
func (l *loadedSandbox) load(b *Builder) error {
	rec, _, err := image.Expect[filterRecord](b.R)
	if err != nil {
		return err
	}
	if len(l.filters) == maxFilters || int(rec.ID) != len(l.filters)+1 || rec.Flags&^uint32(unix.SECCOMP_FILTER_FLAG_LOG) != 0 ||
		rec.Length == 0 || rec.Length > unix.BPF_MAXINSNS {
		return badImage(fault.ImageValue, "seccomp", "filter %d of %d instructions, flags %#x", rec.ID, rec.Length, rec.Flags)
	}
	code, err := readBuffers(b, rec.Length*insnSize)
	if err != nil {
		return err
	}
	if asksOthers(code) != "" {
		return badImage(fault.ImageValue, "seccomp", "filter %d asks a listener", rec.ID)
	}
	l.filters = append(l.filters, &sandboxFilter{*rec, code})
	return nil
}

// siblingFilters is how many filters of its own there is room for in the
// program of a thread that is not the first.
const siblingFilters = 32

// Decide makes sure that the filters can be loaded, and can be set aside while
// the process is still being rebuilt.
func (r *sandboxRestore) Decide(b *Builder, t *LoadedThread) error {
	if b.leads(t) {
		if err := b.sandbox.decide(b); err != nil {
			return err
		}
	}
	if r.sandboxRecord == nil {
		return nil
	}
	refused := &fault.Error{Code: fault.FilterRefused, Object: "the seccomp filters"}
	own := len(r.own) - b.sandbox.common
	switch {
	case !b.Tracee.SeccompSuspended():
		refused.Detail = "they would apply to the calls that rebuild the process"
	case r.Mode == unix.SECCOMP_MODE_STRICT && b.Caller.Status.Seccomp != unix.SECCOMP_MODE_DISABLED:
		refused.Object, refused.Detail = "strict mode", "the restarter is under a filter"
	case !r.late(b, t) && !b.capable(capSysAdmin):
		refused.Detail = "without no_new_privs that takes CAP_SYS_ADMIN"
	case !b.leads(t) && own > siblingFilters:
		refused.Detail = fmt.Sprintf("a thread has %d of its own, more than %d", own, siblingFilters)
	default:
		return nil
	}
	return refused
}

// decide finds what all threads have in common, and has the kernel check all.
func (l *loadedSandbox) decide(b *Builder) error {
	if len(l.filters) == 0 {
		return nil
	}
	if err := tryFilters(l.filters); errors.Is(err, errBadFilter) {
		return badImage(fault.ImageValue, "seccomp", "%v", err)
	} else if err != nil {
		return &fault.Error{Code: fault.FilterRefused, Object: "the seccomp filters", Err: err}
	}
	if len(b.Threads) == 1 {
		return nil
	}
	leader := b.Threads[0].sandbox()
	l.common = len(leader.own)
	for _, t := range b.Threads[1:] {
		own := t.sandbox().own
		if t.noNewPrivs != b.Threads[0].noNewPrivs {
			l.common = 0 // handing them on would hand on no_new_privs as well
		}
		l.common = min(l.common, len(own))
		for i := range l.common {
			if own[i] != leader.own[i] {
				l.common = i
				break
			}
		}
	}
	return nil
}

// sandbox finds the part of a thread.
func (t *LoadedThread) sandbox() *sandboxRestore {
	for _, part := range t.parts {
		if s, ok := part.(*sandboxRestore); ok {
			return s
		}
	}
	return new(sandboxRestore)
}

// late tells whether the thread may do it when it has given up its rights.
func (r *sandboxRestore) late(b *Builder, t *LoadedThread) bool {
	return t.noNewPrivs || b.Caller.Status.NoNewPrivs || r.Mode == unix.SECCOMP_MODE_STRICT
}

// Commit loads filters for which the thread has the right only as long as it is
// the caller.
func (r *sandboxRestore) Commit(b *Builder, t *LoadedThread, p *tracer.Program) error {
	if b.leads(t) {
		b.sandbox.place(p)
	}
	if r.sandboxRecord != nil && !r.late(b, t) {
		r.load(b, t, p)
	}
	return nil
}

// Finish loads the others, last of all: should we be killed before, the thread
// rebuilds itself unhindered, and behind them it makes a few calls at most.
func (r *sandboxRestore) Finish(b *Builder, t *LoadedThread, p *tracer.Program) error {
	if r.sandboxRecord != nil && r.late(b, t) {
		r.load(b, t, p)
	}
	return nil
}

// place puts the filters where every thread finds them, until we give back the
// memory of the leader's program.
func (l *loadedSandbox) place(p *tracer.Program) {
	for _, f := range l.filters {
		program := binary.LittleEndian.AppendUint64(nil, uint64(f.Length)) // struct sock_fprog
		program = binary.LittleEndian.AppendUint64(program, uint64(p.Bytes(f.code)))
		l.at = append(l.at, p.Bytes(program))
	}
}

// load adds the calls. Whether the processor may speculate is not theirs to
// change: that is among the switches of the thread.
func (r *sandboxRestore) load(b *Builder, t *LoadedThread, p *tracer.Program) {
	if r.Mode == unix.SECCOMP_MODE_STRICT {
		p.Call(unix.SYS_SECCOMP, tracer.Imm(unix.SECCOMP_SET_MODE_STRICT), tracer.Imm(0), tracer.Imm(0))
		return
	}
	for i, f := range r.own {
		flags := uint64(f.Flags) | unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW
		if i < b.sandbox.common {
			if !b.leads(t) {
				continue // it has it from the leader
			}
			flags |= unix.SECCOMP_FILTER_FLAG_TSYNC | unix.SECCOMP_FILTER_FLAG_TSYNC_ESRCH
		}
		p.Call(unix.SYS_SECCOMP, tracer.Imm(unix.SECCOMP_SET_MODE_FILTER), tracer.Imm(flags), tracer.Ptr(b.sandbox.at[f.ID-1]))
	}
}
