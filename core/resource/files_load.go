package resource

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/core/object"
	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// filesRestore brings it back.
type filesRestore struct {
	entries []*stagedEntry
	opened  []*stagedOpen // to be verified once they are open

	unplaced fault.List       // what leads outside, and nothing takes its place
	closed   map[int32]bool   // numbers of the image that the policy closes
	doubtful []*doubtfulWatch // that what the policy has put there may not allow
}

// stagedEntry is a descriptor of the image: at is where it is until commit.
type stagedEntry struct {
	final tracer.FD
	at    tracer.FD
	flags int // O_CLOEXEC or 0

	replaces bool // what the image has, by the policy
	held     bool // for the sake of the tree: the commit closes it

	open  *stagedOpen
	locks []lockRecord // of the process, by an open file that another one has as well
	owner *ownerRecord // of such an open file, if it is this process
}

// heldForTree stands in the place of the close-on-exec flag of a descriptor that
// the process did not have, but its descendants.
const heldForTree = 2

func (r *filesRestore) Load(b *Builder) error {
	table, _, err := image.Expect[image.Files](b.R)
	if err != nil {
		return err
	}
	if b.shares&image.SharesFiles != 0 && table.NFDs != 0 {
		return badImage(fault.ImageValue, "descriptor table", "%d descriptors in one that is the parent's", table.NFDs)
	}
	if err := b.allowFiles(uint64(table.NFDs), fmt.Sprintf("%d descriptors", table.NFDs)); err != nil {
		return err
	}
	finals := make(map[tracer.FD]bool)
	r.closed = make(map[int32]bool)
	for range table.NFDs {
		entry, _, err := image.Expect[image.FDEntry](b.R)
		if err != nil {
			return err
		}
		fd := tracer.FD(entry.FD)
		switch {
		case entry.FD < 0 || finals[fd]:
			return badImage(fault.ImageValue, fmt.Sprintf("fd %d", entry.FD), "number out of range or twice")
		}
		if err := b.allowFiles(uint64(entry.FD)+1, fmt.Sprintf("fd %d", entry.FD)); err != nil {
			return err
		}
		finals[fd] = true
		if err := r.loadEntry(b, entry, fd); err != nil {
			return fmt.Errorf("load fd %d: %w", entry.FD, err)
		}
	}
	if err := r.unplaceable(b, finals); err != nil {
		return err
	}
	if err := r.loadUnixQueues(b); err != nil {
		return err
	}
	if err := b.finishTCP(); err != nil {
		return err
	}
	b.finishPtys()
	if err := r.watch(b); err != nil {
		return err
	}
	r.attach(b)
	if err := b.finishDeleted(); err != nil {
		return err
	}
	if err := b.Flush(); err != nil {
		return err
	}
	if err := r.watched(b); err != nil {
		return err
	}
	return r.verify(b)
}

func (r *filesRestore) loadEntry(b *Builder, entry *image.FDEntry, fd tracer.FD) error {
	if entry.CloseOnExec > heldForTree {
		return badImage(fault.ImageValue, fmt.Sprintf("fd %d", entry.FD), "neither held nor its own")
	}
	held := entry.CloseOnExec == heldForTree
	what, replaced := b.Policy.Descriptors[entry.FD]
	if held {
		replaced = false
	}
	open, shared, err := r.openFor(b, object.Ref(entry.ObjRef), entry.FD, what, replaced)
	if err != nil {
		return err
	}
	if open.fd == nothing {
		r.closed[entry.FD] = true
		return nil
	}
	staged := &stagedEntry{final: fd, replaces: open.replaces, held: held}
	if entry.CloseOnExec != 0 {
		staged.flags = unix.O_CLOEXEC
	}
	from := open.fd
	if shared {
		own, err := b.loadAttached(object.Ref(entry.ObjRef))
		if err != nil {
			return err
		}
		if own.owner != nil && own.owner.Who == ownedByNobody || slices.ContainsFunc(own.locks, func(l lockRecord) bool { return l.Kind != lockPOSIX }) {
			return badImage(fault.ImageValue, fmt.Sprintf("fd %d", entry.FD), "has what belongs to an open file, again")
		}
		staged.open, staged.locks, staged.owner = open, own.locks, own.owner
	} else {
		defer func() { open.fd = staged.at }() // later descriptors share it from there
		r.opened = append(r.opened, open)
	}
	r.place(b, staged, from, shared)
	r.entries = append(r.entries, staged)
	return nil
}

// loadFile reads an open file and what is attached to it.
func (b *Builder) loadFile(ref object.Ref, skip bool) (*stagedOpen, error) {
	open, err := b.loadKind(ref, skip)
	if err == nil {
		open.attached, err = b.loadAttached(ref)
	}
	return open, err
}

// loadKind lets the kind that the next record names open its file, or pass over
// it if it can.
func (b *Builder) loadKind(ref object.Ref, skip bool) (*stagedOpen, error) {
	next, err := b.R.Peek()
	if err != nil {
		return nil, err
	}
	for _, k := range FileKinds {
		load := k.Load
		if k.Kind != next || load == nil {
			continue
		}
		if skip && k.Skip != nil {
			load = k.Skip
		}
		open, err := load(b, ref)
		if err == nil {
			open.kind = next
		}
		return open, err
	}
	return nil, badImage(fault.ImageRecord, fmt.Sprintf("open file %d", ref), "record of kind %v", next)
}

// sharedInode returns what stands behind several open files of the image: what
// was made of it at its first sight, or what first makes and enters now.
func sharedInode[T any](b *Builder, ref object.Ref, first func(object.Ref) (T, error)) (T, error) {
	var none T
	known, seen, err := b.Objects.Get(object.Inode, ref)
	if err != nil {
		return none, badImage(fault.ImageValue, fmt.Sprintf("object %d", ref), "%v", err)
	}
	if !seen {
		return first(ref)
	}
	made, ok := known.(T)
	if !ok {
		return none, badImage(fault.ImageValue, fmt.Sprintf("object %d", ref), "of another kind")
	}
	return made, nil
}

// place brings an open file to its final number, or, where the caller has
// something of its own there, to one out of the way until commit.
func (r *filesRestore) place(b *Builder, e *stagedEntry, from tracer.FD, keep bool) {
	p := b.Stage()
	switch {
	case from == e.final && !keep && !e.held:
		e.at = e.final
		if e.flags == 0 {
			p.Fcntl(e.at, unix.F_SETFD, tracer.Imm(0))
		}
		return
	case b.fds.vacant(e.final) && !e.held: // behind the last of these no number is anybody's
		e.at = e.final
		b.Expect(p.Dup3(from, e.at, e.flags), fault.DescriptorLimit, fmt.Sprintf("fd %d", e.final))
	default:
		e.at = b.fds.aside()
		b.Expect(p.Dup3(from, e.at, unix.O_CLOEXEC), fault.DescriptorLimit, fmt.Sprintf("fd %d", e.final))
	}
	b.fds.put(e.at)
	if !keep {
		p.Close(from)
		b.fds.drop(from)
	}
}

// verify looks at what the names have led to.
func (r *filesRestore) verify(b *Builder) error {
	if len(r.opened) == 0 {
		return nil
	}
	now, err := b.Caller.Proc.FDs()
	if err != nil {
		return fmt.Errorf("look at staged descriptors: %w", err)
	}
	byNumber := make(map[tracer.FD]*procfs.FD, len(now))
	for i := range now {
		byNumber[tracer.FD(now[i].Number)] = &now[i]
	}
	for _, o := range r.opened {
		f := byNumber[o.fd]
		if f == nil {
			return fmt.Errorf("look at staged %s: %w", o.path, unix.EBADF)
		}
		if o.verify == nil {
			continue
		}
		if err := o.verify(f); err != nil {
			return err
		}
	}
	return nil
}

// Commit moves the descriptors that wait out of the way into place, in the
// order in which they went there, and closes all that the image does not have.
func (r *filesRestore) Commit(b *Builder, p *tracer.Program) error {
	if b.stage != nil {
		return errors.New("stage is not finished")
	}
	b.commitTCP(p)
	if b.unix != nil {
		b.unix.commit(p)
	}
	r.unwatch(p)
	final := make(map[int32]bool, len(r.entries))
	moved := make(map[tracer.FD]tracer.FD, len(r.entries))
	for _, e := range r.entries {
		if e.held {
			final[int32(e.at)], moved[e.at] = true, e.at
			continue
		}
		final[int32(e.final)] = true
		moved[e.at] = e.final
		if e.at != e.final {
			p.Dup3(e.at, e.final, e.flags)
			p.Close(e.at)
			b.fds.drop(e.at)
			b.fds.put(e.final)
		}
	}
	r.rewatch(p)
	if b.shares&image.SharesFiles == 0 { // else the parent closes what we have opened
		for fd := range b.fds.open {
			if !final[fd] && !b.late[fd] {
				p.Close(tracer.FD(fd))
			}
		}
	}
	r.commitAttached(p, moved)
	for _, e := range r.entries {
		if e.held {
			p.Close(e.at)
		}
	}
	return nil
}
