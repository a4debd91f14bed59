package resource

import (
	"fmt"
	"sort"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

type memoryRestore struct {
	mm         *image.MM
	exe        string
	exeFD      *stagedFile // nil if the link stays as it is
	exeRow     *tracer.Row
	exeFrom    *stagedInode // which the image carries; nil for a file with a name
	auxv       []uint64
	locked     []*stagedMapping
	mapped     []*stagedMapping                  // those that are moved at commit
	staged     map[procfs.Addr]*stagedMapping    // all, by where they belong
	views      map[*stagedMapping]*stagedMapping // of what others have made (viewOf)
	files      map[string]*stagedFile            // opened for mapping, by name and access
	fromFiles  []fileMapping
	inodes     []carriedInode // mapped
	more       *mmMore        // nil in images from before there was one
	own        uint32         // what the caller has of its flags
	coreFilter *stagedFile    // nil if it stays as it is
	sealed     []procfs.Range
	keys       stagedKeys
	refill     []*stagedSegment         // that get their contents at commit
	lates      []*stagedMapping         // mapped once those are shut
	moves      map[procfs.Special]place // vdso and its like
	nursery    *nursery                 // nil until huge pages are worth it
}

// place is where a special mapping belongs.
type place struct{ from, to procfs.Range }

func (r *memoryRestore) Load(b *Builder) error {
	mm, _, err := image.Expect[image.MM](b.R)
	if err != nil {
		return err
	}
	if b.sharesMemory() {
		b.mem = b.parent.mem
		return loadSharing(b, mm)
	}
	r.mm, b.mem = mm, r
	if err := mayBeReplaced(b.Caller); err != nil {
		return err
	}
	r.files = make(map[string]*stagedFile)
	r.staged = make(map[procfs.Addr]*stagedMapping)
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
	if err := r.loadMore(b); err != nil {
		return err
	}
	if err := r.loadKeys(b); err != nil {
		return err
	}
	var last *stagedMapping
	for range r.mm.MapCount {
		if last, err = r.loadMapping(b, last); err != nil {
			return err
		}
	}
	if err := r.loadHeld(b); err != nil {
		return err
	}
	if err := r.mapLate(b); err != nil {
		return err
	}
	r.carriedExe(b)
	if err := r.checkFiles(b); err != nil {
		return err
	}
	for _, f := range r.files {
		f.closeStaged(b)
	}
	if r.nursery != nil {
		r.nursery.drop(b)
		if r.nursery.uffd != nil {
			r.nursery.uffd.closeStaged(b)
		}
	}
	if err := r.checkSpecials(b); err != nil {
		return err
	}
	if err := r.checkLocked(b); err != nil {
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
	limit, err := b.Caller.Limit(unix.RLIMIT_DATA)
	if err != nil {
		return fmt.Errorf("read data limit of %s: %w", b.Caller.Name(), err)
	}
	if limit.Soft != procfs.Unlimited && mm.Brk-mm.StartBrk+mm.EndData-mm.StartData > limit.Soft {
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
	known := !strings.HasPrefix(current, memfdPrefix) // many of those have one name
	if r.exe == "" || r.exe == current && (known || !b.mayRestore()) {
		return nil
	}
	if !b.mayRestore() {
		b.Warn("/proc/PID/exe stays %s: setting it to %s takes CAP_CHECKPOINT_RESTORE", current, r.exe)
		return nil
	}
	if strings.HasSuffix(r.exe, deletedSuffix) {
		return nil // the image has it, if it is still mapped
	}
	f, err := b.openFile(r.exe, unix.O_RDONLY, fault.ExeFile)
	r.exeFD = f
	return err
}

// carriedExe finds a program file that had been deleted among the files that
// the image carries.
func (r *memoryRestore) carriedExe(b *Builder) {
	if !strings.HasSuffix(r.exe, deletedSuffix) || !b.mayRestore() {
		return
	}
	for _, file := range r.inodes {
		var from *stagedInode
		switch file := file.(type) {
		case *stagedDeleted:
			from = &file.stagedInode
		case *stagedInode:
			from = file // a memfd, as the init of a container is made of
		default:
			continue
		}
		if from.made.path+deletedSuffix == r.exe {
			r.exeFrom = from
			r.exeFD = &stagedFile{fd: from.forReading(b).fd}
			return
		}
	}
	b.Warn("/proc/PID/exe does not become %s: nothing of that file is mapped", r.exe)
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
	if err := m.loadPool(b); err != nil {
		return nil, err
	}
	if err := m.loadPolicy(b); err != nil {
		return nil, err
	}
	if err := m.check(); err != nil {
		return nil, err
	}
	if m.more.Special != 0 {
		return m, r.loadSpecial(b, m)
	}
	if err := m.loadInherit(b); err != nil {
		return nil, err
	}
	r.staged[m.final.Start] = m
	if m.inherited {
		if err := r.takeOver(b, m, last); err != nil {
			return nil, err
		}
		if err := r.fill(b, m); err != nil {
			return nil, err
		}
		return m, r.finish(b, m)
	}
	if err := r.place(b, m, last); err != nil {
		return nil, err
	}
	if m.late() {
		if _, err := r.carried(b, m); err != nil {
			return nil, err
		}
		r.lates = append(r.lates, m)
		return m, r.fill(b, m)
	}
	if err := r.stage(b, m); err != nil {
		return nil, err
	}
	if err := r.fill(b, m); err != nil {
		return nil, err
	}
	return m, r.finish(b, m)
}

// checkLocked refuses where locking has met a limit.
func (r *memoryRestore) checkLocked(b *Builder) error {
	if len(r.locked) == 0 {
		return nil
	}
	if err := b.Flush(); err != nil {
		return err
	}
	now, err := b.Caller.Proc.Mappings()
	if err != nil {
		return err
	}
	for _, m := range r.locked {
		i := sort.Search(len(now), func(i int) bool { return now[i].End > m.at.Start })
		if i == len(now) || now[i].Flags&procfs.VMLocked == 0 {
			return &fault.Error{Code: fault.StageMemory, Object: fmt.Sprintf("mapping %v", m.final), Detail: "locked memory, RLIMIT_MEMLOCK"}
		}
	}
	return nil
}

// badImage is the refusal of an image that no checkpoint has written.
func badImage(code fault.Code, object, format string, args ...any) error {
	return &fault.Error{Code: code, Object: object, Detail: fmt.Sprintf(format, args...)}
}
