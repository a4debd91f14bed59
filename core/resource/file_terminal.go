package resource

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/core/object"
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
	Match:  func(_ *View, f *procfs.FD) bool { return isTerminal(f) },
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

func loadTerminal(b *Builder, ref object.Ref) (*stagedOpen, error) {
	rec, head, err := image.Expect[terminalRecord](b.R)
	if err != nil {
		return nil, err
	}
	if head.Parent != uint32(ref) {
		return nil, badImage(fault.ImageValue, fmt.Sprintf("open file %d", ref), "owner %d", head.Parent)
	}
	return b.inherit(ref, rec.Stdio, rec.Path)
}
