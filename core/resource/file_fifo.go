package resource

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/core/object"
	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// fifo is a pipe with a name, fifo(7). Its open files are those of a pipe; the
// pipe itself is found by its name. What the program had in it is put in again,
// and so it must be free then.
var fifo = FileKind{
	Name:    "named pipe (fifo)",
	Support: Full,
	Note: "Whose other end is here as well, or closed, or never was opened: opened again by name, with what is in it, " +
		"capacity, packets, flags of each end. If there is anything in it, nobody else may have it open at restart.",
	Records: []image.Spec{
		image.Row[fifoRecord](fifoKind, "FIFO", image.InFiles, "a named pipe, behind the FD_PIPE of the end that is met first; its parent is the reference of the pipe; BUFFERs follow with what is in it"),
	},
	Match:  isOwnFifo,
	Refuse: refuseFifo,
	Dump:   dumpPipeEnd,
	Kind:   pipeEndKind,
	Load:   loadPipeEnd,
}

const fifoKind image.Kind = 6471

type fifoRecord struct {
	Capacity uint32 `doc:"bytes, F_GETPIPE_SZ of fcntl(2)"`
	Bytes    uint32 `doc:"how many are in it"`
	Packets  uint32 `doc:"if not 0, how many packets they are, each in a BUFFER of its own"`
	Unmet    uint32 `doc:"1 if the end to read from has not seen anyone write, and tells of no hang-up yet"`
	Name     string
}

func isFifo(f *procfs.FD) bool {
	return f.Type() == unix.S_IFIFO && strings.HasPrefix(f.Target, "/") && f.Flags&unix.O_PATH == 0
}

func isOwnFifo(v *View, f *procfs.FD) bool {
	if !isFifo(f) {
		return false
	}
	if readsPipe(v, f) >= 0 && writesPipe(v, f) >= 0 || isAbandoned(v, f) {
		return true
	}
	unmet, err := isUnmet(v, f)
	return err == nil && unmet
}

// isUnmet tells whether a fifo is open to read from and nobody has it open to
// write to, nor has had since: poll(2) does not tell of a hang-up then
// (fifo_open of fs/pipe.c), but a copy ends at once.
func isUnmet(v *View, f *procfs.FD) (bool, error) {
	if f.Flags&unix.O_ACCMODE != unix.O_RDONLY || writesPipe(v, f) >= 0 || isAbandoned(v, f) {
		return false, nil
	}
	fd, err := v.duplicate(f.Number)
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	var copied [2]int
	if err := unix.Pipe2(copied[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return false, fmt.Errorf("make a pipe for the copy: %w", err)
	}
	defer unix.Close(copied[0])
	defer unix.Close(copied[1])
	n, err := unix.Tee(fd, copied[1], 1, unix.SPLICE_F_NONBLOCK)
	return n == 0 && err == nil, nil
}

func refuseFifo(v *View, f *procfs.FD) *fault.Error {
	if refusal := refuseNamed(v, f); refusal != nil {
		return refusal
	}
	if v.isImage(f) {
		return &fault.Error{Code: fault.Fifo, Detail: "the image goes into it, and nobody reads"}
	}
	pid, err := v.usesInode(f)
	switch {
	case err != nil:
		return &fault.Error{Code: fault.Fifo, Detail: f.Target, Err: err}
	case pid != 0:
		return &fault.Error{Code: fault.Fifo, Detail: fmt.Sprintf("%s, pid %d", f.Target, pid)}
	}
	return nil
}

// putFifo writes the record of a fifo.
func putFifo(s *Saver, f *procfs.FD, inode object.Ref, pipe *pipeRecord) error {
	rec := fifoRecord{Capacity: pipe.Capacity, Bytes: pipe.Bytes, Packets: pipe.Packets, Name: f.Target}
	switch unmet, err := isUnmet(s.View, f); {
	case err != nil:
		return err
	case unmet:
		rec.Unmet = 1
	}
	return s.W.Put(uint32(inode), &rec)
}

// makeFifo opens both ends by name, so that neither waits for the other, and
// puts in what was there.
func (b *Builder) makeFifo(ref object.Ref) (*stagedPipe, error) {
	rec, head, err := image.Expect[fifoRecord](b.R)
	if err != nil {
		return nil, err
	}
	contents := pipeRecord{Capacity: rec.Capacity, Bytes: rec.Bytes, Packets: rec.Packets}
	if head.Parent != uint32(ref) || rec.Unmet > 1 || rec.Unmet != 0 && rec.Bytes != 0 || !contents.sane() {
		return nil, badImage(fault.ImageValue, fmt.Sprintf("fifo %d", ref), "%d bytes of %d", rec.Bytes, rec.Capacity)
	}
	if rec.Bytes > 0 {
		if err := b.freeFifo(rec.Name); err != nil {
			return nil, err
		}
	}
	made := new(stagedPipe)
	for end, access := range []int{unix.O_RDONLY, unix.O_WRONLY} {
		if rec.Unmet != 0 && access == unix.O_WRONLY {
			break
		}
		f, err := b.openFile(rec.Name, access, fault.FileOpen)
		if err != nil {
			return nil, err
		}
		// Nothing but a pipe has a capacity.
		b.Expect(b.Stage().Fcntl(f.fd, unix.F_GETPIPE_SZ, tracer.Imm(0)), fault.FileTypeChanged, rec.Name)
		b.Expect(b.Stage().Fcntl(f.fd, unix.F_SETPIPE_SZ, tracer.Imm(rec.Capacity)), fault.FileState, rec.Name)
		made.ends[end] = &stagedOpen{fd: f.fd, path: rec.Name}
	}
	return made, b.fillPipe(ref, made, &contents)
}

// freeFifo finds out whether anyone has a fifo open: to open it for writing
// alone fails without a reader, and with a writer a copy would wait. Neither
// takes anything out.
func (b *Builder) freeFifo(path string) error {
	name, err := b.named(path)
	if err != nil {
		return err
	}
	if err := b.Flush(); err != nil {
		return err
	}
	const flags = unix.O_CLOEXEC | unix.O_NOCTTY | unix.O_NONBLOCK
	here := tracer.Int(unix.AT_FDCWD)
	p := b.Remote.Program()
	reader := p.Openat(here, name, unix.O_WRONLY|flags, 0).Tolerate()
	isPipe := p.Fcntl(reader, unix.F_GETPIPE_SZ, tracer.Imm(0)).Tolerate()
	p.Close(reader).Tolerate()
	end := p.Openat(here, name, unix.O_RDONLY|flags, 0).Tolerate()
	numbers := p.Buffer(16) // a cell is 8 bytes
	p.Call(unix.SYS_PIPE2, tracer.Ptr(numbers), tracer.Int(unix.O_CLOEXEC|unix.O_NONBLOCK))
	from, to := tracer.Cell(numbers), tracer.Cell(numbers+4)
	writer := p.Call(unix.SYS_TEE, end, to, tracer.Imm(1), tracer.Imm(unix.SPLICE_F_NONBLOCK)).Tolerate()
	for _, fd := range []tracer.Arg{from, to, end} {
		p.Close(fd).Tolerate()
	}
	if err := p.Run(); err != nil {
		return &fault.Error{Code: fault.StageFailed, Object: name, Err: err}
	}
	switch err := reader.Err(); {
	case err == nil && isPipe.Err() != nil:
		return &fault.Error{Code: fault.FileTypeChanged, Object: name}
	case err == nil:
		return &fault.Error{Code: fault.FifoInUse, Object: name, Detail: "somebody reads from it"}
	case !errors.Is(err, unix.ENXIO):
		return &fault.Error{Code: fault.FileOpen, Object: name, Err: err}
	}
	switch err := end.Err(); {
	case err != nil:
		return &fault.Error{Code: fault.FileOpen, Object: name, Err: err}
	case errors.Is(writer.Err(), unix.EINVAL):
		return &fault.Error{Code: fault.FileTypeChanged, Object: name}
	case writer.Err() != nil || writer.Result() != 0:
		return &fault.Error{Code: fault.FifoInUse, Object: name, Detail: "somebody writes to it"}
	}
	return nil
}
