package resource

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/core/object"
	"github.com/crshim/crshim/tracer/procfs"
)

// placeFile is a descriptor of O_PATH to what is neither file nor directory: a
// symbolic link, a socket, a fifo, a device. It does nothing but mark a place in
// the file system.
var placeFile = FileKind{
	Name:    "O_PATH to a link, socket, fifo or device",
	Support: Full,
	Note:    "By name; it must lead to the same kind of file, and a device to the same one. O_PATH to files and directories is as these.",
	Records: []image.Spec{
		image.Row[placeRecord](placeKind, "FD_PATH", image.InFiles, "a descriptor of O_PATH; its parent is the reference of the open file"),
	},
	Match: func(_ *View, f *procfs.FD) bool {
		t := f.Type()
		return f.Flags&unix.O_PATH != 0 && t != unix.S_IFREG && t != unix.S_IFDIR && strings.HasPrefix(f.Target, "/")
	},
	Refuse: func(v *View, f *procfs.FD) *fault.Error {
		if !leadsTo(f) {
			return &fault.Error{Code: fault.PathDescriptor, Detail: f.Target}
		}
		return refuseKernel(v, f)
	},
	Dump: func(s *Saver, f *procfs.FD, ref object.Ref) error {
		return s.W.Put(uint32(ref), &placeRecord{Mode: f.Mode & unix.S_IFMT, Flags: f.Flags &^ unix.O_CLOEXEC, Rdev: f.Rdev, Path: lasting(f.Target)})
	},
	Kind: placeKind,
	Load: loadPlace,
}

const placeKind image.Kind = 6465

type placeRecord struct {
	Mode  uint32 `fmt:"oct" doc:"type, as in inode(7)"`
	Flags uint32 `fmt:"oct" doc:"open flags"`
	Rdev  uint64 `fmt:"hex" doc:"device number"`
	Path  string
}

func loadPlace(b *Builder, ref object.Ref) (*stagedOpen, error) {
	rec, head, err := image.Expect[placeRecord](b.R)
	if err != nil {
		return nil, err
	}
	if head.Parent != uint32(ref) || rec.Flags&unix.O_PATH == 0 {
		return nil, badImage(fault.ImageValue, fmt.Sprintf("open file %d", ref), "owner %d, flags %#o", head.Parent, rec.Flags)
	}
	f, err := b.openFile(rec.Path, int(rec.Flags&(unix.O_PATH|unix.O_NOFOLLOW)), fault.FileOpen)
	if err != nil {
		return nil, err
	}
	return &stagedOpen{fd: f.fd, path: rec.Path, flags: rec.Flags, verify: func(now *procfs.FD) error {
		if now.Type() != rec.Mode || now.Rdev != rec.Rdev {
			return &fault.Error{Code: fault.FileTypeChanged, Object: rec.Path}
		}
		return nil
	}}, nil
}
