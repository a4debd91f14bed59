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

// limits are the resource limits, which the threads of a process share.
var limits = Part{
	Name:    "resource limits",
	Support: Full,
	Note: "All sixteen, soft and hard. A hard limit above the restarter's takes CAP_SYS_RESOURCE; without it the restart is refused, " +
		"or leaves the limits as the restarter has them (--limits caller). What RLIMIT_CPU counts begins again.",
	Records: []image.Spec{
		image.Row[limitsRecord](limitsKind, "LIMITS", image.InTask, "resource limits, getrlimit(2)", image.Times(image.AtMostOncePerTask)),
	},
	Save:    func() Saving { return limitsSave{} },
	Restore: func() Restoring { return new(limitsRestore) },
}

const limitsKind image.Kind = 6103

const nLimits = 16 // RLIM_NLIMITS

type limitsRecord struct {
	Limits [nLimits][2]uint64 `doc:"soft and hard limit of each RLIMIT_, in its order; 2^64-1 for none"`
}

type limitsSave struct {
	nothingToRefuse
	nothingToAsk
}

func (limitsSave) Dump(s *Saver) error {
	all, err := s.allLimits()
	if err != nil {
		return err
	}
	if len(all) != nLimits {
		return fmt.Errorf("read limits: %d of them, not %d", len(all), nLimits)
	}
	var rec limitsRecord
	for _, l := range all {
		rec.Limits[l.Resource] = [2]uint64{l.Soft, l.Hard}
	}
	return s.W.Put(s.vpid(), &rec)
}

type limitsRestore struct {
	*limitsRecord // nil in images of before
	own           []procfs.Limit
}

func (r *limitsRestore) Load(b *Builder) error {
	if kind, err := b.R.Peek(); err != nil || kind != limitsKind {
		return err
	}
	rec, _, err := image.Expect[limitsRecord](b.R)
	if err != nil {
		return err
	}
	for resource, l := range rec.Limits {
		if l[0] > l[1] {
			return badImage(fault.ImageValue, fmt.Sprintf("resource limit %d", resource), "soft %d, hard %d", l[0], l[1])
		}
	}
	r.limitsRecord = rec
	return nil
}

// Decide has the caller try what is not certain: a hard limit that goes up. It
// may always bring that down again.
func (r *limitsRestore) Decide(b *Builder) (err error) {
	if r.own, err = b.Caller.Proc.Limits(); err != nil {
		return err
	}
	if r.limitsRecord == nil || b.Policy.Limits == CallerLimits {
		return nil
	}
	var raised []int
	for resource, l := range r.Limits {
		if l[1] > r.own[resource].Hard {
			raised = append(raised, resource)
		}
	}
	if len(raised) == 0 {
		return nil
	}
	if err := b.Flush(); err != nil {
		return err
	}
	p, tried := b.Stage(), make(map[int]*tracer.Row)
	for _, resource := range raised {
		l, own := r.Limits[resource], r.own[resource]
		tried[resource] = setLimit(p, resource, l[0], l[1]).Tolerate()
		setLimit(p, resource, b.softNow(resource, own), own.Hard).Tolerate()
	}
	if err := b.Flush(); err != nil {
		return err
	}
	var list fault.List
	for _, resource := range raised {
		if err := tried[resource].Err(); err != nil {
			own := r.own[resource]
			detail := fmt.Sprintf("%s, and the restarter's is %s", limitText(r.Limits[resource][1]), limitText(own.Hard))
			list = append(list, &fault.Error{Code: fault.LimitNotPermitted, Object: own.Name, Detail: detail, Err: err})
		}
	}
	return list.Err()
}

func (r *limitsRestore) Commit(*Builder, *tracer.Program) error { return nil }

// Finish sets what differs, when nothing more is to be made that a limit could
// stand in the way of.
func (r *limitsRestore) Finish(b *Builder, p *tracer.Program) error {
	for resource, own := range r.own {
		want := [2]uint64{own.Soft, own.Hard}
		now := [2]uint64{b.softNow(resource, own), own.Hard}
		if r.limitsRecord != nil && b.Policy.Limits == ImageLimits {
			want = r.Limits[resource]
		}
		if want != now {
			setLimit(p, resource, want[0], want[1])
		}
	}
	return nil
}

// softNow is the caller's soft limit as the stage has it.
func (b *Builder) softNow(resource int, own procfs.Limit) uint64 {
	if resource == unix.RLIMIT_NOFILE && b.moreFiles {
		return own.Hard
	}
	return own.Soft
}

func limitText(v uint64) string {
	if v == procfs.Unlimited {
		return "unlimited"
	}
	return fmt.Sprint(v)
}

func setLimit(p *tracer.Program, resource int, soft, hard uint64) *tracer.Row {
	return p.Prlimit64(tracer.Imm(0), resource, p.Bytes(rlimit(soft, hard)), 0)
}

// rlimit is struct rlimit64.
func rlimit(soft, hard uint64) []byte { return iovec(soft, hard) }

// allowFiles makes sure that the caller may have descriptors below n, by its
// hard limit. What is staged aside needs as many again. The soft limit is
// set back if the stage is undone, and by Finish.
func (b *Builder) allowFiles(n uint64, object string) error {
	limit, err := b.Caller.Limit(unix.RLIMIT_NOFILE)
	switch {
	case err != nil:
		return fmt.Errorf("read descriptor limit of %s: %w", b.Caller.Name(), err)
	case n > limit.Hard:
		return &fault.Error{Code: fault.DescriptorLimit, Object: object, Detail: fmt.Sprintf("the hard limit is %d", limit.Hard), Err: unix.EMFILE}
	case b.moreFiles || 2*n <= limit.Soft || limit.Soft == limit.Hard:
		return nil
	}
	at, err := b.lastingPage("descriptor limit")
	if err == nil {
		err = b.Tracee.WriteMem(at.Start, rlimit(limit.Soft, limit.Hard))
	}
	if err == nil {
		err = b.Remote.Undo(unix.SYS_PRLIMIT64, 0, unix.RLIMIT_NOFILE, uint64(at.Start), 0)
	}
	if err != nil {
		return errors.Join(errors.New("raise descriptor limit"), err)
	}
	b.moreFiles = true
	b.Expect(setLimit(b.Stage(), unix.RLIMIT_NOFILE, limit.Hard, limit.Hard), fault.DescriptorLimit, object)
	return nil
}
