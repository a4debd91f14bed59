package image

import "fmt"

// layout is what sizes of trailers depend on, as records say it on the way.
type layout struct {
	pageSize int64
	xstate   int64
}

// note takes over what a record says about sizes.
func (l *layout) note(rec any) error {
	switch rec := rec.(type) {
	case *HeadArch:
		l.xstate = int64(rec.XstateSize)
	case *Machine:
		n := rec.PageSize
		if n < 4096 || n > 1<<16 || n&(n-1) != 0 {
			return fmt.Errorf("page size %d is not a power of two from 4096 to 65536", n)
		}
		l.pageSize = int64(n)
	}
	return nil
}

// trailer returns how many raw bytes follow a record.
func (l *layout) trailer(s *Spec, rec any) (int64, error) {
	if s.Trailer == nil {
		return 0, nil
	}
	return s.Trailer.size(rec, l)
}

// V13 is the rows of the 2009 format.
var V13 = []Spec{
	Row[Head](KindHead, "HEAD", InHead, "begins the image: magic, format revision, the kernel that wrote it",
		CName("cr_hdr_head"), Root(), Times(OncePerImage), Opens()),
	Row[HeadArch](KindHeadArch, "HEAD_ARCH", InHead, "the floating point unit of the machine",
		CName("cr_hdr_head_arch"), Times(OncePerImage)),
	Row[Buffer](KindBuffer, "BUFFER", Anywhere, "raw data"),
	Row[Str](KindStr, "STRING", Anywhere, "a string; behind TASK the command name"),
	Row[FName](KindFName, "FNAME", Anywhere, "the path of a file"),
	Row[Tree](KindTree, "TREE", InTree, "the tasks of the image",
		CName("cr_hdr_tree"), Root(), Times(OncePerImage), Opens(),
		trails("one entry for each task", treeTrailer), trailerOf[PIDs]("cr_hdr_pids")),
	Row[Task](KindTask, "TASK", InTask, "begins a task",
		CName("cr_hdr_task"), Root(), Times(OncePerTask), Opens()),
	Row[Thread](KindThread, "THREAD", InThread, "thread-local segments of 32-bit programs",
		CName("cr_hdr_thread"), Times(OncePerThread), Opens(),
		trails("segment descriptors, if NTLS is not 0", threadTrailer)),
	Row[CPU](KindCPU, "CPU", InCPU, "the registers",
		CName("cr_hdr_cpu"), Times(OncePerThread), Opens(),
		trails("extended state in xsave layout, if UsedMath is not 0; its length is in HEAD_ARCH", cpuTrailer)),
	Row[MM](KindMM, "MM", InMM, "begins the address space",
		CName("cr_hdr_mm"), Times(OncePerTask), Opens()),
	Row[VMA](KindVMA, "VMA", InMM, "one mapping",
		CName("cr_hdr_vma"), Root()),
	Row[PageArray](KindPageArray, "PGARR", Anywhere, "a run of pages; one of no pages ends the pages of a mapping",
		CName("cr_hdr_pgarr"), Root(),
		trails("Pages addresses of 8 bytes, ascending, then as many pages", pagesTrailer)),
	Row[MMContext](KindMMContext, "MM_CONTEXT", InMM, "ends the address space: the local descriptor table",
		CName("cr_hdr_mm_context"), Times(OncePerTask),
		trails("NLDT descriptors of 8 bytes", contextTrailer)),
	Row[Files](KindFiles, "FILES", InFiles, "begins the descriptor table",
		CName("cr_hdr_files"), Times(OncePerTask), Opens()),
	Row[FDEntry](KindFDEntry, "FD_ENT", InFiles, "one descriptor",
		CName("cr_hdr_fd_ent")),
	Row[FDData](KindFDData, "FD_DATA", InFiles, "the open file that a descriptor refers to, where it is met first",
		CName("cr_hdr_fd_data")),
	Row[Tail](KindTail, "TAIL", InTail, "ends the image; what follows is not part of it",
		CName("cr_hdr_tail"), Root(), Times(OncePerImage), Opens()),
}

// Common is the rows of our own that this package gives a meaning to.
var Common = []Spec{
	Row[Pad](KindPad, "PAD", Anywhere, "filler before a run of pages, so that the contents begin at a page boundary", Ignorable()),
	Row[Error](KindError, "ERROR", Anywhere, "ends an image whose writer failed, and says why", Times(AtMostOncePerImage)),
	Row[Sum](KindSum, "SUM", InTail, "the checksum of all bytes before it", Root(), Times(AtMostOncePerImage), Opens()),
	Row[Process](KindProcess, "PROCESS", InTree, "what TREE lacks of a process, in its order, and then processes that have ended; none in an image of one process", MinLen(processAlone)),
	Row[Container](KindContainer, "CONTAINER", InTree, "the namespaces of the processes, after PROCESS; none in an image of processes that are not a container", Times(AtMostOncePerImage)),
	Row[ContainerClocks](KindContainerClocks, "CONTAINER_CLOCKS", InTree, "what the clocks of the container's time namespace showed; none without one", Times(AtMostOncePerImage)),
	Row[Machine](KindMachine, "MACHINE", InHead, "what a machine must have to run the image", Times(AtMostOncePerImage)),
}

func treeTrailer(rec *Tree, _ *layout) (int64, error) {
	if rec.Tasks == 0 || rec.Tasks > MaxTasks {
		return 0, fmt.Errorf("%d tasks are not from 1 to %d", rec.Tasks, MaxTasks)
	}
	return int64(rec.Tasks) * pidsSize, nil
}

func threadTrailer(rec *Thread, _ *layout) (int64, error) {
	if rec.NTLS < 0 || rec.SizeofTLSArray < 0 {
		return 0, fmt.Errorf("negative count of segments")
	}
	if rec.NTLS == 0 {
		return 0, nil
	}
	return int64(rec.SizeofTLSArray), nil
}

func cpuTrailer(rec *CPU, l *layout) (int64, error) {
	if rec.UsedMath == 0 {
		return 0, nil
	}
	return l.xstate, nil
}

func contextTrailer(rec *MMContext, _ *layout) (int64, error) {
	if rec.NLDT == 0 {
		return 0, nil
	}
	if rec.NLDT < 0 || rec.NLDT > ldtEntries || rec.LDTEntrySize != ldtEntry {
		return 0, fmt.Errorf("%d descriptors of %d bytes are not at most %d of %d", rec.NLDT, rec.LDTEntrySize, ldtEntries, ldtEntry)
	}
	return int64(rec.NLDT) * ldtEntry, nil
}

func pagesTrailer(rec *PageArray, l *layout) (int64, error) {
	if rec.Pages > MaxChunk {
		return 0, fmt.Errorf("%d pages are more than %d", rec.Pages, MaxChunk)
	}
	return int64(rec.Pages) * (addrSize + l.pageSize), nil
}
