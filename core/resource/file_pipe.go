package resource

import (
	"fmt"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/core/object"
	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// pipe is a pipe that nobody else has an end of: both ends are here, or the
// other one is closed.
var pipe = FileKind{
	Name:    "pipe",
	Support: Full,
	Note: "Whose other end is here as well, or closed: what is in it, capacity, packets, flags of each end. Refused if another " +
		"process has it, too, as far as /proc shows.",
	Records: []image.Spec{
		image.Row[pipeEndRecord](pipeEndKind, "FD_PIPE", image.InFiles, "an end of a pipe; its parent is the reference of the open file"),
		image.Row[pipeRecord](pipeKind, "PIPE", image.InFiles, "a pipe, behind the end that is met first; its parent is the reference of the pipe; BUFFERs follow with what is in it"),
	},
	Match:  isOwnPipe,
	Refuse: refusePipe,
	Dump:   dumpPipeEnd,
	Kind:   pipeEndKind,
	Load:   loadPipeEnd,
}

const (
	pipeEndKind image.Kind = 6411
	pipeKind    image.Kind = 6412
)

type pipeEndRecord struct {
	Pipe  uint32 `doc:"reference of the pipe"`
	Flags uint32 `fmt:"oct" doc:"open flags, which tell the end"`
}

type pipeRecord struct {
	Capacity uint32 `doc:"bytes, F_GETPIPE_SZ of fcntl(2)"`
	Bytes    uint32 `doc:"how many are in it"`
	Packets  uint32 `doc:"if not 0, how many packets they are (O_DIRECT of pipe(2)), each in a BUFFER of its own"`
	_        [4]byte
}

// packetSize is the most that a packet holds: PIPE_BUF of limits.h.
const packetSize = 4096

// pieceOfPipe is whole pages, so that the pieces of a full pipe fill its pages
// again, and fits one record.
const pieceOfPipe = image.MaxPayload / packetSize * packetSize

// isOwnPipe goes by poll(2) where only one end is here: it says whether anyone
// has the other one, whoever that is.
func isOwnPipe(v *View, f *procfs.FD) bool {
	if !strings.HasPrefix(f.Target, "pipe:[") {
		return false
	}
	return readsPipe(v, f) >= 0 && writesPipe(v, f) >= 0 || isAbandoned(v, f)
}

// readsPipe and writesPipe return a descriptor by which the process does so,
// -1 if there is none.
func readsPipe(v *View, f *procfs.FD) int32  { return pipeEnd(v, f, unix.O_WRONLY) }
func writesPipe(v *View, f *procfs.FD) int32 { return pipeEnd(v, f, unix.O_RDONLY) }

func pipeEnd(v *View, f *procfs.FD, not uint32) int32 {
	i := slices.IndexFunc(v.FDs, func(o procfs.FD) bool {
		return o.Dev == f.Dev && o.Ino == f.Ino && o.Flags&unix.O_ACCMODE != not
	})
	if i < 0 {
		return -1
	}
	return v.FDs[i].Number
}

// isAbandoned tells whether nobody has the other end (pipe_poll of fs/pipe.c).
func isAbandoned(v *View, f *procfs.FD) bool {
	fd, err := v.duplicate(f.Number)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	poll := []unix.PollFd{{Fd: int32(fd)}}
	_, err = unix.Poll(poll, 0)
	return err == nil && poll[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0
}

func refusePipe(v *View, f *procfs.FD) *fault.Error {
	if v.isImage(f) {
		return &fault.Error{Code: fault.Pipe, Detail: "the image goes into it, and nobody reads"}
	}
	holders, err := v.elsewhere(f.Target)
	switch {
	case err != nil:
		return &fault.Error{Code: fault.Pipe, Detail: f.Target, Err: err}
	case len(holders) > 0:
		return &fault.Error{Code: fault.Pipe, Detail: fmt.Sprintf("%s, pid %d", f.Target, holders[0].pid)}
	}
	return nil
}

// isImage tells whether the image goes into this pipe. Its reader would be
// frozen while it is full.
func (v *View) isImage(f *procfs.FD) bool {
	if v.Image == nil {
		return false
	}
	info, err := v.Image.Stat()
	if err != nil {
		return false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && st.Dev == f.Dev && st.Ino == f.Ino
}

func dumpPipeEnd(s *Saver, f *procfs.FD, ref object.Ref) error {
	inode, first := s.Objects.Add(object.Inode, idOf(f))
	if err := s.W.Put(uint32(ref), &pipeEndRecord{Pipe: uint32(inode), Flags: f.Flags &^ unix.O_CLOEXEC}); err != nil || !first {
		return err
	}
	contents, err := readPipe(s.View, f)
	if err != nil {
		return err
	}
	if isFifo(f) {
		err = putFifo(s, f, inode, &contents.pipeRecord)
	} else {
		err = s.W.Put(uint32(inode), &contents.pipeRecord)
	}
	if err != nil {
		return err
	}
	for _, data := range contents.buffers {
		if err := s.W.Put(0, &image.Buffer{Data: data}); err != nil {
			return err
		}
	}
	return nil
}

type pipeContents struct {
	pipeRecord
	buffers [][]byte
}

// readPipe copies what is in a pipe and leaves it there, by tee(2) into a pipe
// of our own. Packets stay packets in the copy. If the end to read from is
// closed nobody can ever see what is in it.
func readPipe(v *View, f *procfs.FD) (*pipeContents, error) {
	from, readable := readsPipe(v, f), true
	if from < 0 {
		from, readable = f.Number, false
	}
	fd, err := v.duplicate(from)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	capacity, err := unix.FcntlInt(uintptr(fd), unix.F_GETPIPE_SZ, 0)
	if err != nil {
		return nil, fmt.Errorf("read capacity: %w", err)
	}
	contents := &pipeContents{pipeRecord: pipeRecord{Capacity: uint32(capacity)}}
	total, err := unix.IoctlGetInt(fd, unix.TIOCINQ)
	if err != nil {
		return nil, fmt.Errorf("read length: %w", err)
	}
	if !readable || total == 0 {
		return contents, nil
	}
	contents.Bytes = uint32(total)
	reads, err := copyPipe(fd, capacity, total)
	if err != nil {
		return nil, err
	}
	// A read of all ends early only behind a packet. If there is but one, the
	// end that writes tells whether it is a packet.
	packets := len(reads) > 1
	if i := writesPipe(v, f); i >= 0 && !packets {
		packets = slices.ContainsFunc(v.FDs, func(o procfs.FD) bool { return o.Number == i && o.Flags&unix.O_DIRECT != 0 })
	}
	if !packets {
		contents.buffers = slices.Collect(slices.Chunk(reads[0], pieceOfPipe))
		return contents, nil
	}
	for _, packet := range reads {
		if len(packet) > packetSize {
			return nil, &fault.Error{Code: fault.Pipe, Object: v.FDName(f.Number), Detail: "packets mixed with plain data"}
		}
	}
	contents.Packets, contents.buffers = uint32(len(reads)), reads
	return contents, nil
}

// copyPipe returns the copy in the pieces in which read(2) gives it.
func copyPipe(fd, capacity, total int) ([][]byte, error) {
	var copied [2]int
	if err := unix.Pipe2(copied[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return nil, fmt.Errorf("make a pipe for the copy: %w", err)
	}
	defer unix.Close(copied[0])
	defer unix.Close(copied[1])
	if _, err := unix.FcntlInt(uintptr(copied[1]), unix.F_SETPIPE_SZ, capacity); err != nil {
		return nil, fmt.Errorf("make a pipe of %d bytes for the copy: %w", capacity, err)
	}
	n, err := unix.Tee(fd, copied[1], total, unix.SPLICE_F_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("copy %d bytes: %w", total, err)
	}
	if n != int64(total) {
		return nil, fmt.Errorf("copy %d bytes: only %d: %w", total, n, unix.EIO)
	}
	var reads [][]byte
	for buf := make([]byte, total); len(buf) > 0; {
		n, err := unix.Read(copied[0], buf)
		if err != nil {
			return nil, fmt.Errorf("read the copy: %w", err)
		}
		reads = append(reads, buf[:n:n])
		buf = buf[n:]
	}
	return reads, nil
}

// stagedPipe is a pipe in the caller: its ends for reading and writing.
type stagedPipe struct {
	ends  [2]*stagedOpen
	taken [2]bool // by an open file of the image; an end that none takes is closed by the commit
}

func loadPipeEnd(b *Builder, ref object.Ref) (*stagedOpen, error) {
	rec, head, err := image.Expect[pipeEndRecord](b.R)
	if err != nil {
		return nil, err
	}
	what := fmt.Sprintf("open file %d", ref)
	access := rec.Flags & unix.O_ACCMODE
	if head.Parent != uint32(ref) || access == unix.O_ACCMODE {
		return nil, badImage(fault.ImageValue, what, "owner %d, flags %#o", head.Parent, rec.Flags)
	}
	made, err := sharedInode(b, object.Ref(rec.Pipe), b.makePipe)
	if err != nil {
		return nil, err
	}
	end := made.ends[access&1]
	if end == nil || access == unix.O_RDWR && made.ends[1] == nil {
		return nil, badImage(fault.ImageValue, what, "flags %#o", rec.Flags)
	}
	if access == unix.O_RDWR || made.taken[access] {
		end = b.reopen(made.ends[0], access)
	} else {
		made.taken[access] = true
	}
	b.setFlags(end, rec.Flags)
	return end, nil
}

// reopen opens anew what a staged descriptor leads to.
func (b *Builder) reopen(open *stagedOpen, access uint32) *stagedOpen {
	link := fmt.Sprintf("/proc/self/fd/%d", open.fd)
	p := b.Stage()
	row := p.Openat(tracer.FD(unix.AT_FDCWD), link, int(access)|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	b.Expect(row, fault.FileOpen, link)
	return &stagedOpen{fd: b.fds.take(row), path: open.path}
}

// sane tells whether a pipe can be like this. How much it may hold is checked
// by the calls: what does not fit is EAGAIN.
func (rec *pipeRecord) sane() bool {
	return rec.Capacity > 0 && rec.Capacity <= 1<<31 && rec.Bytes <= rec.Capacity && rec.Packets <= rec.Bytes
}

// makePipe reads the record of a pipe and makes it, with what is in it.
func (b *Builder) makePipe(ref object.Ref) (*stagedPipe, error) {
	if next, err := b.R.Peek(); err != nil || next == fifoKind {
		return b.makeFifo(ref)
	}
	rec, head, err := image.Expect[pipeRecord](b.R)
	if err != nil {
		return nil, err
	}
	const name = "pipe"
	if head.Parent != uint32(ref) || !rec.sane() {
		return nil, badImage(fault.ImageValue, fmt.Sprintf("pipe %d", ref), "%d bytes of %d", rec.Bytes, rec.Capacity)
	}
	p := b.Stage()
	numbers := p.Buffer(8)
	b.Expect(p.Call(unix.SYS_PIPE2, tracer.Ptr(numbers), tracer.Int(unix.O_CLOEXEC|unix.O_NONBLOCK)), fault.DescriptorLimit, name)
	ends := b.fds.takePair(numbers)
	b.Expect(p.Fcntl(ends[1], unix.F_SETPIPE_SZ, tracer.Imm(rec.Capacity)), fault.FileState, name)
	made := &stagedPipe{ends: [2]*stagedOpen{{fd: ends[0], path: name}, {fd: ends[1], path: name}}}
	return made, b.fillPipe(ref, made, rec)
}

// fillPipe enters a pipe and puts in what was there.
func (b *Builder) fillPipe(ref object.Ref, made *stagedPipe, rec *pipeRecord) error {
	if err := b.Objects.Add(object.Inode, ref, made); err != nil {
		return badImage(fault.ImageValue, fmt.Sprintf("pipe %d", ref), "%v", err)
	}
	into := made.ends[1]
	if rec.Packets > 0 {
		b.Expect(b.Stage().Fcntl(into.fd, unix.F_SETFL, tracer.Imm(unix.O_NONBLOCK|unix.O_DIRECT)), fault.FileState, into.path)
	}
	for left, n := int(rec.Bytes), uint32(0); left > 0 || n < rec.Packets; n++ {
		buffer, _, err := image.Expect[image.Buffer](b.R)
		if err != nil {
			return err
		}
		size := len(buffer.Data)
		if size == 0 || size > left || rec.Packets > 0 && (size > packetSize || n == rec.Packets) {
			return badImage(fault.ImageValue, fmt.Sprintf("pipe %d", ref), "piece of %d bytes", size)
		}
		p := b.Stage()
		b.Expect(p.Write(into.fd, p.Bytes(buffer.Data), uint64(size)).Full(), fault.FileState, into.path)
		left -= size
		if err := b.filled(size); err != nil {
			return err
		}
	}
	return nil
}

// filled counts contents that the pending program holds, and runs it when they
// have become many.
func (b *Builder) filled(n int) error {
	if b.filling += uint64(n); b.filling < fillLimit {
		return nil
	}
	return b.Flush()
}
