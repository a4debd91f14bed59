package resource

import (
	"encoding/binary"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// numa is where a thread's memory is to come from: set_mempolicy(2). Mappings
// may have a policy of their own, mbind(2), which is a part of the memory.
var numa = Part{
	Name:    "memory policy",
	Support: Partial,
	Note: "Of each thread, and of mappings (mbind); on a machine that lacks the nodes the restart is refused. The home node of " +
		"set_mempolicy_home_node is not kept: the kernel does not tell it.",
	Records: []image.Spec{
		image.Row[policyRecord](threadPolicyKind, "MEMPOLICY", image.InThread, "memory policy of a thread; none if it has the default one"),
		image.Row[vmaPolicy](vmaPolicyKind, "VMA_POLICY", image.InMM, "memory policy of the mapping"),
	},
	SaveThread:    func() ThreadSaving { return new(numaSave) },
	RestoreThread: func() ThreadRestoring { return new(numaRestore) },
}

const (
	vmaPolicyKind    image.Kind = 6207
	threadPolicyKind image.Kind = 6208
)

// policyRecord is what get_mempolicy(2) tells.
type policyRecord struct {
	Mode  uint32 `fmt:"hex" doc:"MPOL_* of set_mempolicy(2), with its flags"`
	_     [4]byte
	Nodes []uint64 `fmt:"hex" doc:"bit set of nodes"`
}

type vmaPolicy struct {
	Mode  uint32 `fmt:"hex" doc:"as that of MEMPOLICY"`
	_     [4]byte
	Nodes []uint64 `fmt:"hex" doc:"bit set of nodes"`
}

const (
	maxNodes    = 1024 // CONFIG_NODES_SHIFT is at most 10
	mpolDefault = 0
	mpolOfAddr  = 2 // MPOL_F_ADDR
)

// policyAnswer is where get_mempolicy(2) leaves what it tells.
type policyAnswer struct {
	*answer
	row *tracer.Row
}

const policySize = 8 + maxNodes/8 // an int, and the nodes from the next 8 bytes on

func getPolicy(p *tracer.Program, a *answer, addr procfs.Addr, flags int) policyAnswer {
	row := p.Call(unix.SYS_GET_MEMPOLICY, tracer.Ptr(a.at), tracer.Ptr(a.at+8), tracer.Imm(maxNodes+1), tracer.Ptr(addr), tracer.Int(flags)).Tolerate()
	return policyAnswer{a, row}
}

// policy is what was told; nil for the default, and where there is no NUMA.
func (a policyAnswer) policy() *policyRecord {
	if a.row == nil || a.row.Err() != nil {
		return nil
	}
	rec := &policyRecord{Mode: binary.LittleEndian.Uint32(a.data)}
	if rec.Mode == mpolDefault {
		return nil
	}
	for word := range slices.Chunk(a.data[8:], 8) {
		rec.Nodes = append(rec.Nodes, binary.LittleEndian.Uint64(word))
	}
	for n := len(rec.Nodes); n > 0 && rec.Nodes[n-1] == 0; n-- {
		rec.Nodes = rec.Nodes[:n-1]
	}
	return rec
}

// check refuses what no checkpoint writes.
func (rec *policyRecord) check() error {
	if rec.Mode > 0xffff || len(rec.Nodes) > maxNodes/64 {
		return badImage(fault.ImageValue, "memory policy", "mode %#x, %d nodes", rec.Mode, 64*len(rec.Nodes))
	}
	return nil
}

// nodes returns the last two arguments of the calls that set a policy.
func (rec *policyRecord) nodes(p *tracer.Program) (mask, n tracer.Arg) {
	if len(rec.Nodes) == 0 {
		return tracer.Imm(0), tracer.Imm(0)
	}
	return tracer.Ptr(p.Bytes(quads(rec.Nodes...))), tracer.Int(64*len(rec.Nodes) + 1)
}

// bind gives a mapping its policy.
func (rec *policyRecord) bind(b *Builder, at procfs.Range, what string) {
	p := b.Stage()
	mask, n := rec.nodes(p)
	row := p.Call(unix.SYS_MBIND, tracer.Ptr(at.Start), tracer.Imm(at.Len()), tracer.Imm(uint64(rec.Mode)), mask, n, tracer.Imm(0))
	b.Expect(row, fault.MemoryPolicy, what)
}

type numaSave struct{ answer policyAnswer }

func (*numaSave) Survey(*View, *procfs.Status) fault.List { return nil }

func (s *numaSave) Ask(_ *Saver, t *SavedThread, p *tracer.Program) {
	s.answer = getPolicy(p, t.answer(p, policySize), 0, 0)
}

func (s *numaSave) Dump(d *Saver, t *SavedThread) error {
	if rec := s.answer.policy(); rec != nil {
		return d.W.Put(t.owner(), rec)
	}
	return nil
}

type numaRestore struct{ policy policyRecord }

func (r *numaRestore) Load(b *Builder, _ *LoadedThread) error {
	kind, err := b.R.Peek()
	if err != nil || kind != threadPolicyKind {
		return err
	}
	rec, _, err := image.Expect[policyRecord](b.R)
	if err == nil {
		err = rec.check()
	}
	if err != nil {
		return err
	}
	r.policy = *rec
	// What can be given to a mapping can be given to a thread.
	at, err := b.mem.mapAside(b, procfs.PageSize, unix.MAP_PRIVATE)
	if err != nil {
		return err
	}
	rec.bind(b, at.at, "thread")
	return nil
}

func (r *numaRestore) Commit(_ *Builder, _ *LoadedThread, p *tracer.Program) error {
	mask, n := r.policy.nodes(p)
	row := p.Call(unix.SYS_SET_MEMPOLICY, tracer.Imm(uint64(r.policy.Mode)), mask, n)
	if r.policy.Mode == mpolDefault {
		row.Tolerate() // it is the only one of a kernel without NUMA
	}
	return nil
}

// askPolicies finds the mappings that have a policy: first all are asked for
// its mode alone, then those few for all of it.
func (s *memorySave) askPolicies(d *Saver, maps []procfs.Mapping) error {
	p := d.Remote.Program()
	var modes answers
	var rows []*tracer.Row
	for i := range maps {
		a := modes.reserve(p, 4)
		rows = append(rows, p.Call(unix.SYS_GET_MEMPOLICY, tracer.Ptr(a.at), tracer.Imm(0), tracer.Imm(0), tracer.Ptr(maps[i].Start), tracer.Imm(mpolOfAddr)).Tolerate())
	}
	if err := p.Run(); err != nil {
		return fmt.Errorf("ask for memory policies: %w", err)
	}
	if err := modes.read(d.Remote); err != nil {
		return err
	}
	p = d.Remote.Program()
	var full answers
	s.policies = make(map[procfs.Addr]policyAnswer)
	for i := range maps {
		if rows[i].Err() == nil && binary.LittleEndian.Uint32(modes[i].data) != mpolDefault {
			s.policies[maps[i].Start] = getPolicy(p, full.reserve(p, policySize), maps[i].Start, mpolOfAddr)
		}
	}
	if err := p.Run(); err != nil || len(full) == 0 {
		return err
	}
	return full.read(d.Remote)
}

// dumpPolicy writes that of a mapping, if it has one.
func (s *memorySave) dumpPolicy(d *Saver, m *procfs.Mapping) error {
	if rec := s.policies[m.Start].policy(); rec != nil {
		of := vmaPolicy(*rec)
		return d.W.Put(0, &of)
	}
	return nil
}

// loadPolicy reads it. The pages come later, and so from where they should.
func (m *stagedMapping) loadPolicy(b *Builder) error {
	kind, err := b.R.Peek()
	if err != nil || kind != vmaPolicyKind {
		return err
	}
	of, _, err := image.Expect[vmaPolicy](b.R)
	if err != nil {
		return err
	}
	m.policy = policyRecord(*of)
	return m.policy.check()
}
