package resource

import (
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

// ownerRecord is what F_SETOWN_EX, F_SETSIG and F_SETFL of fcntl(2) set.
type ownerRecord struct {
	Who    uint32 `doc:"0 nobody, 1 the process, 2 its first thread, 3 its process group"`
	Signal uint32 `doc:"signal sent instead of SIGIO; 0 for SIGIO"`
	Flags  uint32 `fmt:"oct" doc:"open flags, with O_ASYNC if it is on"`
	_      [4]byte
}

// The values of ownerRecord.Who.
const (
	ownedByNobody = iota
	ownedByProcess
	ownedByThread
	ownedByGroup
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

// fileSignal is what ownerOf has found out.
type fileSignal struct {
	rec *ownerRecord
	err error
}

// ownerOf returns nil if no signals are asked for.
func (v *View) ownerOf(f *procfs.FD) (*ownerRecord, error) {
	if f.Flags&unix.O_PATH != 0 {
		return nil, nil
	}
	found, known := v.owners[f.Number]
	if !known {
		found.rec, found.err = v.askOwner(f)
		if v.owners == nil {
			v.owners = make(map[int32]fileSignal)
		}
		v.owners[f.Number] = found
	}
	return found.rec, found.err
}

// askOwner asks the kernel, which tells it of any descriptor of the same open
// file, so of one of ours.
func (v *View) askOwner(f *procfs.FD) (*ownerRecord, error) {
	fd, err := v.duplicate(f.Number)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	owner, err := fileOwner(fd)
	if err != nil {
		return nil, fmt.Errorf("F_GETOWN_EX: %w", err)
	}
	signal, err := unix.FcntlInt(uintptr(fd), unix.F_GETSIG, 0)
	if err != nil {
		return nil, fmt.Errorf("F_GETSIG: %w", err)
	}
	rec := &ownerRecord{Signal: uint32(signal), Flags: f.Flags &^ unix.O_CLOEXEC}
	own := procfs.PID(owner.PID) == v.PID
	switch {
	case owner.PID == 0:
		if signal == 0 && f.Flags&unix.O_ASYNC == 0 {
			return nil, nil
		}
	case owner.Type == fOwnerPID && own:
		rec.Who = ownedByProcess
	case owner.Type == fOwnerTID && own:
		rec.Who = ownedByThread
	case owner.Type == fOwnerPGRP && procfs.PID(owner.PID) == v.Stat.Pgrp:
		rec.Who = ownedByGroup
	default:
		what := [...]string{fOwnerTID: "thread", fOwnerPID: "process", fOwnerPGRP: "process group"}[owner.Type]
		return nil, fmt.Errorf("signals about it go to %s %d: %w", what, owner.PID, unix.EOPNOTSUPP)
	}
	return rec, nil
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

// dumpOwnLocks writes the locks that belong to the process, and not to the open
// file, where that is the matter of another one.
func dumpOwnLocks(s *Saver, f *procfs.FD, ref object.Ref) error {
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
	return nil
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
	}
}

// commit makes the task itself the owner, or its process group.
func (rec *ownerRecord) commit(p *tracer.Program, fd tracer.FD) {
	typ := fOwnerPID
	var who tracer.Arg
	switch rec.Who {
	case ownedByProcess:
		who = p.Getpid()
	case ownedByThread:
		typ, who = fOwnerTID, p.Gettid()
	case ownedByGroup:
		typ, who = fOwnerPGRP, p.Call(unix.SYS_GETPGID, tracer.Imm(0))
	}
	if who != nil {
		owner := p.Buffer(16) // struct f_owner_ex: two ints
		p.Store(owner, tracer.Imm(uint64(typ)))
		p.Store(owner+4, who)
		p.Fcntl(fd, unix.F_SETOWN_EX, tracer.Ptr(owner))
	}
	p.Fcntl(fd, unix.F_SETSIG, tracer.Imm(rec.Signal))
	if rec.Flags&unix.O_ASYNC != 0 {
		p.Fcntl(fd, unix.F_SETFL, tracer.Imm(rec.Flags&settable))
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
