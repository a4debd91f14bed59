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

// terminal is the terminal that a program has as its standard input, output or
// error. It belongs to whoever started the program, and so the terminal of
// whoever restarts it takes its place.
var terminal = FileKind{
	Name:    "terminal",
	Support: Partial,
	Note: "As standard input, output or error, and further descriptors of the same terminal: the restarter's own standard " +
		"descriptors take its place.",
	Records: []image.Spec{
		image.Row[terminalRecord](terminalKind, "FD_TERMINAL", image.InFiles, "an inherited terminal; its parent is the reference of the open file"),
	},
	Match:  isTerminal,
	Refuse: refuseTerminal,
	Dump: func(s *Saver, f *procfs.FD, ref object.Ref) error {
		rec := terminalRecord{Rdev: f.Rdev, Flags: f.Flags &^ unix.O_CLOEXEC, Stdio: f.Number, Path: f.Target}
		if f.Number > 2 {
			rec.Stdio = stdioOf(s.FDs, f)
		}
		return s.W.Put(uint32(ref), &rec)
	},
	Kind: terminalKind,
	Load: loadTerminal,
}

const terminalKind image.Kind = 6402

type terminalRecord struct {
	Rdev  uint64 `fmt:"hex" doc:"device number; informational"`
	Flags uint32 `fmt:"oct" doc:"open flags; informational"`
	Stdio int32  `doc:"0, 1 or 2: the restarter's descriptor that takes its place"`
	Path  string `doc:"name when it was saved; informational"`
}

// isTerminal goes by the major number (Documentation/admin-guide/devices.txt):
// tty and serial lines 4, /dev/tty and console 5, pseudo terminals 136 to 143,
// further serial lines 204, hypervisor consoles 229.
func isTerminal(f *procfs.FD) bool {
	if f.Type() != unix.S_IFCHR {
		return false
	}
	major, minor := unix.Major(f.Rdev), unix.Minor(f.Rdev)
	return major == 4 || major == 5 && minor <= 1 || major >= 136 && major <= 143 || major == 204 || major == 229
}

// stdioOf returns the standard descriptor that is the same terminal, -1 if
// there is none.
func stdioOf(fds []procfs.FD, f *procfs.FD) int32 {
	controlling := unix.Mkdev(5, 0) // /dev/tty, whichever that is
	i := slices.IndexFunc(fds, func(o procfs.FD) bool {
		return o.Number <= 2 && isTerminal(&o) && (o.Rdev == f.Rdev || f.Rdev == controlling)
	})
	if i < 0 {
		return -1
	}
	return fds[i].Number
}

func refuseTerminal(v *View, f *procfs.FD) *fault.Error {
	if f.Number > 2 && stdioOf(v.FDs, f) < 0 {
		return &fault.Error{Code: fault.Terminal, Detail: f.Target}
	}
	return nil
}

// loadTerminal takes the restarter's descriptor of the same number. One that
// is missing, or that is the image itself, is replaced by another standard
// descriptor that is a terminal, and without any by /dev/null.
func loadTerminal(b *Builder, ref object.Ref) (*stagedOpen, error) {
	rec, head, err := image.Expect[terminalRecord](b.R)
	if err != nil {
		return nil, err
	}
	if head.Parent != uint32(ref) || rec.Stdio < 0 || rec.Stdio > 2 {
		return nil, badImage(fault.ImageValue, fmt.Sprintf("open file %d", ref), "terminal on descriptor %d", rec.Stdio)
	}
	own, ok := substitute(b.Caller.FDs, rec.Stdio, b.taskIn)
	if !ok {
		f, err := b.openFile("/dev/null", unix.O_RDWR, fault.FileOpen)
		if err != nil {
			return nil, err
		}
		return &stagedOpen{fd: f.fd, path: "/dev/null"}, nil
	}
	row := b.Expect(b.Stage().Fcntl(own, unix.F_DUPFD_CLOEXEC, tracer.Imm(0)), fault.DescriptorLimit, fmt.Sprintf("fd %d", rec.Stdio))
	return &stagedOpen{fd: b.fds.take(row), path: rec.Path}, nil
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
