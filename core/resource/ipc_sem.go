package resource

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/tracer"
)

type semSetRecord struct {
	IPCOwner
	_      [4]byte
	OTime  int64    `doc:"time of the last semop(2), seconds since the epoch; 0 never"`
	Values []uint16 `doc:"of each semaphore"`
}

// maxSems is how many values the record holds; the kernel has 32000 at the most
// (SEMMSL) by default.
const maxSems = 16000

// semDesc is equivalent to struct semid64_ds of <asm/sembuf.h>.
type semDesc struct {
	ipcPerm
	OTime int64
	_     uint64
	CTime int64
	_     uint64
	Sems  uint64
	_     [2]uint64
}

func (i *Namespaces) askSets() error {
	found, err := i.list(&sysvSem)
	if err != nil {
		return err
	}
	for _, o := range found {
		desc, err := parseIPC[semDesc](o.raw)
		if err != nil {
			return err
		}
		rec := &semSetRecord{IPCOwner: sysvSem.owner(o.id, &desc.ipcPerm), OTime: desc.OTime}
		name := sysvSem.name(&rec.IPCOwner)
		if desc.Sems > maxSems {
			return i.refuse(name, nil, "%d semaphores", desc.Sems)
		}
		const getAll = 13
		p := i.s.Remote.Program()
		buf := p.Buffer(2 * desc.Sems)
		sysvSem.control(p, tracer.Imm(uint64(o.id)), getAll, tracer.Ptr(buf))
		if err := p.Run(); err != nil {
			return i.asked(name, err)
		}
		raw := make([]byte, 2*desc.Sems)
		if err := i.s.Remote.ReadMem(buf, raw); err != nil {
			return err
		}
		for ; len(raw) > 0; raw = raw[2:] {
			rec.Values = append(rec.Values, binary.LittleEndian.Uint16(raw))
		}
		i.sets = append(i.sets, rec)
	}
	return nil
}

func (i *Namespaces) dumpSets() error {
	for _, rec := range i.sets {
		if err := i.s.W.Put(0, rec); err != nil {
			return err
		}
	}
	return nil
}

func loadSemSet(b *Builder, to into) error {
	rec, name, err := expectOwned(b, &sysvSem, func(r *semSetRecord) *IPCOwner { return &r.IPCOwner })
	if err != nil {
		return err
	}
	if n := len(rec.Values); n == 0 || n > maxSems {
		return badImage(fault.ImageValue, name, "%d semaphores", n)
	}
	if !to.make {
		return sysvSem.expect(b, &rec.IPCOwner)
	}
	if err := sysvSem.create(b, &rec.IPCOwner, unix.SYS_SEMGET, tracer.Int(len(rec.Values)), rec.makeMode()); err != nil {
		return err
	}
	const setAll = 17
	p := b.Remote.Program()
	if rec.OTime != 0 {
		// Programs tell by it that a set has been initialised (semctl(2)): an operation that changes nothing, as all are 0 yet.
		wait := binary.LittleEndian.AppendUint16([]byte{0, 0, 0, 0}, unix.IPC_NOWAIT)
		p.Call(unix.SYS_SEMOP, tracer.Imm(uint64(rec.ID)), tracer.Ptr(p.Bytes(wait)), tracer.Imm(1))
	}
	var values []byte
	for _, v := range rec.Values {
		values = binary.LittleEndian.AppendUint16(values, v)
	}
	sysvSem.control(p, tracer.Imm(uint64(rec.ID)), setAll, tracer.Ptr(p.Bytes(values)))
	sysvSem.set(p, &rec.IPCOwner, semDesc{ipcPerm: rec.perm()})
	return b.makeIPC(p, name)
}
