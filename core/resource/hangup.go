package resource

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/tracer"
)

// hangUp stages what a program takes for a stream whose other end is gone: it
// reads the end, and writing fails with EPIPE and SIGPIPE, or EIO on a
// terminal. What it is, pipe, socket or terminal, goes by what it was.
func (b *Builder) hangUp(was *stagedOpen, fd int32) (open *stagedOpen, err error) {
	name := fmt.Sprintf("fd %d", fd)
	switch was.streamType() {
	case unix.S_IFIFO:
		open = b.hungPipe(was, name)
	case unix.S_IFSOCK:
		open = b.hungSocket(name)
	case unix.S_IFCHR:
		open, err = b.hungTerminal(was)
	default:
		return nil, &fault.Error{Code: fault.NothingToHangUp, Object: name, Detail: was.path}
	}
	if err != nil {
		return nil, err
	}
	open.path = was.path
	b.setFlags(open, was.flags&carried)
	return open, nil
}

// streamType is the type of file that a stream was, as in st_mode; 0 if it was
// none.
func (o *stagedOpen) streamType() uint32 {
	if o.external != nil {
		return o.external.streamType()
	}
	switch o.kind {
	case pipeEndKind, fifoKind:
		return unix.S_IFIFO
	case unixOpenKind, inetKind:
		return unix.S_IFSOCK
	case ptyOpenKind:
		return unix.S_IFCHR
	}
	return 0
}

func (rec *externalRecord) streamType() uint32 {
	switch t := rec.Mode & unix.S_IFMT; {
	case t == unix.S_IFIFO, t == unix.S_IFSOCK, t == unix.S_IFCHR && isTerminalDevice(rec.Rdev):
		return t
	}
	return 0
}

// hungPipe is one end of a pipe whose other end is closed. To a program that has
// it open in both directions a pipe does not hang up, so that a socket does.
func (b *Builder) hungPipe(was *stagedOpen, name string) *stagedOpen {
	access := was.flags & unix.O_ACCMODE
	if access == unix.O_RDWR {
		return b.hungSocket(name)
	}
	ends := b.twoEnds(name, func(p *tracer.Program, numbers tracer.Addr) *tracer.Row {
		return p.Call(unix.SYS_PIPE2, tracer.Ptr(numbers), tracer.Int(unix.O_CLOEXEC))
	})
	if access == unix.O_WRONLY {
		ends[0], ends[1] = ends[1], ends[0]
	}
	return b.without(ends[1], ends[0])
}

func (b *Builder) hungSocket(name string) *stagedOpen {
	ends := b.twoEnds(name, func(p *tracer.Program, numbers tracer.Addr) *tracer.Row {
		return p.Call(unix.SYS_SOCKETPAIR, tracer.Int(unix.AF_UNIX), tracer.Int(unix.SOCK_STREAM|unix.SOCK_CLOEXEC), tracer.Imm(0), tracer.Ptr(numbers))
	})
	return b.without(ends[1], ends[0])
}

func (b *Builder) twoEnds(name string, make func(p *tracer.Program, numbers tracer.Addr) *tracer.Row) [2]tracer.FD {
	p := b.Stage()
	numbers := p.Buffer(8)
	b.Expect(make(p, numbers), fault.DescriptorLimit, name)
	return b.fds.takePair(numbers)
}

// hungTerminal is a terminal whose master is closed.
func (b *Builder) hungTerminal(was *stagedOpen) (*stagedOpen, error) {
	f, err := b.openFile("/dev/ptmx", unix.O_RDWR, fault.FileOpen)
	if err != nil {
		return nil, err
	}
	master := &stagedOpen{fd: f.fd, path: "/dev/ptmx"}
	b.Expect(setInt(b.Stage(), master.fd, unix.TIOCSPTLCK, 0), fault.FileTypeChanged, master.path)
	return b.without(master.fd, b.openSlave(master, was.flags).fd), nil
}

// without closes the other end of fd.
func (b *Builder) without(other, fd tracer.FD) *stagedOpen {
	b.Stage().Close(other)
	b.fds.drop(other)
	return &stagedOpen{fd: fd}
}
