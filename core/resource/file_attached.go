package resource

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/core/object"
	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// What is attached to an open file besides its flags and offset, whatever kind
// it is of: locks (file_lock.go), and who gets signals about it.

// attachedRecords belong to the descriptor table, as they may follow the
// records of any kind.
var attachedRecords = []image.Spec{
	image.Row[lockRecord](lockKind, "FD_LOCK", image.InFiles, "a lock or lease of the open file before it; its parent is the reference of that"),
	image.Row[ownerRecord](ownerKind, "FD_OWNER", image.InFiles, "who gets signals about the open file before it; its parent is the reference of that"),
}

const (
	lockKind  image.Kind = 6463
	ownerKind image.Kind = 6464
)

// refuseAttached names what of it cannot be saved.
func refuseAttached(v *View, f *procfs.FD) *fault.Error {
	if _, err := locksOf(f); err != nil {
		return &fault.Error{Code: fault.FileLocked, Detail: f.Target, Err: err}
	}
	if _, err := v.ownerOf(f); err != nil {
		return &fault.Error{Code: fault.FileOwner, Detail: f.Target, Err: err}
	}
	return nil
}

// dumpAttached writes what is attached to an open file, behind its records.
func dumpAttached(s *Saver, f *procfs.FD, ref object.Ref) error {
	locks, err := locksOf(f)
	if err != nil {
		return err
	}
	for i := range locks {
		if err := s.W.Put(uint32(ref), &locks[i]); err != nil {
			return err
		}
	}
	owner, err := s.ownerOf(f)
	if err != nil || owner == nil {
		return err
	}
	return s.W.Put(uint32(ref), owner)
}

// dumpOwnAttached writes the locks that belong to the process, and not to the open
// file, where that is the matter of another one, and that signals about it go to
// this one.
func dumpOwnAttached(s *Saver, f *procfs.FD, ref object.Ref) error {
	locks, err := locksOf(f)
	if err != nil {
		return err
	}
	for i := range locks {
		if locks[i].Kind != lockPOSIX {
			continue
		}
		if err := s.W.Put(uint32(ref), &locks[i]); err != nil {
			return err
		}
	}
	if kindOf(s.View, f) == &external {
		return nil
	}
	owner, err := s.ownerOf(f)
	if errors.Is(err, errForeignOwner) {
		return nil // whose matter the file is was refused, or it leads outside
	}
	if err != nil || owner == nil {
		return err
	}
	return s.W.Put(uint32(ref), owner)
}

// attached is what is attached to an open file of the image.
type attached struct {
	locks []lockRecord
	owner *ownerRecord
}

// loadAttached reads the records that follow those of an open file.
func (b *Builder) loadAttached(ref object.Ref) (attached, error) {
	var a attached
	for {
		kind, err := b.R.Peek()
		if err != nil {
			return a, err
		}
		switch kind {
		case lockKind:
			rec, head, err := image.Expect[lockRecord](b.R)
			if err != nil {
				return a, err
			}
			if head.Parent != uint32(ref) || !rec.valid() {
				return a, badImage(fault.ImageValue, fmt.Sprintf("open file %d", ref), "lock %d from %#x to %#x", rec.Kind, rec.Start, rec.End)
			}
			a.locks = append(a.locks, *rec)
		case ownerKind:
			rec, head, err := image.Expect[ownerRecord](b.R)
			if err != nil {
				return a, err
			}
			const signals = 64
			if head.Parent != uint32(ref) || a.owner != nil || rec.Who > ownedByGroup || rec.Signal > signals {
				return a, badImage(fault.ImageValue, fmt.Sprintf("open file %d", ref), "owner %d, signal %d", rec.Who, rec.Signal)
			}
			a.owner = rec
		default:
			return a, nil
		}
	}
}

// attach stages the locks, once all files are open: a lease is given only to
// the last one who opens a file.
func (r *filesRestore) attach(b *Builder) {
	for _, o := range r.opened {
		for i := range o.attached.locks {
			o.attached.locks[i].stage(b, o)
		}
	}
	for _, e := range r.entries {
		for i := range e.locks {
			e.locks[i].stage(b, e.open)
		}
	}
}

// commitAttached puts in place what belongs to the process, or would disturb
// the caller before: POSIX locks go with any descriptor of the file that is
// closed, and signals may come as soon as there is somebody to get them.
func (r *filesRestore) commitAttached(p *tracer.Program, final map[tracer.FD]tracer.FD) {
	for _, o := range r.opened {
		fd := final[o.fd]
		if o.late && o.pos != 0 {
			p.Lseek(fd, o.pos, unix.SEEK_SET).Tolerate() // it was tried by the stage
		}
		for i := range o.attached.locks {
			o.attached.locks[i].commit(p, fd)
		}
		if o.attached.owner != nil {
			o.attached.owner.commit(p, fd)
		}
	}
	for _, e := range r.entries {
		for i := range e.locks {
			e.locks[i].commit(p, e.final)
		}
		if e.owner != nil && !e.replaces {
			e.owner.commit(p, final[e.at])
		}
	}
}

// locksOf reads the lines of fdinfo about locks (lock_get_status of
// fs/locks.c): number, kind, ADVISORY or the state of a lease, READ or WRITE,
// pid, inode, first and last byte.
func locksOf(f *procfs.FD) ([]lockRecord, error) {
	var locks []lockRecord
	for _, line := range f.Values("lock") {
		word := strings.Fields(line)
		if len(word) != 8 {
			return nil, fmt.Errorf("read lock %q: %w", line, unix.EOPNOTSUPP)
		}
		var rec lockRecord
		kind := slices.Index(lockNames, word[1])
		typ := slices.Index([]string{"READ", "WRITE"}, word[3])
		if kind <= 0 || typ < 0 || word[2] != "ADVISORY" && word[2] != "ACTIVE" {
			return nil, fmt.Errorf("%s %s %s: %w", word[1], strings.ToLower(word[2]), strings.ToLower(word[3]), unix.EOPNOTSUPP)
		}
		rec.Kind, rec.Write = uint32(kind), uint32(typ)
		if err := rec.parseRange(word[6], word[7]); err != nil {
			return nil, fmt.Errorf("read lock %q: %w", line, err)
		}
		locks = append(locks, rec)
	}
	has := func(kind uint32) bool {
		return slices.ContainsFunc(locks, func(l lockRecord) bool { return l.Kind == kind })
	}
	if has(lockPOSIX) && has(lockOFD) {
		return nil, fmt.Errorf("both of the process and of the open file: %w", unix.EOPNOTSUPP)
	}
	return locks, nil
}
