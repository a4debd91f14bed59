package resource

import (
	"encoding/binary"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// descriptors foresees the caller's descriptor table through the stage. The
// caller is stopped and has one thread, so the kernel's choice, the lowest free
// number, is known in advance; that lets thousands of files be opened by one
// program. Each foreseen number is confirmed when the program has run.
type descriptors struct {
	own []int32 // what the caller had open, ascending
	*numbering
}

// numbering is of a table, which may be that of several processes that are being
// rebuilt: only one of them works at a time.
type numbering struct {
	open    map[int32]bool
	lowest  int32 // no number below it is free
	high    int32 // where numbers that nobody wants begin
	pending []foreseen
}

// foreseen is told by the result of a row, or by the task's memory.
type foreseen struct {
	row *tracer.Row
	at  tracer.Addr // of an int, if row is nil
	fd  tracer.FD
}

type interval struct{ first, last int32 }

func newDescriptors(v *View, image tracer.FD) *descriptors {
	d := &descriptors{numbering: &numbering{open: make(map[int32]bool)}}
	for _, f := range v.FDs {
		d.own = append(d.own, f.Number)
	}
	for _, n := range append(slices.Clone(d.own), int32(image)) {
		d.open[n] = true
		d.high = max(d.high, n+1)
	}
	return d
}

// gaps are the numbers that the caller had free.
func (d *descriptors) gaps() []interval {
	var gaps []interval
	next := int32(0)
	for _, n := range d.own {
		if n > next {
			gaps = append(gaps, interval{next, n - 1})
		}
		next = n + 1
	}
	return append(gaps, interval{next, 1<<31 - 1})
}

// take foresees the number that a call which opens a file will return.
func (d *descriptors) take(row *tracer.Row) tracer.FD {
	fd := d.next()
	d.pending = append(d.pending, foreseen{row: row, fd: fd})
	return fd
}

// takePair does so for a call that stores two, as pipe2(2).
func (d *descriptors) takePair(at tracer.Addr) (pair [2]tracer.FD) {
	for i := range pair {
		pair[i] = d.next()
		d.pending = append(d.pending, foreseen{at: at + tracer.Addr(4*i), fd: pair[i]})
	}
	return pair
}

func (d *descriptors) next() tracer.FD {
	for d.open[d.lowest] {
		d.lowest++
	}
	d.open[d.lowest] = true
	return tracer.FD(d.lowest)
}

// put marks a number as open, and drop as closed.
func (d *descriptors) put(fd tracer.FD) { d.open[int32(fd)] = true }

func (d *descriptors) drop(fd tracer.FD) {
	delete(d.open, int32(fd))
	d.lowest = min(d.lowest, int32(fd))
}

func (d *descriptors) vacant(fd tracer.FD) bool { return !d.open[int32(fd)] }

// aside returns a free number above all that the caller had.
func (d *descriptors) aside() tracer.FD {
	for d.open[d.high] {
		d.high++
	}
	return tracer.FD(d.high)
}

// confirm checks what was foreseen after the program has run.
func (d *descriptors) confirm(r *tracer.Remote) error {
	for _, f := range d.pending {
		got, err := f.got(r)
		if err != nil {
			return err
		}
		if got != f.fd {
			return &fault.Error{Code: fault.StageFailed, Object: "descriptor", Detail: fmt.Sprintf("opened as %d, not %d", got, f.fd)}
		}
	}
	d.pending = d.pending[:0]
	return nil
}

func (f foreseen) got(r *tracer.Remote) (tracer.FD, error) {
	if f.row != nil {
		return f.row.FD(), nil
	}
	var word [4]byte
	if err := r.ReadMem(f.at, word[:]); err != nil {
		return -1, fmt.Errorf("read descriptor: %w", err)
	}
	return tracer.FD(int32(binary.LittleEndian.Uint32(word[:]))), nil
}

// stagedFile is a file that the caller has open for the time of the stage.
type stagedFile struct {
	fd tracer.FD
}

func (f *stagedFile) arg() tracer.Arg { return tracer.Imm(uint64(f.fd)) }

// closeStaged closes a file that was needed only to map from it.
func (f *stagedFile) closeStaged(b *Builder) {
	b.Stage().Close(f.fd)
	b.fds.drop(f.fd)
}

// openFile adds the opening of a file by the caller itself, so that its own
// rights and its own mounts decide. The number is foreseen; the file can be
// looked at after Flush. O_NONBLOCK keeps a fifo that has taken the name from
// hanging the stage.
func (b *Builder) openFile(path string, flags int, code fault.Code) (*stagedFile, error) {
	name, err := b.named(path)
	if err != nil {
		return nil, err
	}
	if err := b.checkCallerLocks(path); err != nil {
		return nil, err
	}
	flags |= unix.O_CLOEXEC
	if flags&unix.O_PATH == 0 {
		flags |= unix.O_NOCTTY | unix.O_NONBLOCK
	}
	row := b.Stage().Openat(tracer.Int(unix.AT_FDCWD), name, flags, 0)
	b.Expect(row, code, path)
	return &stagedFile{fd: b.fds.take(row)}, nil
}

// capabilities of capability(7), as bits of CapEff.
const (
	capNetAdmin          = 12
	capIPCLock           = 14
	capSysChroot         = 18
	capSysAdmin          = 21
	capCheckpointRestore = 40
)

func (b *Builder) capable(bit uint) bool {
	return b.Caller.Status.CapEff&(1<<bit) != 0
}

// mayRestore tells whether the caller may set its own exe link.
func (b *Builder) mayRestore() bool {
	return b.capable(capCheckpointRestore) || b.capable(capSysAdmin)
}

// addressSpace is what a 64-bit program may map: from the lowest address that
// /proc/sys/vm/mmap_min_addr usually allows up to the end of 47 bits.
func addressSpace() procfs.Range {
	return procfs.Range{Start: 0x10000, End: 0x7ffffffff000}
}
