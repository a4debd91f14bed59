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

// device is a character device that remembers nothing about who has it open.
var device = FileKind{
	Name:    "null, zero, full, random, urandom",
	Support: Full,
	Note:    "Opened again by name; it must still be the same device.",
	Records: []image.Spec{
		image.Row[deviceRecord](deviceKind, "FD_DEVICE", image.InFiles, "an open character device; its parent is the reference of the open file"),
	},
	Match: func(_ *View, f *procfs.FD) bool {
		return f.Type() == unix.S_IFCHR && memoryless[f.Rdev]
	},
	Refuse: func(v *View, f *procfs.FD) *fault.Error {
		var st unix.Stat_t
		if err := unix.Stat(v.reach(f.Target), &st); err != nil || st.Rdev != f.Rdev {
			return &fault.Error{Code: fault.FileUnreachable, Detail: f.Target, Err: err}
		}
		return nil
	},
	Dump: func(s *Saver, f *procfs.FD, ref object.Ref) error {
		return s.W.Put(uint32(ref), &deviceRecord{Rdev: f.Rdev, Flags: f.Flags &^ unix.O_CLOEXEC, Path: f.Target})
	},
	Kind: deviceKind,
	Load: loadDevice,
	Skip: func(b *Builder, ref object.Ref) (*stagedOpen, error) {
		rec, err := readDevice(b, ref)
		if err != nil {
			return nil, err
		}
		return &stagedOpen{fd: nothing, path: rec.Path, flags: rec.Flags}, nil
	},
}

const deviceKind image.Kind = 6401

type deviceRecord struct {
	Rdev  uint64 `fmt:"hex" doc:"device number"`
	Flags uint32 `fmt:"oct" doc:"open flags"`
	_     [4]byte
	Path  string
}

// memoryless are the devices of drivers/char/mem.c and random.c by number
// (Documentation/admin-guide/devices.txt).
var memoryless = map[uint64]bool{
	unix.Mkdev(1, 3): true, // null
	unix.Mkdev(1, 5): true, // zero
	unix.Mkdev(1, 7): true, // full
	unix.Mkdev(1, 8): true, // random
	unix.Mkdev(1, 9): true, // urandom
}

func readDevice(b *Builder, ref object.Ref) (*deviceRecord, error) {
	rec, head, err := image.Expect[deviceRecord](b.R)
	if err != nil {
		return nil, err
	}
	if head.Parent != uint32(ref) || !memoryless[rec.Rdev] {
		return nil, badImage(fault.ImageValue, fmt.Sprintf("open file %d", ref), "device %#x", rec.Rdev)
	}
	return rec, nil
}

func loadDevice(b *Builder, ref object.Ref) (*stagedOpen, error) {
	rec, err := readDevice(b, ref)
	if err != nil {
		return nil, err
	}
	flags := rec.Flags & settable
	f, err := b.openFile(rec.Path, int(flags), fault.FileOpen)
	if err != nil {
		return nil, err
	}
	b.Expect(b.Stage().Fcntl(f.fd, unix.F_SETFL, tracer.Imm(flags)), fault.FileState, rec.Path)
	return &stagedOpen{fd: f.fd, path: rec.Path, flags: rec.Flags, verify: func(now *procfs.FD) error {
		if now.Type() != unix.S_IFCHR || now.Rdev != rec.Rdev {
			return &fault.Error{Code: fault.FileTypeChanged, Object: rec.Path}
		}
		return nil
	}}, nil
}
