package resource

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/core/object"
	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

type memoryRestore struct {
	mm     *image.MM
	exe    string
	exeFD  *stagedFile // nil if the link stays as it is
	exeRow *tracer.Row
	auxv   []uint64
	mapped []*stagedMapping         // those that are moved at commit
	files  map[string]*stagedFile   // opened for mapping, by name and access
	moves  map[procfs.Special]place // vdso and its like
}

// place is where a special mapping belongs.
type place struct{ from, to procfs.Range }

// stagedMapping is a mapping of the image: at is where it lies until commit.
type stagedMapping struct {
	vma   *image.VMA
	more  vmaMore
	path  string
	final procfs.Range
	at    procfs.Range
	open  bool // writable for filling, to be closed with the final protection
}

func (r *memoryRestore) Load(b *Builder) error {
	mm, _, err := image.Expect[image.MM](b.R)
	if err != nil {
		return err
	}
	r.mm = mm
	r.files = make(map[string]*stagedFile)
	r.moves = make(map[procfs.Special]place)
	if err := r.checkMM(b); err != nil {
		return err
	}
	exe, _, err := image.Expect[exeRecord](b.R)
	if err != nil {
		return err
	}
	auxv, _, err := image.Expect[auxvRecord](b.R)
	if err != nil {
		return err
	}
	const maxAuxv = 2 * (20 + 2 + 21 + 1) // AT_VECTOR_SIZE of x86, arch/x86/include/asm/elf.h and later growth
	if len(auxv.Words) > maxAuxv {
		return badImage(fault.ImageValue, "auxiliary vector", "%d words", len(auxv.Words))
	}
	r.exe, r.auxv = exe.Path, auxv.Words
	if err := r.loadExe(b); err != nil {
		return err
	}
	var last *stagedMapping
	for range r.mm.MapCount {
		if last, err = r.loadMapping(b, last); err != nil {
			return err
		}
	}
	for _, f := range r.files {
		f.closeStaged(b)
	}
	if err := r.checkSpecials(b); err != nil {
		return err
	}
	context, _, err := image.Expect[image.MMContext](b.R)
	if err == nil && context.NLDT != 0 {
		err = badImage(fault.ImageUnsupported, "local descriptor table", "%d entries", context.NLDT)
	}
	return err
}

// checkMM checks what prctl(PR_SET_MM_MAP) will check, when it is too late to
// refuse (kernel/sys.c, validate_prctl_map_addr).
func (r *memoryRestore) checkMM(b *Builder) error {
	mm, space := r.mm, addressSpace()
	for _, a := range []uint64{mm.StartCode, mm.EndCode, mm.StartData, mm.EndData, mm.StartBrk, mm.Brk, mm.StartStack,
		mm.ArgStart, mm.ArgEnd, mm.EnvStart, mm.EnvEnd} {
		if a >= uint64(space.End) || a < uint64(space.Start) {
			return badImage(fault.ImageRange, "address space", "%#x", a)
		}
	}
	for _, pair := range [][2]uint64{{mm.StartCode + 1, mm.EndCode}, {mm.StartData, mm.EndData}, {mm.StartBrk, mm.Brk},
		{mm.ArgStart, mm.ArgEnd}, {mm.EnvStart, mm.EnvEnd}} {
		if pair[0] > pair[1] {
			return badImage(fault.ImageRange, "address space", "%#x before %#x", pair[1], pair[0])
		}
	}
	var limit unix.Rlimit
	if err := unix.Prlimit(int(b.Caller.PID), unix.RLIMIT_DATA, nil, &limit); err != nil {
		return fmt.Errorf("read data limit of %s: %w", b.Caller.Name(), err)
	}
	if limit.Cur != unix.RLIM_INFINITY && mm.Brk-mm.StartBrk+mm.EndData-mm.StartData > limit.Cur {
		return &fault.Error{Code: fault.StageMemory, Object: b.Caller.Name(), Detail: "RLIMIT_DATA"}
	}
	return nil
}

// loadExe opens the program file where the caller may set the link to it:
// that takes CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN in its user namespace.
func (r *memoryRestore) loadExe(b *Builder) error {
	current, err := b.Caller.Proc.Link("exe")
	if err != nil {
		return err
	}
	if r.exe == "" || r.exe == current {
		return nil
	}
	if !b.mayRestore() {
		b.Warn("/proc/PID/exe stays %s: setting it to %s takes CAP_CHECKPOINT_RESTORE", current, r.exe)
		return nil
	}
	f, err := b.openFile(r.exe, unix.O_RDONLY, fault.ExeFile)
	r.exeFD = f
	return err
}

func (r *memoryRestore) loadMapping(b *Builder, last *stagedMapping) (*stagedMapping, error) {
	vma, _, err := image.Expect[image.VMA](b.R)
	if err != nil {
		return nil, err
	}
	m := &stagedMapping{vma: vma, final: procfs.Range{Start: procfs.Addr(vma.Start), End: procfs.Addr(vma.End)}}
	if vma.Type == image.VMAFile {
		name, _, err := image.Expect[image.FName](b.R)
		if err != nil {
			return nil, err
		}
		m.path = name.Name
	}
	if kind, err := b.R.Peek(); err != nil {
		return nil, err
	} else if kind == vmaMoreKind {
		more, _, err := image.Expect[vmaMore](b.R)
		if err != nil {
			return nil, err
		}
		m.more = *more
	}
	if err := m.check(); err != nil {
		return nil, err
	}
	if m.more.Special != 0 {
		return m, r.loadSpecial(b, m)
	}
	if err := r.place(b, m, last); err != nil {
		return nil, err
	}
	if err := r.stage(b, m); err != nil {
		return nil, err
	}
	if err := r.fill(b, m); err != nil {
		return nil, err
	}
	return m, r.finish(b, m)
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
	case v.Type == image.VMAAnon && v.Flags&image.VMShared != 0 &&
		(m.more.Objref == 0 || m.more.Size > 1<<47 || m.more.Size < (v.Pgoff+m.final.Pages())*procfs.PageSize):
		return bad("shared object")
	case m.more.IDLen > uint32(len(m.more.BuildID)):
		return bad("build id")
	case v.Flags&image.VMShared != 0 && v.Flags&image.VMGrowsDown != 0:
		return bad("shared stack")
	}
	return nil
}

func (m *stagedMapping) private() bool { return m.vma.Flags&image.VMShared == 0 }

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
	if vacant && !(last != nil && last.wouldMerge(m)) {
		m.at = m.final
		return nil
	}
	at, ok := b.Layout.Find(m.final.Len(), m.final.Start, hugePage)
	if !ok {
		return &fault.Error{Code: fault.StageRoom, Object: fmt.Sprintf("mapping %v", m.final)}
	}
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
	for _, m := range r.mapped {
		if !m.at.Overlaps(final) {
			continue
		}
		if err := b.R.Drain(); err != nil { // the checksum may be reading there
			return err
		}
		to, ok := b.Layout.Find(m.at.Len(), m.final.Start, hugePage)
		if !ok || to.Overlaps(final) {
			return &fault.Error{Code: fault.StageRoom, Object: fmt.Sprintf("mapping %v", m.final)}
		}
		b.Expect(move(b.Stage(), m.at, to), fault.StageMemory, fmt.Sprintf("mapping %v", m.final))
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
	flags := mapFixedNoReplace
	if m.private() {
		flags |= unix.MAP_PRIVATE
		if m.vma.Flags&image.VMAccount != 0 {
			prot |= unix.PROT_WRITE // memory is accounted for when it becomes writable
		}
	} else {
		flags |= unix.MAP_SHARED
	}
	if m.vma.Flags&image.VMGrowsDown != 0 {
		flags |= unix.MAP_GROWSDOWN | unix.MAP_STACK
	}
	if m.vma.Flags&image.VMNoReserve != 0 {
		flags |= unix.MAP_NORESERVE
	}
	m.open = prot != m.prot()
	var row *tracer.Row
	switch {
	case m.vma.Type == image.VMAFile:
		f, err := r.mapFile(b, m)
		if err != nil {
			return err
		}
		row = b.Stage().Mmap(m.at, prot, flags, f.fd, m.vma.Pgoff*procfs.PageSize)
	case m.private():
		row = b.Stage().Mmap(m.at, prot, flags|unix.MAP_ANONYMOUS, tracer.FD(-1), 0)
	default:
		base, err := r.sharedObject(b, m)
		if err != nil {
			return err
		}
		from := base.Start + procfs.Addr(m.vma.Pgoff*procfs.PageSize)
		// An old size of 0 maps the same pages a second time (mremap(2)).
		row = b.Stage().Mremap(procfs.Range{Start: from, End: from}, m.at.Len(), unix.MREMAP_MAYMOVE|unix.MREMAP_FIXED, m.at.Start)
		m.open = prot != unix.PROT_READ|unix.PROT_WRITE
	}
	b.Expect(row, fault.StageMemory, object)
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

// mapFile opens the file of a mapping once for all mappings that need it.
func (r *memoryRestore) mapFile(b *Builder, m *stagedMapping) (*stagedFile, error) {
	access := unix.O_RDONLY
	if !m.private() && m.vma.Flags&image.VMMayWrite != 0 {
		access = unix.O_RDWR
	}
	key := fmt.Sprintf("%d %s", access, m.path)
	f := r.files[key]
	if f == nil {
		var err error
		if f, err = b.openFile(m.path, access, fault.FileOpen); err != nil {
			return nil, err
		}
		r.files[key] = f
	}
	if f.checked {
		return f, nil
	}
	if err := b.Flush(); err != nil { // the file must be open to be looked at
		return nil, err
	}
	seen, err := b.Caller.Proc.FD(int32(f.fd))
	if err != nil {
		return nil, fmt.Errorf("look at staged %s: %w", m.path, err)
	}
	f.checked = true
	return f, m.sameFile(seen)
}

// sameFile refuses a file that is not the one that was mapped: code or data
// that changed under a running program is a crash that comes later. A copy of
// the file passes if it has the same size and, for programs and libraries,
// the same build id, which is compared once the file is mapped.
func (m *stagedMapping) sameFile(now *procfs.FD) error {
	switch {
	case now.Type() != unix.S_IFREG:
		return &fault.Error{Code: fault.FileTypeChanged, Object: m.path}
	case m.private() && uint64(now.Size) != m.more.Size:
		return &fault.Error{Code: fault.FileState, Object: m.path, Detail: fmt.Sprintf("%d bytes, was %d", now.Size, m.more.Size)}
	case uint64(now.Size) < m.vma.Pgoff*procfs.PageSize:
		return &fault.Error{Code: fault.FileTooShort, Object: m.path}
	}
	return nil
}

// sharedObject returns where a shared anonymous object is mapped as a whole,
// making it at first sight. Mappings of the image are second views of it.
func (r *memoryRestore) sharedObject(b *Builder, m *stagedMapping) (procfs.Range, error) {
	ref := object.Ref(m.more.Objref)
	known, ok, err := b.Objects.Get(object.SharedMemory, ref)
	if err != nil {
		return procfs.Range{}, badImage(fault.ImageValue, fmt.Sprintf("mapping %v", m.final), "%v", err)
	}
	if ok {
		base := known.(*stagedMapping)
		if base.more.Size != m.more.Size {
			return procfs.Range{}, badImage(fault.ImageValue, fmt.Sprintf("mapping %v", m.final), "shared object of two sizes")
		}
		return base.at, nil
	}
	at, ok := b.Layout.Find(m.more.Size, m.final.Start, hugePage)
	if !ok {
		return procfs.Range{}, &fault.Error{Code: fault.StageRoom, Object: "shared memory"}
	}
	b.Layout.Occupy(at)
	base := &stagedMapping{vma: m.vma, more: m.more, at: at}
	r.mapped = append(r.mapped, base) // no final place: dropped at commit
	flags := unix.MAP_SHARED | unix.MAP_ANONYMOUS | mapFixedNoReplace
	if m.vma.Flags&image.VMNoReserve != 0 {
		flags |= unix.MAP_NORESERVE
	}
	row := b.Stage().Mmap(at, unix.PROT_READ|unix.PROT_WRITE, flags, tracer.FD(-1), 0)
	b.Expect(row, fault.StageMemory, "shared memory")
	return at, b.Objects.Add(object.SharedMemory, ref, base)
}

// fill reads the mapping's contents into place.
func (r *memoryRestore) fill(b *Builder, m *stagedMapping) error {
	if err := r.loadGuards(b, m); err != nil {
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
		m.wantHugePages(b, runs)
		if err := b.R.Pages(chunk.Pages, &pageSink{b: b, runs: runs, from: b.R.Offset()}); err != nil {
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

// makeWritable opens the mapping for filling if its protection forbids that.
func (m *stagedMapping) makeWritable(b *Builder) error {
	if m.open || m.vma.Flags&image.VMWrite != 0 {
		return nil
	}
	m.open = true
	b.Expect(b.Stage().Mprotect(m.at, unix.PROT_READ|unix.PROT_WRITE), fault.StageMemory, fmt.Sprintf("mapping %v", m.final))
	return nil
}

// wantHugePages asks for huge pages where all of one is about to be filled:
// that saves the page faults, which are most of the time of a restart. The
// advice leaves no mark on the mapping, and its failure does not matter.
func (m *stagedMapping) wantHugePages(b *Builder, runs []procfs.Range) {
	if m.vma.Type != image.VMAAnon || !m.private() || m.vma.Flags&(image.VMNoHugePage|image.VMHugePage) != 0 {
		return
	}
	for _, run := range runs {
		start := (run.Start + hugePage - 1) &^ (hugePage - 1)
		end := run.End &^ (hugePage - 1)
		if start >= end {
			continue
		}
		p := b.Stage()
		for a := start; a < end; a += hugePage {
			p.Madvise(procfs.Range{Start: a, End: a + procfs.Addr(procfs.PageSize)}, madvPopulateWrite).Tolerate()
		}
		p.Madvise(procfs.Range{Start: start, End: end}, madvCollapse).Tolerate()
	}
}

func (r *memoryRestore) loadGuards(b *Builder, m *stagedMapping) error {
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
			at := m.at.Start + procfs.Addr(pair[0]-m.vma.Start)
			row := b.Stage().Madvise(procfs.Range{Start: at, End: at + procfs.Addr(pair[1]-pair[0])}, madvGuardInstall)
			b.Expect(row, fault.StageMemory, fmt.Sprintf("guard in mapping %v", m.final))
		}
	}
}

// finish gives the mapping its final protection and locks it.
func (r *memoryRestore) finish(b *Builder, m *stagedMapping) error {
	object := fmt.Sprintf("mapping %v", m.final)
	if m.open {
		b.Expect(b.Stage().Mprotect(m.at, m.prot()), fault.StageMemory, object)
	}
	if m.vma.Flags&image.VMLocked != 0 {
		const onFault = 1
		how := 0
		if m.vma.Flags&image.VMLockOnFault != 0 {
			how = onFault
		}
		b.Expect(b.Stage().Mlock2(m.at, how), fault.StageMemory, object)
	}
	if m.vma.Type == image.VMAFile && m.more.IDLen > 0 && m.vma.Pgoff == 0 {
		return m.checkBuildID(b)
	}
	return nil
}

// checkBuildID compares the mapped file's build id with the saved one. A
// mapping whose first page was written to keeps what the image says.
func (m *stagedMapping) checkBuildID(b *Builder) error {
	if err := b.Flush(); err != nil {
		return err
	}
	head := make([]byte, min(m.at.Len(), procfs.PageSize))
	if err := b.Tracee.ReadMem(m.at.Start, head); err != nil {
		return fmt.Errorf("read first page of %s: %w", m.path, err)
	}
	if want := m.more.BuildID[:m.more.IDLen]; !bytes.Equal(buildID(head), want) {
		return &fault.Error{Code: fault.FileState, Object: m.path, Detail: fmt.Sprintf("build id %x, was %x", buildID(head), want)}
	}
	return nil
}

// loadSpecial notes where the vdso or one of its data pages belongs. Its
// contents must be those of this kernel, which the caller has already.
func (r *memoryRestore) loadSpecial(b *Builder, m *stagedMapping) error {
	if err := r.clear(b, m.final); err != nil {
		return err
	}
	if !b.Layout.Claim(m.final) {
		return badImage(fault.ImageRange, fmt.Sprintf("mapping %v", m.final), "overlaps another or lies outside of user space")
	}
	kind := specials[m.more.Special]
	own, ok := findSpecial(b.Caller, kind)
	if _, twice := r.moves[kind]; twice || !ok || own.Len() != m.final.Len() {
		return &fault.Error{Code: fault.ImageVdso, Object: string(kind)}
	}
	r.moves[kind] = place{from: own, to: m.final}
	for {
		chunk, _, err := image.Expect[image.PageArray](b.R)
		if err != nil || chunk.Pages == 0 {
			return err
		}
		addrs, err := b.R.Addrs()
		if err != nil {
			return err
		}
		for _, addr := range addrs {
			saved, err := b.R.Raw(int(procfs.PageSize))
			if err != nil {
				return err
			}
			a := procfs.Addr(addr)
			if !m.final.Contains(a) || addr%procfs.PageSize != 0 {
				return badImage(fault.ImageRange, fmt.Sprintf("mapping %v", m.final), "page %v", a)
			}
			code, err := VDSO()
			if err != nil {
				return err
			}
			at := uint64(a - m.final.Start)
			if kind != procfs.SpecialVDSO || at >= uint64(len(code)) || !bytes.Equal(saved, code[at:at+procfs.PageSize]) {
				return &fault.Error{Code: fault.ImageVdso, Object: string(kind)}
			}
		}
	}
}

func findSpecial(v *View, kind procfs.Special) (procfs.Range, bool) {
	for i := range v.Mappings {
		if v.Mappings[i].Special() == kind {
			return v.Mappings[i].Range, true
		}
	}
	return procfs.Range{}, false
}

// checkSpecials refuses an image that lacks one of the kernel's own mappings,
// or has them in another order than this kernel.
func (r *memoryRestore) checkSpecials(b *Builder) error {
	for _, kind := range specials[1:] {
		_, have := findSpecial(b.Caller, kind)
		if _, want := r.moves[kind]; have && !want {
			return &fault.Error{Code: fault.ImageVdso, Object: string(kind), Detail: "not in the image"}
		}
	}
	return nil
}

// badImage is the refusal of an image that no checkpoint has written.
func badImage(code fault.Code, object, format string, args ...any) error {
	return &fault.Error{Code: code, Object: object, Detail: fmt.Sprintf(format, args...)}
}

// Commit drops the caller's memory and moves the staged memory into place.
func (r *memoryRestore) Commit(b *Builder, p *tracer.Program) error {
	keep := make(map[procfs.Range]bool)
	for _, mv := range r.moves {
		keep[mv.from] = true
	}
	for _, old := range b.Layout.old {
		if !keep[old] {
			p.Munmap(old)
		}
	}
	if err := r.moveSpecials(b, p); err != nil {
		return err
	}
	for _, m := range r.mapped {
		if m.final.Empty() {
			p.Munmap(m.at)
		} else {
			move(p, m.at, m.final)
		}
	}
	for _, kind := range specials[1:] {
		if mv, ok := r.moves[kind]; ok && mv.from != mv.to {
			move(p, mv.from, mv.to)
		}
	}
	r.commitMM(p)
	return nil
}

// move adds the move of a mapping as it is.
func move(p *tracer.Program, from, to procfs.Range) *tracer.Row {
	return p.Mremap(from, to.Len(), unix.MREMAP_MAYMOVE|unix.MREMAP_FIXED, to.Start)
}

// moveSpecials takes the vdso and its like out of the way of everything else,
// to places that neither the caller nor the image uses.
func (r *memoryRestore) moveSpecials(b *Builder, p *tracer.Program) error {
	for _, kind := range specials[1:] {
		mv, ok := r.moves[kind]
		if !ok || mv.from == mv.to {
			continue
		}
		aside, ok := b.Layout.Find(mv.from.Len(), 0, procfs.PageSize)
		if !ok {
			return &fault.Error{Code: fault.StageRoom, Object: string(kind)}
		}
		b.Layout.Occupy(aside)
		move(p, mv.from, aside)
		r.moves[kind] = place{from: aside, to: mv.to}
	}
	return nil
}

// commitMM sets the fields of the kernel's mm_struct (prctl(2), PR_SET_MM_MAP;
// struct prctl_mm_map of include/uapi/linux/prctl.h).
func (r *memoryRestore) commitMM(p *tracer.Program) {
	auxv := make([]byte, 8*len(r.auxv))
	for i, w := range r.auxv {
		binary.LittleEndian.PutUint64(auxv[8*i:], w)
	}
	mm := r.mm
	fields := []uint64{mm.StartCode, mm.EndCode, mm.StartData, mm.EndData, mm.StartBrk, mm.Brk, mm.StartStack,
		mm.ArgStart, mm.ArgEnd, mm.EnvStart, mm.EnvEnd}
	pack := func(exe uint32) []byte {
		var buf bytes.Buffer
		for _, f := range fields {
			_ = binary.Write(&buf, binary.LittleEndian, f) // a bytes.Buffer takes everything
		}
		tail := []any{uint64(0), uint32(0), exe}
		if len(auxv) > 0 {
			tail = []any{uint64(p.Bytes(auxv)), uint32(len(auxv)), exe}
		}
		for _, t := range tail {
			_ = binary.Write(&buf, binary.LittleEndian, t)
		}
		return buf.Bytes()
	}
	const prSetMM, prSetMMMap = 35, 14
	set := func(exe uint32) *tracer.Row {
		b := pack(exe)
		return p.Prctl(prSetMM, tracer.Imm(prSetMMMap), tracer.Ptr(p.Bytes(b)), tracer.Imm(uint64(len(b))), tracer.Imm(0))
	}
	set(^uint32(0))
	if r.exeFD != nil {
		// Refused while the old program file is still mapped, which it is if the
		// image maps the caller's own program as well.
		r.exeRow = set(uint32(r.exeFD.fd)).Tolerate()
	}
}

// Committed tells what the commit could not bring back.
func (r *memoryRestore) Committed(b *Builder) {
	if r.exeRow != nil && r.exeRow.Err() != nil {
		b.Warn("/proc/PID/exe is not set to %s: %v", r.exe, r.exeRow.Err())
	}
}
