package resource

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/core/object"
	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// eventfd is a counter, eventfd(2). fdinfo tells all of it (eventfd_show_fdinfo
// of fs/eventfd.c), whether it is a semaphore since Linux 6.5.
var eventfd = FileKind{
	Name:    "eventfd",
	Support: Full,
	Note:    "Count, semaphore or not, flags.",
	Records: []image.Spec{
		image.Row[eventfdRecord](eventfdKind, "FD_EVENTFD", image.InFiles, "an eventfd; its parent is the reference of the open file"),
	},
	Match: func(_ *View, f *procfs.FD) bool { return f.Target == "anon_inode:[eventfd]" },
	Refuse: func(v *View, f *procfs.FD) *fault.Error {
		if _, err := readEventfd(f); err != nil {
			return &fault.Error{Code: fault.Eventfd, Err: err}
		}
		return refuseNameless(v, f)
	},
	Dump: func(s *Saver, f *procfs.FD, ref object.Ref) error {
		rec, err := readEventfd(f)
		if err != nil {
			return err
		}
		return s.W.Put(uint32(ref), rec)
	},
	Kind: eventfdKind,
	Load: loadEventfd,
}

const eventfdKind image.Kind = 6413

type eventfdRecord struct {
	Count     uint64
	Flags     uint32 `fmt:"oct" doc:"open flags"`
	Semaphore uint32 `doc:"1 if made with EFD_SEMAPHORE"`
}

func readEventfd(f *procfs.FD) (*eventfdRecord, error) {
	count, err := infoUint(f, "eventfd-count", 16)
	if err != nil {
		return nil, err
	}
	semaphore, err := infoUint(f, "eventfd-semaphore", 10)
	if err != nil {
		return nil, err
	}
	return &eventfdRecord{Count: count, Flags: f.Flags &^ unix.O_CLOEXEC, Semaphore: uint32(semaphore)}, nil
}

// infoUint reads a number of fdinfo.
func infoUint(f *procfs.FD, key string, base int) (uint64, error) {
	values := f.Values(key)
	if len(values) != 1 {
		return 0, fmt.Errorf("read %s in fdinfo: %w", key, unix.ENODATA)
	}
	n, err := strconv.ParseUint(strings.TrimSpace(values[0]), base, 64)
	if err != nil {
		return 0, fmt.Errorf("read %s in fdinfo: %w", key, err)
	}
	return n, nil
}

func loadEventfd(b *Builder, ref object.Ref) (*stagedOpen, error) {
	rec, head, err := image.Expect[eventfdRecord](b.R)
	if err != nil {
		return nil, err
	}
	if head.Parent != uint32(ref) || rec.Semaphore > 1 {
		return nil, badImage(fault.ImageValue, fmt.Sprintf("open file %d", ref), "eventfd of %d", head.Parent)
	}
	const semaphore = 1 // EFD_SEMAPHORE
	p := b.Stage()
	open := b.nameless(p.Call(unix.SYS_EVENTFD2, tracer.Imm(0), tracer.Imm(rec.Semaphore*semaphore|unix.O_CLOEXEC|unix.O_NONBLOCK)), "eventfd")
	if rec.Count != 0 {
		count := p.Buffer(8) // eventfd2(2) takes 32 bits only
		p.Store(count, tracer.Imm(rec.Count))
		b.Expect(p.Write(open.fd, count, 8), fault.FileState, open.path)
	}
	b.setFlags(open, rec.Flags)
	return open, nil
}

// nameless stages an open file that a call makes which opens no name.
func (b *Builder) nameless(row *tracer.Row, name string) *stagedOpen {
	b.Expect(row, fault.FileState, name)
	return &stagedOpen{fd: b.fds.take(row), path: name}
}

// setFlags sets those that F_SETFL of fcntl(2) can set. O_ASYNC comes with the
// owner, by the commit.
func (b *Builder) setFlags(open *stagedOpen, flags uint32) {
	open.flags = flags
	b.Expect(b.Stage().Fcntl(open.fd, unix.F_SETFL, tracer.Imm(flags&settable&^unix.O_ASYNC)), fault.FileState, open.path)
}
