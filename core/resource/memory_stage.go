package resource

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// stagedMapping is a mapping of the image: at is where it lies until commit.
type stagedMapping struct {
	vma        *image.VMA
	more       vmaMore
	path       string
	final      procfs.Range
	at         procfs.Range
	open       bool // writable for filling, to be closed with the final protection
	registered bool // pages may be moved in
	touched    bool // it has had pages
	guards     []procfs.Range
	inherited  bool // from the parent's stage
	lacks      []procfs.Range
	policy     policyRecord
	pool       uint64   // size of its pages if it is of the huge page pool, else 0
	by         *Builder // of a shared object as a whole: in whose memory it lies
}

// check refuses what no checkpoint has written.
func (m *stagedMapping) check() error {
	v := m.vma
	bad := func(what string) error {
		return badImage(fault.ImageValue, fmt.Sprintf("mapping %v", m.final), "%s", what)
	}
	switch {
	case v.Start%procfs.PageSize != 0 || v.End%procfs.PageSize != 0 || v.Start >= v.End:
		return badImage(fault.ImageRange, fmt.Sprintf("mapping %v", m.final), "not whole pages in order")
	case v.Type != image.VMAAnon && v.Type != image.VMAFile:
		return bad(fmt.Sprintf("type %d", v.Type))
	case v.Flags&^knownRaw != 0:
		return bad(fmt.Sprintf("flags %#x", v.Flags&^knownRaw))
	case v.Pgoff > 1<<51 || v.Pgoff+m.final.Pages() > 1<<51:
		return bad(fmt.Sprintf("offset %#x pages", v.Pgoff))
	case m.more.Special >= uint32(len(specials)) || m.more.Special != 0 && v.Type != image.VMAAnon:
		return bad(fmt.Sprintf("special kind %d", m.more.Special))
	case m.more.Special == 0 && v.Flags&image.VMIO != 0:
		return bad("device memory")
	case v.Type == image.VMAAnon && !m.private() &&
		(m.more.Objref == 0 || m.more.Size > 1<<47 || m.more.Size < (v.Pgoff+m.final.Pages())*procfs.PageSize):
		return bad("shared object")
	case m.checkPool() != "":
		return bad(m.checkPool())
	case m.more.IDLen > uint32(len(m.more.BuildID)):
		return bad("build id")
	case !m.private() && v.Flags&image.VMGrowsDown != 0:
		return bad("shared stack")
	}
	return nil
}

// private tells a private mapping from a shared one. A shared mapping of a file
// that is open for reading has VM_MAYSHARE alone (mm/mmap.c).
func (m *stagedMapping) private() bool { return m.vma.Flags&(image.VMShared|image.VMMayShare) == 0 }

// prot is the final protection.
func (m *stagedMapping) prot() int {
	prot := 0
	for _, p := range []struct {
		raw  uint64
		prot int
	}{
		{image.VMRead, unix.PROT_READ}, {image.VMWrite, unix.PROT_WRITE}, {image.VMExec, unix.PROT_EXEC},
	} {
		if m.vma.Flags&p.raw != 0 {
			prot |= p.prot
		}
	}
	return prot
}

// place decides where the mapping lies until commit: where it belongs, if the
// caller has nothing there. A neighbour that the kernel would merge it with,
// but had not merged it with in the saved process, is kept apart by moving it
// in with pages of its own.
func (r *memoryRestore) place(b *Builder, m, last *stagedMapping) error {
	if err := r.clear(b, m.final); err != nil {
		return err
	}
	vacant := b.Layout.Vacant(m.final)
	if !b.Layout.Claim(m.final) {
		return badImage(fault.ImageRange, fmt.Sprintf("mapping %v", m.final), "overlaps another or lies outside of user space")
	}
	below, apart := m.below(), last != nil && last.wouldMerge(m)
	if vacant && below == 0 && !apart {
		m.at = m.final
		return nil
	}
	if apart { // on the way as well, or their pages would be of one mapping
		gap := procfs.Range{Start: last.at.End, End: last.at.End + procfs.Addr(procfs.PageSize)}
		b.Layout.Occupy(gap)
		defer b.Layout.Release(gap)
	}
	at, ok := b.Layout.Find(below+m.final.Len(), m.final.Start-procfs.Addr(below), m.align())
	if !ok {
		return &fault.Error{Code: fault.StageRoom, Object: fmt.Sprintf("mapping %v", m.final)}
	}
	at.Start += procfs.Addr(below) // what lies before it is dropped as soon as it is mapped
	b.Layout.Occupy(at)
	m.at = at
	r.mapped = append(r.mapped, m)
	return nil
}

func (m *stagedMapping) wouldMerge(next *stagedMapping) bool {
	return m.more.Special == 0 && m.final.End == next.final.Start && m.private() && next.private() &&
		m.vma.Type == image.VMAAnon && next.vma.Type == image.VMAAnon &&
		m.vma.Flags == next.vma.Flags && m.more.Name == next.more.Name
}

// clear moves what is staged for now out of a range in which a mapping of the
// image belongs.
func (r *memoryRestore) clear(b *Builder, final procfs.Range) error {
	if b.Remote.Scratch().Overlaps(final) {
		if err := b.moveScratch(); err != nil {
			return err
		}
	}
	if r.nursery != nil && r.nursery.at.Overlaps(final) {
		r.nursery.drop(b) // made anew elsewhere when it is needed
	}
	for _, m := range r.mapped {
		if !m.at.Overlaps(final) {
			continue
		}
		if err := b.R.Drain(); err != nil { // the checksum may be reading there
			return err
		}
		to, ok := b.Layout.Find(m.at.Len(), m.final.Start, m.align())
		if !ok || to.Overlaps(final) {
			return &fault.Error{Code: fault.StageRoom, Object: fmt.Sprintf("mapping %v", m.final)}
		}
		if !m.late() { // else there is nothing yet
			b.Expect(move(b.Stage(), m.at, to), fault.StageMemory, fmt.Sprintf("mapping %v", m.final))
		}
		if err := b.Flush(); err != nil {
			return err
		}
		b.Layout.Release(m.at)
		b.Layout.Occupy(to)
		m.at = to
	}
	return nil
}

// stage maps the mapping, empty, with all its attributes.
func (r *memoryRestore) stage(b *Builder, m *stagedMapping) error {
	object := fmt.Sprintf("mapping %v", m.final)
	prot := m.prot()
	flags := m.mapFlags()
	if m.private() && m.vma.Flags&image.VMAccount != 0 {
		prot |= unix.PROT_WRITE // memory is accounted for when it becomes writable
	}
	m.open = prot != m.prot()
	var row *tracer.Row
	switch {
	case m.carried():
		var err error
		if row, err = r.stageCarried(b, m, prot); err != nil {
			return err
		}
	case m.vma.Type == image.VMAFile:
		f, err := r.mapFile(b, m)
		if err != nil {
			return err
		}
		row = b.Stage().Mmap(m.at, prot, flags, f.fd, m.vma.Pgoff*procfs.PageSize)
	case m.pool != 0:
		var err error
		if row, err = m.stagePool(b, prot); err != nil {
			return err
		}
	case m.private():
		row = b.Stage().Mmap(m.at, prot, flags|unix.MAP_ANONYMOUS, tracer.FD(-1), 0)
	default:
		base, err := r.sharedObject(b, m)
		if err != nil {
			return err
		}
		row = b.secondView(base, m)
		m.open = prot != unix.PROT_READ|unix.PROT_WRITE
	}
	if m.pool != 0 {
		b.Expect(row, fault.PoolEmpty, object)
	}
	b.Expect(row, fault.StageMemory, object)
	if m.policy.Mode != mpolDefault {
		m.policy.bind(b, m.at, object)
	}
	p := b.Stage()
	for _, a := range advice {
		if m.vma.Flags&a.raw != 0 {
			b.Expect(p.Madvise(m.at, a.advice), fault.StageMemory, object)
		}
	}
	if m.more.Name != "" {
		const prSetVMA, anonName = 0x53564d41, 0
		b.Expect(p.Prctl(prSetVMA, tracer.Imm(anonName), tracer.Ptr(m.at.Start), tracer.Imm(m.at.Len()), tracer.Ptr(p.String(m.more.Name))), fault.StageMemory, object)
	}
	return nil
}

// mapFlags are those of mmap(2) that make it what it is.
func (m *stagedMapping) mapFlags() int {
	flags := mapFixedNoReplace | unix.MAP_SHARED
	if m.private() {
		flags = mapFixedNoReplace | unix.MAP_PRIVATE
	}
	if m.vma.Flags&image.VMGrowsDown != 0 {
		flags |= unix.MAP_GROWSDOWN // not MAP_STACK, which keeps huge pages out since Linux 6.7
	}
	if m.vma.Flags&image.VMNoReserve != 0 {
		flags |= unix.MAP_NORESERVE
	}
	return flags
}

// fill reads the mapping's contents into place.
func (r *memoryRestore) fill(b *Builder, m *stagedMapping) error {
	if err := m.loadGuards(b); err != nil {
		return err
	}
	for {
		chunk, _, err := image.Expect[image.PageArray](b.R)
		if err != nil || chunk.Pages == 0 {
			return err
		}
		runs, err := m.readRuns(b)
		if err != nil {
			return err
		}
		if err := m.makeWritable(b); err != nil {
			return err
		}
		m.touched = true
		sink := &pageSink{b: b, runs: runs, from: b.R.Offset()}
		if len(extents(runs)) > 0 && !m.inherited {
			if sink.nursery, err = r.wantHugePages(b, m); err != nil {
				return err
			}
		}
		if err := b.R.Pages(chunk.Pages, sink); err != nil {
			return err
		}
	}
}

// readRuns reads the addresses of a chunk and returns where their contents
// are staged, neighbours joined.
func (m *stagedMapping) readRuns(b *Builder) ([]procfs.Range, error) {
	addrs, err := b.R.Addrs()
	if err != nil {
		return nil, err
	}
	var runs []procfs.Range
	next := m.final.Start
	for _, addr := range addrs {
		a := procfs.Addr(addr)
		if addr%procfs.PageSize != 0 || a < next || a >= m.final.End {
			return nil, badImage(fault.ImageRange, fmt.Sprintf("mapping %v", m.final), "page %v", a)
		}
		next = a + procfs.Addr(procfs.PageSize)
		at := a - m.final.Start + m.at.Start
		if n := len(runs); n > 0 && runs[n-1].End == at {
			runs[n-1].End += procfs.Addr(procfs.PageSize)
		} else {
			runs = append(runs, procfs.Range{Start: at, End: at + procfs.Addr(procfs.PageSize)})
		}
	}
	return runs, nil
}

// touch lets a mapping that was writable once keep being accounted for: the
// kernel drops that together with the right to write if there never was a page
// (mprotect_fixup of mm/mprotect.c asks for an anon_vma).
func (m *stagedMapping) touch(b *Builder) {
	const account = image.VMAccount
	if m.touched || len(m.guards) > 0 || !m.private() || m.vma.Type != image.VMAAnon || m.vma.Flags&account == 0 {
		return
	}
	page := procfs.Range{Start: m.at.Start, End: m.at.Start + procfs.Addr(procfs.PageSize)}
	b.Stage().Madvise(page, unix.MADV_POPULATE_WRITE).Tolerate() // since Linux 5.14; it is a matter of bookkeeping
	b.Stage().Madvise(page, unix.MADV_DONTNEED).Tolerate()
}

// makeWritable opens the mapping for filling if its protection forbids that.
func (m *stagedMapping) makeWritable(b *Builder) error {
	if m.open || m.vma.Flags&image.VMWrite != 0 {
		return nil
	}
	m.open = true
	b.Expect(b.Stage().Mprotect(m.at, unix.PROT_READ|unix.PROT_WRITE), fault.StageMemory, fmt.Sprintf("mapping %v", m.final))
	return nil
}

// wantHugePages returns the nursery if pages can be moved from it into the
// mapping, nil if not.
func (r *memoryRestore) wantHugePages(b *Builder, m *stagedMapping) (*nursery, error) {
	if r.nursery == nil {
		var err error
		if r.nursery, err = openNursery(b); err != nil {
			return nil, err
		}
	}
	if !m.registered {
		if !r.nursery.suits(m) {
			return nil, nil
		}
		if err := r.nursery.register(b, m); err != nil {
			return nil, err
		}
	}
	return r.nursery, nil
}

func (m *stagedMapping) loadGuards(b *Builder) error {
	for {
		kind, err := b.R.Peek()
		if err != nil || kind != guardKind {
			return err
		}
		guards, _, err := image.Expect[guardRecord](b.R)
		if err != nil {
			return err
		}
		for pair := range slices.Chunk(guards.Bounds, 2) {
			if len(pair) != 2 || pair[0]%procfs.PageSize != 0 || pair[1]%procfs.PageSize != 0 ||
				pair[0] >= pair[1] || pair[0] < m.vma.Start || pair[1] > m.vma.End {
				return badImage(fault.ImageRange, fmt.Sprintf("mapping %v", m.final), "guard %#x", pair)
			}
			m.guards = append(m.guards, procfs.Range{Start: procfs.Addr(pair[0]), End: procfs.Addr(pair[1])})
		}
	}
}

// finish gives the mapping its guards and its final protection, and locks it.
func (r *memoryRestore) finish(b *Builder, m *stagedMapping) error {
	object := fmt.Sprintf("mapping %v", m.final)
	if m.registered {
		r.nursery.unregister(b, m)
	}
	for _, g := range m.guards {
		at := m.at.Start + (g.Start - m.final.Start)
		row := b.Stage().Madvise(procfs.Range{Start: at, End: at + procfs.Addr(g.Len())}, madvGuardInstall)
		b.Expect(row, fault.StageMemory, fmt.Sprintf("guard in mapping %v", m.final))
	}
	if m.open {
		m.touch(b)
		b.Expect(b.Stage().Mprotect(m.at, m.prot()), fault.StageMemory, object)
	}
	if m.vma.Flags&image.VMLocked != 0 {
		const onFault = 1
		how := 0
		if m.vma.Flags&image.VMLockOnFault != 0 {
			how = onFault
		}
		// It fails where pages cannot be brought in, and has locked them all the
		// same; checkLocked tells that from a limit.
		b.Stage().Mlock2(m.at, how).Tolerate()
		r.locked = append(r.locked, m)
	}
	if m.vma.Flags&image.VMSealed != 0 {
		r.seal(b, m)
	}
	r.keys.protect(b, m) // last: then the caller itself may not touch it any more
	return nil
}
