package resource

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/core/object"
	"github.com/crshim/crshim/tracer"
)

// stagedPty is a pseudo terminal in the caller.
type stagedPty struct {
	rec    *ptyRecord
	master *stagedOpen
	slave  *stagedOpen // closed by the commit
	taken  bool        // the master, by an open file of the image
}

func loadPty(b *Builder, ref object.Ref) (*stagedOpen, error) {
	rec, head, err := image.Expect[ptyOpenRecord](b.R)
	if err != nil {
		return nil, err
	}
	what := fmt.Sprintf("open file %d", ref)
	if head.Parent != uint32(ref) || rec.Slave > 1 || rec.Flags&unix.O_ACCMODE == unix.O_ACCMODE {
		return nil, badImage(fault.ImageValue, what, "owner %d, flags %#o", head.Parent, rec.Flags)
	}
	made, err := sharedInode(b, object.Ref(rec.Terminal), b.makePty)
	if err != nil {
		return nil, err
	}
	open := made.master
	switch {
	case rec.Slave != 0:
		open = b.openSlave(made.master, rec.Flags)
	case made.taken || rec.Flags&unix.O_ACCMODE != unix.O_RDWR:
		// To open a master is to make another terminal.
		return nil, badImage(fault.ImageValue, what, "a second master, or one with flags %#o", rec.Flags)
	default:
		made.taken = true
	}
	b.setFlags(open, rec.Flags)
	return open, nil
}

// openSlave opens the side that programs run on, whatever it is called
// (TIOCGPTPEER, Linux 4.13). O_CLOEXEC would stay among the flags of the open
// file, where open(2) does not leave it.
func (b *Builder) openSlave(master *stagedOpen, flags uint32) *stagedOpen {
	flags = flags&(unix.O_ACCMODE|fileLargefile) | unix.O_NOCTTY | unix.O_NONBLOCK
	row := b.Expect(b.Stage().Ioctl(master.fd, unix.TIOCGPTPEER, tracer.Imm(flags)), fault.FileTypeChanged, master.path)
	open := &stagedOpen{fd: b.fds.take(row), path: master.path}
	b.Stage().Fcntl(open.fd, unix.F_SETFD, tracer.Imm(unix.FD_CLOEXEC))
	return open
}

func (b *Builder) makePty(ref object.Ref) (*stagedPty, error) {
	rec, head, err := image.Expect[ptyRecord](b.R)
	if err != nil {
		return nil, err
	}
	what := fmt.Sprintf("terminal %d", ref)
	if head.Parent != uint32(ref) || rec.Locked > 1 || rec.Packet > 1 || rec.Exclusive > 1 || rec.Discipline != 0 ||
		rec.Output > ptyRoom || rec.Ends > ptyTyped || rec.Input > ptyTyped-rec.Ends || rec.Local&unix.EXTPROC != 0 {
		return nil, badImage(fault.ImageValue, what, "%d and %d bytes", rec.Output, rec.Input)
	}
	saved := savedPty{ptyRecord: *rec}
	if saved.output, err = b.readBuffer(what, rec.Output); err != nil {
		return nil, err
	}
	left := rec.Input
	for range rec.Ends + 1 {
		text, err := b.readBuffer(what, left)
		if err != nil {
			return nil, err
		}
		left -= uint32(len(text))
		saved.input = append(saved.input, text)
	}
	if uint32(len(saved.output)) != rec.Output || left != 0 {
		return nil, badImage(fault.ImageValue, what, "%d bytes are missing", left)
	}
	f, err := b.openFile(rec.Path, unix.O_RDWR, fault.FileOpen)
	if err != nil {
		return nil, err
	}
	made := &stagedPty{rec: rec, master: &stagedOpen{fd: f.fd, path: rec.Path}}
	expect := func(row *tracer.Row) { b.Expect(row, fault.FileState, rec.Path) }
	p := b.Stage()
	b.Expect(setInt(p, f.fd, unix.TIOCSPTLCK, 0), fault.FileTypeChanged, rec.Path)
	made.slave = b.openSlave(made.master, unix.O_RDWR)
	expect(p.Call(unix.SYS_FCHMOD, made.slave.fd, tracer.Imm(rec.Mode&0o777)))
	expect(p.Ioctl(f.fd, unix.TIOCSWINSZ, tracer.Ptr(p.Bytes(rec.window()))))
	for _, row := range saved.fill(p, f.fd, made.slave.fd) {
		expect(row)
	}
	b.ptys = append(b.ptys, made)
	if err := b.Objects.Add(object.Inode, ref, made); err != nil {
		return nil, badImage(fault.ImageValue, what, "%v", err)
	}
	return made, nil
}

// readBuffer reads a BUFFER of no more bytes than that.
func (b *Builder) readBuffer(what string, most uint32) ([]byte, error) {
	buffer, _, err := image.Expect[image.Buffer](b.R)
	if err != nil {
		return nil, err
	}
	if uint32(len(buffer.Data)) > most {
		return nil, badImage(fault.ImageValue, what, "piece of %d bytes", len(buffer.Data))
	}
	return buffer.Data, nil
}

// finishPtys does what would keep the image's own descriptors from being opened.
func (b *Builder) finishPtys() {
	for _, t := range b.ptys {
		p := b.Stage()
		if t.rec.Exclusive != 0 {
			b.Expect(p.Ioctl(t.slave.fd, unix.TIOCEXCL, tracer.Imm(0)), fault.FileState, t.rec.Path)
		}
		if t.rec.Locked != 0 {
			b.Expect(setInt(p, t.master.fd, unix.TIOCSPTLCK, 1), fault.FileState, t.rec.Path)
		}
	}
}

// window is struct winsize.
func (r *ptyRecord) window() []byte {
	var raw []byte
	for _, n := range []uint16{r.Rows, r.Columns, r.Width, r.Height} {
		raw = append(raw, byte(n), byte(n>>8))
	}
	return raw
}
