package resource

import (
	"encoding/binary"
	"math"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// lockRecord is a lock that the process holds by an open file.
type lockRecord struct {
	Kind  uint32 `doc:"1 flock(2), 2 POSIX: of the process, 3 OFD: of the open file, 4 lease"`
	Write uint32 `doc:"1 for writing (exclusive), 0 for reading (shared)"`
	Start uint64 `doc:"first byte"`
	End   uint64 `doc:"last byte; 2^63-1 for all that come"`
}

// The values of lockRecord.Kind, and what fdinfo calls them.
const (
	lockFlock = 1
	lockPOSIX = 2
	lockOFD   = 3
	lockLease = 4
)

var lockNames = []string{"", "FLOCK", "POSIX", "OFDLCK", "LEASE"}

func (rec *lockRecord) parseRange(start, end string) (err error) {
	if rec.Start, err = strconv.ParseUint(start, 10, 63); err != nil {
		return err
	}
	if end == "EOF" {
		rec.End = math.MaxInt64
		return nil
	}
	rec.End, err = strconv.ParseUint(end, 10, 63)
	return err
}

func (rec *lockRecord) valid() bool {
	return rec.Kind >= lockFlock && rec.Kind <= lockLease && rec.Write <= 1 && rec.Start <= rec.End && rec.End <= math.MaxInt64
}

// flock is struct flock of fcntl(2), of that type.
func (rec *lockRecord) flock(typ int) []byte {
	length := rec.End - rec.Start + 1
	if rec.End == math.MaxInt64 {
		length = 0 // up to the end, wherever that will be
	}
	var b []byte
	b = binary.LittleEndian.AppendUint16(b, uint16(typ))
	b = binary.LittleEndian.AppendUint16(b, unix.SEEK_SET)
	b = append(b, 0, 0, 0, 0)
	b = binary.LittleEndian.AppendUint64(b, rec.Start)
	b = binary.LittleEndian.AppendUint64(b, length)
	return append(b, make([]byte, 8)...) // the pid
}

func (rec *lockRecord) typ() int {
	if rec.Write != 0 {
		return unix.F_WRLCK
	}
	return unix.F_RDLCK
}

// The commands of locks that belong to an open file (fcntl(2), since Linux 3.15).
const fOFDSetlk = 37

// stage takes the lock for the staged file, with which it goes again. A POSIX
// lock belongs to the process, and goes when the process closes any descriptor
// of the file, as both the undoing of the stage and the commit do: until those
// are closed the place is held by a lock of the open file.
func (rec *lockRecord) stage(b *Builder, o *stagedOpen) {
	p := b.Stage()
	var row *tracer.Row
	switch rec.Kind {
	case lockFlock:
		how := unix.LOCK_SH | unix.LOCK_NB
		if rec.Write != 0 {
			how = unix.LOCK_EX | unix.LOCK_NB
		}
		row = p.Call(unix.SYS_FLOCK, o.fd, tracer.Int(how))
	case lockPOSIX, lockOFD:
		row = p.Fcntl(o.fd, fOFDSetlk, tracer.Ptr(p.Bytes(rec.flock(rec.typ()))))
	case lockLease:
		row = p.Fcntl(o.fd, unix.F_SETLEASE, tracer.Int(rec.typ()))
	}
	b.Expect(row, fault.LockTaken, o.path)
}

// commit turns a lock that holds the place into that of the process. Who gets
// in between is waited for: it found the lock free, as it was since the
// process that was saved has ended.
func (rec *lockRecord) commit(p *tracer.Program, fd tracer.FD) {
	switch rec.Kind {
	case lockPOSIX:
		p.Fcntl(fd, fOFDSetlk, tracer.Ptr(p.Bytes(rec.flock(unix.F_UNLCK))))
		p.Fcntl(fd, unix.F_SETLKW, tracer.Ptr(p.Bytes(rec.flock(rec.typ()))))
	case lockLease:
		// The signal names the descriptor by which it was taken. That fails where
		// somebody breaks the lease by now, who has been told so.
		p.Fcntl(fd, unix.F_SETLEASE, tracer.Int(rec.typ())).Tolerate()
	}
}

// leased tells whether the process has a lease of the file, which would be
// broken by opening it anew.
func leased(v *View, f *procfs.FD) bool {
	for i := range v.FDs {
		o := &v.FDs[i]
		if o.Dev != f.Dev || o.Ino != f.Ino {
			continue
		}
		locks, err := locksOf(o)
		if err != nil || slices.ContainsFunc(locks, func(l lockRecord) bool { return l.Kind == lockLease }) {
			return true
		}
	}
	return false
}

// checkCallerLocks refuses to open a file of which the caller holds POSIX
// locks: it would lose them when the stage is undone.
func (b *Builder) checkCallerLocks(path string) error {
	if b.callerLocks == nil {
		b.callerLocks = posixLocked(b.Caller)
	}
	if len(b.callerLocks) == 0 {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil || !b.callerLocks[inodeID{st.Dev, st.Ino}] {
		return nil // whether it can be opened shows when it is
	}
	return &fault.Error{Code: fault.CallerLocks, Object: b.Caller.Name(), Detail: path}
}

// posixLocked returns the files of which a process holds POSIX locks.
func posixLocked(v *View) map[inodeID]bool {
	locked := make(map[inodeID]bool)
	for i := range v.FDs {
		locks, err := locksOf(&v.FDs[i])
		if err != nil || slices.ContainsFunc(locks, func(l lockRecord) bool { return l.Kind == lockPOSIX }) {
			locked[idOf(&v.FDs[i])] = true
		}
	}
	return locked
}
