package resource

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/core/object"
	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// inherited is a pipe, fifo or socket that a program has as its standard
// input, output or error and that leads to another one: `prog | tee log`. It
// belongs to whoever started the program, like a terminal.
var inherited = FileKind{
	Name:    "pipe, fifo or socket to another process",
	Support: Partial,
	Note: "As standard input, output or error, and further descriptors of the same: the restarter's own standard descriptors " +
		"take its place, with their own flags. What is on its way in it stays there.",
	Records: []image.Spec{
		image.Row[inheritedRecord](inheritedKind, "FD_INHERITED", image.InFiles, "an inherited pipe, fifo or socket; its parent is the reference of the open file"),
	},
	Match:  isInherited,
	Refuse: func(*View, *procfs.FD) *fault.Error { return nil },
	Dump: func(s *Saver, f *procfs.FD, ref object.Ref) error {
		rec := inheritedRecord{Flags: f.Flags &^ unix.O_CLOEXEC, Stdio: standardOf(s.View, f), Path: f.Target}
		return s.W.Put(uint32(ref), &rec)
	},
	Kind: inheritedKind,
	Load: loadInherited,
}

const inheritedKind image.Kind = 6410

type inheritedRecord struct {
	Flags uint32 `fmt:"oct" doc:"open flags; informational"`
	Stdio int32  `doc:"0, 1 or 2: the restarter's descriptor that takes its place"`
	Path  string `doc:"link in /proc/PID/fd when it was saved; informational"`
}

func isInherited(v *View, f *procfs.FD) bool {
	return (f.Type() == unix.S_IFIFO || f.Type() == unix.S_IFSOCK) && standardOf(v, f) >= 0
}

// standardOf returns the standard descriptor that is the same end of the same
// thing: the descriptor itself if it is one; -1 if there is none.
func standardOf(v *View, f *procfs.FD) int32 {
	if f.Number <= 2 {
		return f.Number
	}
	i := slices.IndexFunc(v.FDs, func(o procfs.FD) bool {
		return o.Number <= 2 && o.Dev == f.Dev && o.Ino == f.Ino && (o.Flags^f.Flags)&unix.O_ACCMODE == 0
	})
	if i < 0 {
		return -1
	}
	return v.FDs[i].Number
}

func loadInherited(b *Builder, ref object.Ref) (*stagedOpen, error) {
	rec, head, err := image.Expect[inheritedRecord](b.R)
	if err != nil {
		return nil, err
	}
	if head.Parent != uint32(ref) {
		return nil, badImage(fault.ImageValue, fmt.Sprintf("open file %d", ref), "owner %d", head.Parent)
	}
	return b.inherit(ref, rec.Stdio, rec.Path)
}

// inherit takes the restarter's standard descriptor of that number. One that
// is missing, or that is the image itself, is replaced by another standard
// descriptor that is a terminal, and without any by /dev/null.
func (b *Builder) inherit(ref object.Ref, stdio int32, path string) (*stagedOpen, error) {
	if stdio < 0 || stdio > 2 {
		return nil, badImage(fault.ImageValue, fmt.Sprintf("open file %d", ref), "inherited as descriptor %d", stdio)
	}
	own, ok := substitute(b.Caller.FDs, stdio, b.taskIn)
	if !ok {
		f, err := b.openFile("/dev/null", unix.O_RDWR, fault.FileOpen)
		if err != nil {
			return nil, err
		}
		return &stagedOpen{fd: f.fd, path: "/dev/null"}, nil
	}
	row := b.Expect(b.Stage().Fcntl(own, unix.F_DUPFD_CLOEXEC, tracer.Imm(0)), fault.DescriptorLimit, fmt.Sprintf("fd %d", stdio))
	return &stagedOpen{fd: b.fds.take(row), path: path}, nil
}

func substitute(fds []procfs.FD, want int32, not tracer.FD) (tracer.FD, bool) {
	find := func(ok func(f *procfs.FD) bool) (tracer.FD, bool) {
		for i := range fds {
			if f := &fds[i]; f.Number <= 2 && tracer.FD(f.Number) != not && ok(f) {
				return tracer.FD(f.Number), true
			}
		}
		return 0, false
	}
	if fd, ok := find(func(f *procfs.FD) bool { return f.Number == want }); ok {
		return fd, true
	}
	return find(isTerminal)
}
