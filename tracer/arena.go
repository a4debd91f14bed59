package tracer

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// arena is where the data of programs lies: an area of scratch memory, and
// further ones that are mapped when it is full.
type arena struct {
	areas []Range
	used  int // index of the area being filled
	next  Addr
	loose int // how many of the further areas no undo row unmaps, the first ones
}

const dataAlign = 16

func (a *arena) reset() { a.used, a.next = 0, a.areas[0].Start }

// loosen notes that the undo rows are gone.
func (a *arena) loosen() { a.loose = len(a.areas) - 1 }

// undone notes that the undo rows have been run.
func (a *arena) undone() {
	a.areas = a.areas[:1+a.loose]
	a.reset()
}

// take returns n bytes, and false if there is no room.
func (a *arena) take(n uint64) (Addr, bool) {
	for {
		area := a.areas[a.used]
		start := (a.next + dataAlign - 1) &^ (dataAlign - 1)
		if start <= area.End && uint64(area.End-start) >= n {
			a.next = start + Addr(n)
			return start, true
		}
		if a.used+1 == len(a.areas) {
			return 0, false
		}
		a.used++
		a.next = a.areas[a.used].Start
	}
}

// alloc returns the address of n bytes of scratch memory.
func (r *Remote) alloc(n uint64) (Addr, error) {
	if addr, ok := r.data.take(n); ok {
		return addr, nil
	}
	if n > maxScratch {
		return 0, fmt.Errorf("data of %d bytes: %w", n, ErrFull)
	}
	size, err := scratchSize(n)
	if err != nil {
		return 0, err
	}
	at, err := r.e.choosePlace(r.opt.Avoid, size)
	if err != nil {
		return 0, err
	}
	p := r.begin()
	args := mmapArgs(at, size)
	m := p.Call(unix.SYS_MMAP, immediates(args)...)
	m.Undo(unix.SYS_MUNMAP, m, Imm(size))
	if err := p.Run(); err != nil {
		return 0, mapError("more scratch memory", err)
	}
	base := Addr(m.Result())
	r.data.areas = append(r.data.areas, Range{Start: base, End: base + Addr(size)})
	addr, _ := r.data.take(n)
	return addr, nil
}

// unmapAreas gives back the areas that were mapped in addition.
func (r *Remote) unmapAreas() error {
	if len(r.data.areas) < 2 {
		return nil
	}
	p := r.begin()
	for _, area := range r.data.areas[1:] {
		p.Munmap(area)
	}
	r.data.areas = r.data.areas[:1]
	r.data.loose = 0
	r.data.reset()
	return p.Run()
}
