package resource

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/tracer"
)

// attributes are settings of the process that nothing else depends on.
var attributes = Part{
	Name:    "OOM score, subreaper",
	Support: Full,
	Note: "An OOM score below the restarter's takes CAP_SYS_RESOURCE. " +
		"Control groups, key rings, audit ids and Landlock domains are the restarter's.",
	Records: []image.Spec{
		image.Row[attributesRecord](attributesKind, "ATTRIBUTES", image.InTask, "settings of the process", image.Times(image.AtMostOncePerTask)),
	},
	Save:    func() Saving { return new(attributesSave) },
	Restore: func() Restoring { return new(attributesRestore) },
}

const attributesKind image.Kind = 6105

type attributesRecord struct {
	OOMScoreAdj int32  `doc:"oom_score_adj of proc(5), -1000 to 1000"`
	Subreaper   uint32 `doc:"PR_GET_CHILD_SUBREAPER"`
}

type attributesSave struct {
	nothingToRefuse
	subreaper *answer
}

func (g *attributesSave) Ask(s *Saver, p *tracer.Program) {
	g.subreaper = s.answer(p, 4)
	p.Prctl(unix.PR_GET_CHILD_SUBREAPER, tracer.Ptr(g.subreaper.at))
}

func (g *attributesSave) Dump(s *Saver) error {
	score, err := s.Proc.OOMScoreAdj()
	if err != nil {
		return err
	}
	rec := attributesRecord{OOMScoreAdj: int32(score), Subreaper: binary.LittleEndian.Uint32(g.subreaper.data)}
	return s.W.Put(s.vpid(), &rec)
}

type attributesRestore struct {
	*attributesRecord             // nil in images of before
	score             *stagedFile // nil where there is nothing to change
	ownScore          int
}

func (r *attributesRestore) Load(b *Builder) error {
	if kind, err := b.R.Peek(); err != nil || kind != attributesKind {
		return err
	}
	rec, _, err := image.Expect[attributesRecord](b.R)
	if err != nil {
		return err
	}
	if rec.OOMScoreAdj < -1000 || rec.OOMScoreAdj > 1000 || rec.Subreaper > 1 {
		return badImage(fault.ImageValue, "attributes", "%+v", *rec)
	}
	r.attributesRecord = rec
	return r.stage(b)
}

// stage opens what is to be written, and tries what is not certain.
func (r *attributesRestore) stage(b *Builder) (err error) {
	if r.ownScore, err = b.Caller.Proc.OOMScoreAdj(); err != nil {
		return err
	}
	if r.ownScore != int(r.OOMScoreAdj) && b.Policy.Limits == ImageLimits {
		if r.score, err = b.openFile("/proc/self/oom_score_adj", unix.O_WRONLY, fault.AttributeRefused); err != nil {
			return err
		}
		if int(r.OOMScoreAdj) < r.ownScore { // it may always go up again
			name := fmt.Sprintf("the OOM score %d", r.OOMScoreAdj)
			p := b.Stage()
			b.Expect(writeNumber(p, r.score, int(r.OOMScoreAdj)), fault.OOMScoreRefused, name)
			b.Expect(writeNumber(p, r.score, r.ownScore), fault.OOMScoreRefused, name)
		}
	}
	return nil
}

// writeNumber adds the writing of a file of /proc.
func writeNumber(p *tracer.Program, f *stagedFile, n int) *tracer.Row {
	text := fmt.Appendf(nil, "%d", n)
	return p.Pwrite(f.fd, p.Bytes(text), uint64(len(text)), 0)
}

// Commit comes before the descriptors are put into place.
func (r *attributesRestore) Commit(_ *Builder, p *tracer.Program) error {
	if r.attributesRecord == nil {
		return nil
	}
	if r.score != nil {
		writeNumber(p, r.score, int(r.OOMScoreAdj))
	}
	p.Prctl(unix.PR_SET_CHILD_SUBREAPER, tracer.Imm(r.Subreaper))
	return nil
}
