package resource

import (
	"fmt"
	"maps"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/object"
	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// nothing is the descriptor of an open file that is not opened.
const nothing tracer.FD = -1

// openFor returns what is to stand behind a descriptor, and whether another
// descriptor of the image shares it and has it already. What the policy says of
// the lowest descriptor of an open file holds for all that share it and of
// which it says nothing; what it says of another one, for that one alone. Of
// what leads outside each standard descriptor is the restarter's own, shared
// or not.
func (r *filesRestore) openFor(b *Builder, ref object.Ref, fd int32, what string, replaced bool) (open *stagedOpen, shared bool, err error) {
	known, seen, err := b.Objects.Get(object.OpenFile, ref)
	if err != nil {
		return nil, false, badImage(fault.ImageValue, "object", "%v", err)
	}
	var was *stagedOpen
	switch {
	case !seen:
		if was, err = b.loadFile(ref, replaced); err != nil {
			return nil, false, err
		}
	case replaced || known.(*stagedOpen).external != nil && fd <= 2:
		was = known.(*stagedOpen)
	default:
		return known.(*stagedOpen), true, nil
	}
	switch {
	case replaced:
		if open, err = b.replace(was, fd, what); err == nil {
			open.replaces = true
		}
	case was.external == nil:
		open = was
	default:
		open, err = r.outside(b, was.external, fd)
	}
	if err != nil || seen {
		return open, false, err
	}
	open.kind, open.flags, open.pos, open.external = was.kind, was.flags, was.pos, was.external
	if err := b.Objects.Add(object.OpenFile, ref, open); err != nil {
		return nil, false, badImage(fault.ImageValue, "object", "%v", err)
	}
	return open, false, nil
}

// outside stages what takes the place of something that led out of the image.
// All that nothing takes the place of is named together.
func (r *filesRestore) outside(b *Builder, rec *externalRecord, fd int32) (*stagedOpen, error) {
	standard := rec.Standard
	if standard >= 0 && fd <= 2 {
		standard = fd
	}
	if standard < 0 {
		r.unplaced = append(r.unplaced, &fault.Error{Code: fault.ExternalFile, Object: fmt.Sprintf("fd %d", fd), Detail: rec.Path})
		return &stagedOpen{fd: nothing, path: rec.Path}, nil
	}
	return b.inherit(standard)
}

// replace stages what the policy puts in the place of an open file.
func (b *Builder) replace(was *stagedOpen, fd int32, what string) (*stagedOpen, error) {
	switch what {
	case CloseFD:
		return &stagedOpen{fd: nothing, path: was.path}, nil
	case InheritFD:
		own := tracer.FD(fd)
		if own == b.taskIn || !slices.ContainsFunc(b.Caller.FDs, func(f procfs.FD) bool { return f.Number == fd }) {
			return nil, &fault.Error{Code: fault.NoSuchDescriptor, Object: fmt.Sprintf("fd %d", fd)}
		}
		return b.share(own), nil
	case HangupFD:
		return b.hangUp(was, fd)
	case NullFD:
		return b.openReplacement("/dev/null", was.flags&^unix.O_DIRECTORY, 0)
	}
	return b.openReplacement(what, was.flags, was.pos)
}

// carried are the open flags that mean the same for any file.
const carried = unix.O_ACCMODE | unix.O_APPEND | unix.O_NONBLOCK | unix.O_DSYNC | unix.O_SYNC | unix.O_DIRECTORY | unix.O_NOFOLLOW |
	unix.O_PATH | fileLargefile

func (b *Builder) openReplacement(path string, flags uint32, pos int64) (*stagedOpen, error) {
	flags &= carried
	f, err := b.openFile(path, int(flags), fault.FileOpen)
	if err != nil {
		return nil, err
	}
	open := &stagedOpen{fd: f.fd, path: path}
	if flags&unix.O_PATH != 0 {
		return open, nil
	}
	b.setFlags(open, flags)
	if pos != 0 {
		b.Stage().Lseek(f.fd, pos, unix.SEEK_SET).Tolerate() // a pipe or terminal has no offset
	}
	return open, nil
}

// unplaceable names all at once what the policy leaves open, and what it says
// about descriptors that the image does not have.
func (r *filesRestore) unplaceable(b *Builder, has map[tracer.FD]bool) error {
	list := r.unplaced
	for _, fd := range slices.Sorted(maps.Keys(b.Policy.Descriptors)) {
		if !has[tracer.FD(fd)] {
			list = append(list, &fault.Error{Code: fault.NotInImage, Object: fmt.Sprintf("fd %d", fd)})
		}
	}
	return list.Err()
}
