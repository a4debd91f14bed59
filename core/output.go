package core

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/resource"
	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// checkOutput refuses a descriptor that no image can go to.
func checkOutput(out *os.File) error {
	flags, err := unix.FcntlInt(out.Fd(), unix.F_GETFL, 0)
	if err != nil {
		return &fault.Error{Code: fault.CallDescriptor, Object: "checkpoint", Err: err}
	}
	if flags&unix.O_ACCMODE == unix.O_RDONLY || flags&unix.O_PATH != 0 {
		return &fault.Error{Code: fault.ImageNotWritable, Object: "image"}
	}
	if _, err := unix.IoctlGetTermios(int(out.Fd()), unix.TCGETS); err == nil {
		return &fault.Error{Code: fault.ImageTerminal, Object: "image"}
	}
	return nil
}

// writeError puts a failed write of the image into the table's words.
func writeError(err error) error {
	var known *fault.Error
	if errors.As(err, &known) || errors.Is(err, tracer.ErrGone) {
		return err
	}
	if errors.Is(err, tracer.ErrNoMemory) {
		return &fault.Error{Code: fault.TargetMemory, Object: "the process", Err: err}
	}
	return &fault.Error{Code: fault.ImageWrite, Object: "image", Err: err}
}

// lendOutput gives a process the image's descriptor, so that it can write its
// own memory. It gets none if that would be worse than copying: if its limit
// on file sizes would stop it, or if the descriptor does not block.
func (c *checkpoint) lendOutput(m *member) (tracer.FD, error) {
	if c.self() {
		return c.taskMayWrite(m.view, c.req.OutFD)
	}
	if ok, err := c.taskMayWrite(m.view, 0); err != nil || ok < 0 {
		return -1, err
	}
	if m.view.Resident() < lendLimit {
		return -1, nil
	}
	fd, err := m.remote.SendFD(c.req.Out)
	if err != nil {
		return -1, fmt.Errorf("lend the image to %s: %w", m.view.Name(), err)
	}
	m.lent = true
	return fd, nil
}

// lendLimit is from how much memory on lending the descriptor is worth it.
const lendLimit = 4 << 20

func (c *checkpoint) taskMayWrite(v *resource.View, fd tracer.FD) (tracer.FD, error) {
	limit, err := v.Limit(unix.RLIMIT_FSIZE)
	if err != nil {
		return -1, fmt.Errorf("read file size limit of %s: %w", v.Name(), err)
	}
	flags, err := unix.FcntlInt(c.req.Out.Fd(), unix.F_GETFL, 0)
	if err != nil {
		return -1, err
	}
	if limit.Soft != procfs.Unlimited || flags&unix.O_NONBLOCK != 0 {
		return -1, nil
	}
	return fd, nil
}

// dropSIGPIPE takes back the signal that writing to a broken pipe has left
// pending in a target: it was our write, not its own.
func dropSIGPIPE(v *resource.View, r *tracer.Remote) error {
	const bit = 1 << (unix.SIGPIPE - 1)
	if v.Status.SigPnd&bit != 0 {
		return nil
	}
	p := r.Program()
	set := p.Bytes(binary.LittleEndian.AppendUint64(nil, bit))
	now := p.Bytes(make([]byte, 16))
	p.Call(unix.SYS_RT_SIGTIMEDWAIT, tracer.Imm(uint64(set)), tracer.Imm(0), tracer.Imm(uint64(now)), tracer.Imm(8)).Tolerate()
	return p.Run()
}

// signalOf is the signal that write(2) sends along with an error.
func signalOf(errno unix.Errno) (unix.Signal, bool) {
	switch errno {
	case unix.EPIPE:
		return unix.SIGPIPE, true
	case unix.EFBIG:
		return unix.SIGXFSZ, true
	}
	return 0, false
}

// readback opens an image that is being written for reading, nil where that
// would not show what has just been written, or is not allowed.
func readback(out *os.File) *os.File {
	info, err := out.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return nil
	}
	flags, err := unix.FcntlInt(out.Fd(), unix.F_GETFL, 0)
	if err != nil || flags&unix.O_APPEND != 0 {
		return nil
	}
	in, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", out.Fd()))
	if err != nil {
		return nil
	}
	return in
}

// reserve asks the file system for the blocks that an image will take, which
// makes writing it half as fast again on ext4, and returns what gives back the
// rest. What the image becomes larger by, it gets as usual; a file system that
// cannot or will not is written to as usual as well.
func reserve(out *os.File, size uint64) (trim func() error) {
	trim = func() error { return nil }
	const tmpfs = 0x01021994 // gains nothing, statfs(2)
	var fs unix.Statfs_t
	info, err := out.Stat()
	if size < reserveFrom || err != nil || !info.Mode().IsRegular() || unix.Fstatfs(int(out.Fd()), &fs) != nil || fs.Type == tmpfs {
		return trim
	}
	at, err := out.Seek(0, io.SeekCurrent)
	if err != nil || at < info.Size() || unix.Fallocate(int(out.Fd()), unix.FALLOC_FL_KEEP_SIZE, at, int64(size)) != nil {
		return trim
	}
	return func() error {
		info, err := out.Stat()
		if err != nil {
			return err
		}
		return out.Truncate(info.Size()) // frees what lies beyond
	}
}

// reserveFrom is from what size on reserving is worth it.
const reserveFrom = 16 << 20
