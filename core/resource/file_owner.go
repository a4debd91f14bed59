package resource

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// Who gets signals about an open file (fcntl(2)).

// ownerRecord is what F_SETOWN_EX, F_SETSIG and F_SETFL of fcntl(2) set. The
// process that it is about is the one with whose descriptors it is written.
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
	if owner.PID == 0 {
		if signal == 0 && f.Flags&unix.O_ASYNC == 0 || v.covered[f.Number] {
			return nil, nil
		}
		return rec, nil
	}
	by, err := v.ownedBy(f, owner)
	if err != nil {
		return nil, err
	}
	if by == nil {
		what := [...]string{fOwnerTID: "thread", fOwnerPID: "process", fOwnerPGRP: "process group"}[owner.Type]
		return nil, fmt.Errorf("signals about it go to %s %d: %w", what, owner.PID, errForeignOwner)
	}
	if by != v {
		return nil, nil
	}
	rec.Who = v.owns(owner)
	return rec, nil
}

// errForeignOwner is for signals to whoever has not the file itself, or is no
// process that is saved along.
var errForeignOwner = fmt.Errorf("who has not the file, or is not saved: %w", unix.EOPNOTSUPP)

// owns tells what of a process the owner of an open file is, ownedByNobody if
// that is not of this process.
func (v *View) owns(owner ownerEx) uint32 {
	own := procfs.PID(owner.PID) == v.PID
	switch {
	case owner.Type == fOwnerPID && own:
		return ownedByProcess
	case owner.Type == fOwnerTID && own:
		return ownedByThread
	case owner.Type == fOwnerPGRP && procfs.PID(owner.PID) == v.Stat.Pgrp:
		return ownedByGroup
	}
	return ownedByNobody
}

// ownedBy returns the process that can make itself the owner again: the first that
// has the file too, by a table of descriptors that is saved with it; nil if
// there is none.
func (v *View) ownedBy(f *procfs.FD, owner ownerEx) (*View, error) {
	if v.owns(owner) != ownedByNobody && !v.covered[f.Number] {
		return v, nil
	}
	if v.tree == nil {
		return nil, nil
	}
	file, err := v.tree.sameFile(v, f)
	if err != nil {
		return nil, err
	}
	for _, o := range v.tree.views {
		if o.owns(owner) == ownedByNobody {
			continue
		}
		if has, err := v.tree.hasOwnTable(o); err != nil {
			return nil, err
		} else if !has {
			continue
		}
		for i := range o.FDs {
			same, err := v.tree.sameFile(o, &o.FDs[i])
			if err != nil {
				return nil, err
			}
			if same == file {
				return o, nil
			}
		}
	}
	return nil, nil
}

// hasOwnTable tells whether a process has its descriptors not of one before it.
func (t *Tree) hasOwnTable(v *View) (bool, error) {
	for _, before := range t.views {
		if before == v {
			break
		}
		if order, err := kcmp(v.PID, before.PID, kcmpFiles, 0, 0); err != nil || order == 0 {
			return false, err
		}
	}
	return true, nil
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
