package tracer

import (
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/tracer/procfs"
)

// Before there is scratch memory, and while it goes away, the task runs the
// boot code. It lies where the task itself never looks: in the zeros that
// fill the last page of the vdso (or, where the kernel gives none, of another
// executable mapping). The page is private to the process from then on; the
// bytes are cleared again afterwards.

// bootKey is one place for boot code, in the memory of one process.
type bootKey struct {
	leader TID
	addr   Addr
}

// takeBoot reserves a place for boot code, such that two threads of a process
// can be worked on at once. The mappings of the task are looked up if they are nil.
func (e *Tracee) takeBoot(maps []procfs.Mapping) (bootKey, error) {
	leader, err := e.space()
	if err != nil {
		return bootKey{}, err
	}
	if e.boot == nil {
		if e.boot, err = e.findBoot(maps); err != nil {
			return bootKey{}, err
		}
	}
	var dirty bootKey
	for _, addr := range e.boot {
		key := bootKey{leader, addr}
		if e.t.boots[key] {
			continue
		}
		var now [bootSize]byte
		if err := e.readMem(addr, now[:]); err != nil {
			return bootKey{}, fmt.Errorf("read %v: %w", addr, err)
		}
		if now == [bootSize]byte{} {
			e.t.boots[key] = true
			return key, nil
		}
		dirty = key // another tracer's, or left by one that was killed
	}
	if dirty.addr != 0 {
		e.t.boots[dirty] = true
		return dirty, nil
	}
	return bootKey{}, fmt.Errorf("place boot code in task %d: %w", e.tid, ErrNoPlace)
}

// findBoot lists the places for boot code.
func (e *Tracee) findBoot(maps []procfs.Mapping) ([]Addr, error) {
	if maps == nil {
		var err error
		if maps, err = e.maps(); err != nil {
			return nil, err
		}
	}
	if i := slices.IndexFunc(maps, isVDSO); i >= 0 {
		if own := ownVDSO(); own.size == maps[i].Len() && own.tail >= bootSize {
			return bootSlots(maps[i].End, own.tail), nil
		}
	}
	maps = slices.Clone(maps)
	slices.SortStableFunc(maps, func(a, b procfs.Mapping) int { return vdsoFirst(a) - vdsoFirst(b) })
	page := make([]byte, procfs.PageSize)
	for _, m := range maps {
		// What is neither of these is scratch memory, or code made at run time.
		if !isVDSO(m) && m.Inode == 0 {
			continue
		}
		if !m.Perms.Exec || m.Perms.Write || m.Perms.Shared || m.End >= taskSize {
			continue
		}
		if e.readMem(m.End-Addr(len(page)), page) != nil {
			continue // beyond the end of its file
		}
		if tail := zeroTail(page); tail >= bootSize {
			return bootSlots(m.End, tail), nil
		}
	}
	return nil, fmt.Errorf("find place for boot code in task %d: %w", e.tid, ErrNoPlace)
}

func isVDSO(m procfs.Mapping) bool { return m.Name == string(procfs.SpecialVDSO) }

func vdsoFirst(m procfs.Mapping) int {
	if isVDSO(m) {
		return 0
	}
	return 1
}

// bootSlots divides the last tail bytes before end.
func bootSlots(end Addr, tail uint64) (slots []Addr) {
	for n := uint64(bootSize); n <= tail; n += bootSize {
		slots = append(slots, end-Addr(n))
	}
	return slots
}

func zeroTail(b []byte) uint64 {
	n := len(b)
	for n > 0 && b[n-1] == 0 {
		n--
	}
	return uint64(len(b) - n)
}

// ownVDSO measures our own vdso, into which nobody has written: a task with
// one of the same size has the same (arch/x86/entry/vdso maps one image for
// all 64-bit processes).
var ownVDSO = sync.OnceValue(func() (v struct{ size, tail uint64 }) {
	self := TID(unix.Getpid())
	p, err := procfs.Open(self)
	if err != nil {
		return v
	}
	defer p.Close()
	maps, err := p.Maps()
	if err != nil {
		return v
	}
	if i := slices.IndexFunc(maps, isVDSO); i >= 0 {
		image := make([]byte, maps[i].Len())
		if (&Tracee{tid: self}).readMem(maps[i].Start, image) == nil {
			v.size, v.tail = maps[i].Len(), min(zeroTail(image), procfs.PageSize)
		}
	}
	return v
})

func (e *Tracee) maps() ([]procfs.Mapping, error) {
	p, err := procfs.Open(e.tid)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	return p.Maps()
}
