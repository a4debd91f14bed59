package resource

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// Protection keys (pkeys(7)): which of them are allocated, and which mappings
// bear one. What a thread may do with each is in a register of its own (PKRU),
// which is part of its extended state.

const pkeysKind image.Kind = 6206

const pkeys = 16 // on x86; 0 is that of all other memory

// pkeysRecord stands behind AUXV if a key is in use, more than once if the
// ranges do not fit one.
type pkeysRecord struct {
	Allocated uint32      `fmt:"hex" doc:"bit set of the keys that the process has allocated"`
	ExecOnly  uint32      `doc:"the key that the kernel itself gives to what may be executed and not read, 0 if there is none"`
	Ranges    []pkeyRange `doc:"mappings with a key"`
}

type pkeyRange struct {
	Start uint64 `fmt:"hex"`
	Key   uint64
}

// askKeys tries each key where nothing is mapped: one that is not allocated is
// refused first (mm/mprotect.c, do_mprotect_pkey), so nothing changes.
func askKeys(p *tracer.Program, nowhere procfs.Range) (tried []*tracer.Row) {
	for key := range pkeys {
		tried = append(tried, p.Call(unix.SYS_PKEY_MPROTECT, tracer.Ptr(nowhere.Start), tracer.Imm(nowhere.Len()), tracer.Imm(unix.PROT_NONE), tracer.Int(key)).Tolerate())
	}
	return tried
}

// allocated returns the keys that the calls of askKeys have found.
func allocated(tried []*tracer.Row) (set uint32) {
	for key, row := range tried {
		if key > 0 && errors.Is(row.Err(), unix.ENOMEM) {
			set |= 1 << key
		}
	}
	return set
}

// nowhere returns a page that neither a list of mappings nor scratch has.
func nowhere(maps []procfs.Mapping, scratch procfs.Range) procfs.Range {
	l := NewLayout(maps, addressSpace())
	l.Occupy(scratch)
	page, _ := l.Find(procfs.PageSize, 0, procfs.PageSize) // of 128 TiB, some are free
	return page
}

// dumpKeys writes which keys there are.
func (s *memorySave) dumpKeys(d *Saver, maps []procfs.Mapping) error {
	rec := pkeysRecord{Allocated: allocated(s.keys)}
	for i := range maps {
		m := &maps[i]
		if m.ProtectionKey == 0 {
			continue
		}
		if rec.Allocated&(1<<m.ProtectionKey) == 0 {
			rec.ExecOnly = m.ProtectionKey
		} else {
			rec.Ranges = append(rec.Ranges, pkeyRange{Start: uint64(m.Start), Key: uint64(m.ProtectionKey)})
		}
	}
	const most = 1500 // that fit one record
	for rec.Allocated != 0 || rec.ExecOnly != 0 {
		part := rec
		part.Ranges = rec.Ranges[:min(most, len(rec.Ranges))]
		if err := d.W.Put(d.vpid(), &part); err != nil {
			return err
		}
		if rec.Ranges = rec.Ranges[len(part.Ranges):]; len(rec.Ranges) == 0 {
			break
		}
	}
	return nil
}

// stagedKeys are those of the image in the caller.
type stagedKeys struct {
	allocated uint32
	of        map[procfs.Addr]uint64 // by the start of the mapping
}

// loadKeys reads which keys there are and allocates them. The numbers are the
// kernel's choice, the lowest that is free, so all are allocated first.
func (r *memoryRestore) loadKeys(b *Builder) error {
	r.keys.of = make(map[procfs.Addr]uint64)
	var execOnly uint32
	found := false
	for ; ; found = true {
		kind, err := b.R.Peek()
		if err != nil {
			return err
		}
		if kind != pkeysKind {
			break
		}
		rec, _, err := image.Expect[pkeysRecord](b.R)
		if err != nil {
			return err
		}
		if rec.Allocated&^(1<<pkeys-2) != 0 || rec.ExecOnly >= pkeys || rec.Allocated&(1<<rec.ExecOnly) != 0 {
			return badImage(fault.ImageValue, "protection keys", "%#x, %d", rec.Allocated, rec.ExecOnly)
		}
		r.keys.allocated, execOnly = rec.Allocated, rec.ExecOnly
		for _, x := range rec.Ranges {
			if x.Key >= pkeys || rec.Allocated&(1<<x.Key) == 0 {
				return badImage(fault.ImageValue, "protection keys", "key %d", x.Key)
			}
			r.keys.of[procfs.Addr(x.Start)] = x.Key
		}
	}
	if !found {
		return nil
	}
	return r.keys.allocate(b, execOnly)
}

func (k *stagedKeys) allocate(b *Builder, execOnly uint32) error {
	if err := b.Flush(); err != nil {
		return err
	}
	p := b.Remote.Program()
	tried := askKeys(p, nowhere(b.Caller.Mappings, b.Remote.Scratch()))
	const disableAccess = 1 // as the register has it for keys that nobody has allocated
	var news []*tracer.Row
	for range pkeys - 1 {
		row := p.Call(unix.SYS_PKEY_ALLOC, tracer.Imm(0), tracer.Imm(disableAccess)).Tolerate()
		row.Undo(unix.SYS_PKEY_FREE, row)
		news = append(news, row)
	}
	if err := p.Run(); err != nil {
		return err
	}
	own, made := allocated(tried), uint32(0)
	for _, row := range news {
		if row.Err() == nil {
			made |= 1 << row.Result()
		}
	}
	for key := uint64(1); key < pkeys; key++ {
		if made&(1<<key) != 0 {
			b.keys = append(b.keys, key)
		}
	}
	if k.allocated&^(own|made) != 0 || made == 0 && own == 0 {
		return &fault.Error{Code: fault.ProtectionKeys, Object: b.Caller.Name(), Detail: fmt.Sprintf("keys %#x, of which it can have %#x", k.allocated, k.allocated&(own|made))}
	}
	if err := k.settleExecOnly(b, execOnly, own, made); err != nil {
		return err
	}
	p = b.Remote.Program()
	for key := uint32(1); key < pkeys; key++ {
		if made&^k.allocated&(1<<key) != 0 && key != execOnly {
			p.Call(unix.SYS_PKEY_FREE, tracer.Imm(uint64(key)))
		}
	}
	return p.Run()
}

// settleExecOnly has the kernel choose the key of execute-only memory, once and
// for all, while no other key is free. Where the caller has had such memory,
// it is chosen already: neither its own nor free.
func (k *stagedKeys) settleExecOnly(b *Builder, want, own, made uint32) error {
	if want == 0 {
		return nil
	}
	if made&(1<<want) == 0 {
		if own&(1<<want) != 0 {
			return &fault.Error{Code: fault.ProtectionKeys, Object: b.Caller.Name(), Detail: fmt.Sprintf("key %d is its own", want)}
		}
		return nil
	}
	if other := uint32(1<<pkeys-2) &^ (own | made); other != 0 {
		return &fault.Error{Code: fault.ProtectionKeys, Object: b.Caller.Name(), Detail: fmt.Sprintf("its execute-only memory has keys %#x, not %d", other, want)}
	}
	at, ok := b.Layout.Find(procfs.PageSize, 0, procfs.PageSize)
	if !ok {
		return &fault.Error{Code: fault.StageRoom, Object: "protection keys"}
	}
	p := b.Remote.Program()
	p.Call(unix.SYS_PKEY_FREE, tracer.Imm(uint64(want)))
	p.Mmap(at, unix.PROT_EXEC, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|mapFixedNoReplace, tracer.FD(-1), 0)
	p.Munmap(at)
	return p.Run()
}

// protect gives a mapping its key.
func (k *stagedKeys) protect(b *Builder, m *stagedMapping) {
	key := k.of[m.final.Start]
	if key == 0 {
		return
	}
	row := b.Stage().Call(unix.SYS_PKEY_MPROTECT, tracer.Ptr(m.at.Start), tracer.Imm(m.at.Len()), tracer.Int(m.prot()), tracer.Imm(key))
	b.Expect(row, fault.ProtectionKeys, fmt.Sprintf("mapping %v", m.final))
}

// commit frees the caller's own keys that the image does not have.
func (k *stagedKeys) commit(p *tracer.Program) {
	for key := uint32(1); key < pkeys; key++ {
		if k.allocated&(1<<key) == 0 {
			p.Call(unix.SYS_PKEY_FREE, tracer.Imm(uint64(key))).Tolerate() // it may not be allocated
		}
	}
}
