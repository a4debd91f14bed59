package resource

import (
	"bytes"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/core/object"
	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// external is what leads out of the image: to a terminal, or by a pipe, fifo or
// socket to another process. Nothing of it is saved but that it was there. As
// standard input, output or error it belongs to whoever started the program,
// and so that of whoever restarts it takes its place. Of any other the
// restarter has to say what stands there, and so it is saved only on request.
var external = FileKind{
	Name:    "terminal, or pipe, fifo or socket to another process",
	Support: Partial,
	Note: "As standard input, output or error, and further descriptors of the same, as also of a file that is outside of the container: the restarter's own standard descriptors " +
		"take its place, with their own flags. What is on its way in it stays there. Any other, and any device, only with " +
		"`checkpoint --external`, and then `restart --fd` says what stands in its place.",
	Records: []image.Spec{
		image.Row[externalRecord](externalKind, "FD_EXTERNAL", image.InFiles, "what leads out of the image; its parent is the reference of the open file"),
	},
	Match: func(v *View, f *procfs.FD) bool {
		return isTerminal(f) || (f.Type() == unix.S_IFIFO || f.Type() == unix.S_IFSOCK) && standardOf(v, f) >= 0
	},
	Refuse: func(v *View, f *procfs.FD) *fault.Error {
		if standardOf(v, f) < 0 && !v.External {
			return &fault.Error{Code: fault.Terminal, Detail: f.Target}
		}
		return nil
	},
	Dump: func(s *Saver, f *procfs.FD, ref object.Ref) error {
		return s.W.Put(uint32(ref), &externalRecord{
			Rdev: f.Rdev, Mode: f.Mode, Flags: f.Flags &^ unix.O_CLOEXEC, Standard: standardOf(s.View, f), Path: f.Target,
		})
	},
	Kind: externalKind,
	Load: loadExternal,
	Skip: loadExternal, // it opens nothing
}

const externalKind image.Kind = 6470

type externalRecord struct {
	Rdev     uint64 `fmt:"hex" doc:"device number; informational"`
	Mode     uint32 `fmt:"oct" doc:"type and permissions; informational"`
	Flags    uint32 `fmt:"oct" doc:"open flags"`
	Standard int32  `doc:"0, 1 or 2: the restarter's descriptor that takes its place; -1: the restarter has to say"`
	_        [4]byte
	Path     string `doc:"link in /proc/PID/fd when it was saved; informational"`
}

// maybeExternal tells whether a descriptor may lead to others at all.
func maybeExternal(f *procfs.FD) bool {
	t := f.Type()
	return f.Flags&unix.O_PATH == 0 && (t == unix.S_IFIFO || t == unix.S_IFSOCK || t == unix.S_IFCHR)
}

// isTerminal tells of a character device by the major number (Documentation/admin-guide/devices.txt):
// tty and serial lines 4, /dev/tty and console 5, pseudo terminals 136 to 143,
// further serial lines 204, hypervisor consoles 229.
func isTerminal(f *procfs.FD) bool {
	if f.Type() != unix.S_IFCHR {
		return false
	}
	return isTerminalDevice(f.Rdev)
}

func isTerminalDevice(rdev uint64) bool {
	major, minor := unix.Major(rdev), unix.Minor(rdev)
	return major == 4 || major == 5 && minor <= 1 || major >= 136 && major <= 143 || major == 204 || major == 229
}

// outsideFile tells whether a regular file is one that the process was given as
// standard input, output or error and has no name for: it lies on none of the
// mounts of its namespace, such as that of a container with a root of its own.
func (v *View) outsideFile(f *procfs.FD) bool {
	if f.Flags&unix.O_PATH != 0 || standardOf(v, f) < 0 || v.ownMount(f.MntID) {
		return false
	}
	return refuseNamed(v, f) != nil
}

// ownMount tells whether a mount is one of those that the process has; where that
// cannot be known, it is.
func (v *View) ownMount(id int) bool {
	if v.mounts == nil {
		text, err := v.Proc.ReadFile("mountinfo")
		if err != nil {
			return true
		}
		v.mounts = make(map[string]bool)
		for line := range bytes.Lines(text) {
			number, _, _ := bytes.Cut(line, []byte(" "))
			v.mounts[string(number)] = true
		}
	}
	return v.mounts[strconv.Itoa(id)]
}

// standardOf returns the standard descriptor that is the same terminal, or the
// same end of the same thing: the descriptor itself if it is one; -1 if there
// is none.
func standardOf(v *View, f *procfs.FD) int32 {
	if f.Number <= 2 {
		return f.Number
	}
	if standard, lent := v.standards[f.Number]; lent {
		return standard
	}
	same := func(o *procfs.FD) bool {
		return o.Dev == f.Dev && o.Ino == f.Ino && (o.Flags^f.Flags)&unix.O_ACCMODE == 0
	}
	if isTerminal(f) {
		controlling := f.Rdev == unix.Mkdev(5, 0) // /dev/tty, whichever that is
		same = func(o *procfs.FD) bool { return isTerminal(o) && (controlling || o.Rdev == f.Rdev) }
	}
	for i := range v.FDs {
		if o := &v.FDs[i]; o.Number <= 2 && same(o) {
			return o.Number
		}
	}
	return -1
}

// loadExternal opens nothing: what takes the place depends on the descriptor.
func loadExternal(b *Builder, ref object.Ref) (*stagedOpen, error) {
	rec, head, err := image.Expect[externalRecord](b.R)
	if err != nil {
		return nil, err
	}
	if head.Parent != uint32(ref) || rec.Standard < -1 || rec.Standard > 2 {
		return nil, badImage(fault.ImageValue, fmt.Sprintf("open file %d", ref), "owner %d, in the place of descriptor %d", head.Parent, rec.Standard)
	}
	return &stagedOpen{fd: nothing, path: rec.Path, flags: rec.Flags, external: rec}, nil
}

// inherit takes the restarter's standard descriptor of that number. One that
// is missing, or that is the image itself, is replaced by another standard
// descriptor that is a terminal, and without any by /dev/null.
func (b *Builder) inherit(standard int32) (*stagedOpen, error) {
	own, ok := substitute(b.Caller.FDs, standard, b.taskIn)
	if !ok {
		f, err := b.openFile("/dev/null", unix.O_RDWR, fault.FileOpen)
		if err != nil {
			return nil, err
		}
		return &stagedOpen{fd: f.fd, path: "/dev/null"}, nil
	}
	return b.share(own), nil
}

// share stages a second descriptor of what the caller has open.
func (b *Builder) share(own tracer.FD) *stagedOpen {
	name := fmt.Sprintf("fd %d", own)
	row := b.Expect(b.Stage().Fcntl(own, unix.F_DUPFD_CLOEXEC, tracer.Imm(0)), fault.DescriptorLimit, name)
	return &stagedOpen{fd: b.fds.take(row), path: name}
}

// substitute finds what takes the place of a standard descriptor. Those that the
// stage has opened (Offspring) do not.
func substitute(fds []procfs.FD, want int32, not tracer.FD) (tracer.FD, bool) {
	find := func(ok func(f *procfs.FD) bool) (tracer.FD, bool) {
		for i := range fds {
			if f := &fds[i]; f.Number <= 2 && f.Mode != 0 && tracer.FD(f.Number) != not && ok(f) {
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
