package resource

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/core/object"
	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// signalfd is a set of signals, signalfd(2). The signals themselves are
// pending in the process.
var signalfd = FileKind{
	Name:    "signalfd",
	Support: Full,
	Note:    "Set of signals and flags.",
	Records: []image.Spec{
		image.Row[signalfdRecord](signalfdKind, "FD_SIGNALFD", image.InFiles, "a signalfd; its parent is the reference of the open file"),
	},
	Match: func(_ *View, f *procfs.FD) bool { return f.Target == "anon_inode:[signalfd]" },
	Refuse: func(v *View, f *procfs.FD) *fault.Error {
		if _, err := readSignalfd(f); err != nil {
			return &fault.Error{Code: fault.Signalfd, Err: err}
		}
		return refuseNameless(v, f)
	},
	Dump: func(s *Saver, f *procfs.FD, ref object.Ref) error {
		rec, err := readSignalfd(f)
		if err != nil {
			return err
		}
		return s.W.Put(uint32(ref), rec)
	},
	Kind: signalfdKind,
	Load: loadSignalfd,
}

const signalfdKind image.Kind = 6414

type signalfdRecord struct {
	Mask  uint64 `fmt:"hex" doc:"signals, the lowest bit is 1"`
	Flags uint32 `fmt:"oct" doc:"open flags"`
	_     [4]byte
}

func readSignalfd(f *procfs.FD) (*signalfdRecord, error) {
	mask, err := infoUint(f, "sigmask", 16)
	if err != nil {
		return nil, err
	}
	return &signalfdRecord{Mask: mask, Flags: f.Flags &^ unix.O_CLOEXEC}, nil
}

func loadSignalfd(b *Builder, ref object.Ref) (*stagedOpen, error) {
	rec, head, err := image.Expect[signalfdRecord](b.R)
	if err != nil {
		return nil, err
	}
	if head.Parent != uint32(ref) {
		return nil, badImage(fault.ImageValue, fmt.Sprintf("open file %d", ref), "owner %d", head.Parent)
	}
	p := b.Stage()
	mask := p.Buffer(8)
	p.Store(mask, tracer.Imm(rec.Mask))
	none := tracer.Int(-1) // a new one
	open := b.nameless(p.Call(unix.SYS_SIGNALFD4, none, tracer.Ptr(mask), tracer.Imm(8), tracer.Imm(unix.O_CLOEXEC)), "signalfd")
	b.setFlags(open, rec.Flags)
	return open, nil
}
