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

// savedPty is what a terminal was found to hold.
type savedPty struct {
	ptyRecord
	output []byte
	input  [][]byte // what was typed ahead of each end of file, and behind the last one
}

// lookAtPtys reads the terminals of which the process has both sides, once it
// is stopped for good.
func lookAtPtys(s *Saver) error {
	for i := range s.FDs {
		f := &s.FDs[i]
		index, ok := masterIndex(f)
		if !ok || s.covered[f.Number] || s.ptys[index] != nil || kindOf(s.View, f) != &pty {
			continue
		}
		saved, err := s.readPty(f, index)
		if err != nil {
			return fmt.Errorf("look into %s: %w", s.FDName(f.Number), err)
		}
		if s.ptys == nil {
			s.ptys = make(map[int]*savedPty)
		}
		s.ptys[index] = saved
	}
	return nil
}

func (s *Saver) readPty(f *procfs.FD, index int) (*savedPty, error) {
	saved := &savedPty{ptyRecord: ptyRecord{Number: uint32(index), Path: f.Target}}
	var counted int
	if err := s.withPty(index, func(master, slave int) (err error) {
		counted, err = saved.ask(master, slave)
		return err
	}); err != nil {
		return nil, err
	}
	sides := ptySides{
		master: tracer.FD(f.Number), flags: f.Flags,
		read: tracer.FD(slaveBy(s.View, index, unix.O_WRONLY)), write: tracer.FD(slaveBy(s.View, index, unix.O_RDONLY)),
	}
	taken, err := sides.take(s.Remote, &saved.ptyRecord)
	if err != nil {
		return nil, err
	}
	saved.output, saved.input = taken.output, [][]byte{taken.typed}
	if endsOfFile(&saved.ptyRecord, taken.typed, counted) > 0 {
		saved.input = bytes.Split(taken.typed, []byte{0}) // that is what taking has made of them
	}
	saved.Output, saved.Ends = uint32(len(saved.output)), uint32(len(saved.input)-1)
	saved.Input = uint32(len(taken.typed)) - saved.Ends
	p := s.Remote.Program()
	taken.giveBack(p)
	saved.fill(p, sides.master, sides.write)
	p.Fcntl(sides.master, unix.F_SETFL, tracer.Imm(f.Flags))
	if err := p.Run(); err != nil {
		return nil, fmt.Errorf("put back what has not been read: %w", err)
	}
	if saved.Input+saved.Ends > ptyTyped {
		return nil, &fault.Error{Code: fault.Pty, Object: s.FDName(f.Number), Detail: fmt.Sprintf("%d bytes have been typed and not been read", saved.Input)}
	}
	return saved, nil
}

// ask reads what ioctls tell, and how many bytes a program that reads lines
// would be told that there are (FIONREAD).
func (r *savedPty) ask(master, slave int) (counted int, err error) {
	settings, err := unix.IoctlGetTermios(slave, unix.TCGETS2)
	if err != nil {
		return 0, fmt.Errorf("read settings: %w", err)
	}
	r.InputMode, r.OutputMode, r.Control, r.Local = settings.Iflag, settings.Oflag, settings.Cflag, settings.Lflag
	r.Chars, r.Discipline, r.InputRate, r.OutputRate = settings.Cc, settings.Line, settings.Ispeed, settings.Ospeed
	size, err := unix.IoctlGetWinsize(master, unix.TIOCGWINSZ)
	if err != nil {
		return 0, fmt.Errorf("read window size: %w", err)
	}
	r.Rows, r.Columns, r.Width, r.Height = size.Row, size.Col, size.Xpixel, size.Ypixel
	for _, flag := range []struct {
		fd      int
		request uint
		into    *uint8
	}{{master, unix.TIOCGPTLCK, &r.Locked}, {master, unix.TIOCGPKT, &r.Packet}, {slave, unix.TIOCGEXCL, &r.Exclusive}} {
		n, err := unix.IoctlGetInt(flag.fd, flag.request)
		if err != nil {
			return 0, fmt.Errorf("read flags: %w", err)
		}
		if n != 0 {
			*flag.into = 1
		}
	}
	var st unix.Stat_t
	if err := unix.Fstat(slave, &st); err != nil {
		return 0, err
	}
	r.Mode = st.Mode & 0o777
	return unix.IoctlGetInt(slave, unix.TIOCINQ)
}

// endsOfFile tells how many of the zero bytes in what was typed were ends of
// file. A count of whole lines leaves those out.
func endsOfFile(r *ptyRecord, typed []byte, counted int) int {
	zeros := bytes.Count(typed, []byte{0})
	whole := bytes.LastIndexAny(typed, "\n\x00") + 1
	if r.Local&unix.ICANON == 0 || zeros == 0 || counted != whole-zeros {
		return 0
	}
	return zeros
}

// ptySides are descriptors of the process.
type ptySides struct {
	master tracer.FD
	flags  uint32    // of the master
	read   tracer.FD // of the other side
	write  tracer.FD
}

// ptyRoom is more than a terminal holds: 4096 bytes (N_TTY_BUF_SIZE) that can
// be read and 8192 on the way (pty_common_install of drivers/tty/pty.c). It is
// what a pipe holds, too.
const (
	ptyRoom   = 64 << 10
	ptyRounds = 8 // each moves all that can be read
)

// ptyTyped is how much may wait on the side that programs run on: beyond that,
// what is typed next is not looked at any more.
const ptyTyped = 3800

// takenPty is what was not read on both sides. It also is in two pipes of the
// process until it is given back: if we end before, the process does that.
type takenPty struct {
	output, typed []byte

	pipes []tracer.FD
	undos []*tracer.Undo
}

// take has the process take what has not been read on both sides. The terminal
// is left quiet.
func (side *ptySides) take(r *tracer.Remote, rec *ptyRecord) (*takenPty, error) {
	p := r.Program()
	taken := new(takenPty)
	var numbers [4]tracer.Addr // of the pipes: what is taken, and the copies that we read
	p.Fcntl(side.master, unix.F_SETFL, tracer.Imm(side.flags|unix.O_NONBLOCK)).
		Undo(unix.SYS_FCNTL, side.master, tracer.Imm(unix.F_SETFL), tracer.Imm(side.flags))
	if rec.Packet != 0 {
		setInt(p, side.master, unix.TIOCPKT, 0)
	}
	undo := func(u *tracer.Undo) { taken.undos = append(taken.undos, u) }
	for i := range numbers {
		numbers[i] = p.Buffer(16) // a cell is 8 bytes
		row := p.Call(unix.SYS_PIPE2, tracer.Ptr(numbers[i]), tracer.Int(unix.O_CLOEXEC|unix.O_NONBLOCK))
		undo(row.Undo(unix.SYS_CLOSE, tracer.Cell(numbers[i])))
		undo(row.Undo(unix.SYS_CLOSE, tracer.Cell(numbers[i]+4)))
	}
	settings := p.Bytes(rec.settings().bytes())
	all, now := tracer.Imm(ptyRoom), tracer.Imm(unix.SPLICE_F_NONBLOCK)
	drain := func(from, into tracer.Arg) {
		for range ptyRounds { // tolerated: there is nothing more
			p.Call(unix.SYS_SPLICE, from, tracer.Imm(0), into, tracer.Imm(0), all, now).Tolerate()
		}
	}
	for i, way := range []struct {
		from, back tracer.FD
		meanwhile  *termios
	}{{side.master, side.write, rec.raw()}, {side.read, side.master, rec.lines()}} {
		row := rec.raw().set(p, side.master)
		// The last one is the first to be done.
		undo(row.Undo(unix.SYS_IOCTL, side.master, tracer.Imm(unix.TCSETS2), tracer.Ptr(settings)))
		undo(row.Undo(unix.SYS_SPLICE, tracer.Cell(numbers[i]), tracer.Imm(0), way.back, tracer.Imm(0), all, now))
		undo(row.Undo(unix.SYS_IOCTL, side.master, tracer.Imm(unix.TCSETS2), tracer.Ptr(p.Bytes(way.meanwhile.bytes()))))
		drain(way.from, tracer.Cell(numbers[i]+4))
	}
	drain(side.master, tracer.Cell(numbers[0]+4)) // reading the other side may have had something echoed
	for i := range 2 {
		p.Call(unix.SYS_TEE, tracer.Cell(numbers[i]), tracer.Cell(numbers[2+i]+4), all, now).Tolerate()
	}
	var rows [2]*tracer.Row
	var buffers [2]tracer.Addr
	for i := range rows {
		buffers[i] = p.Buffer(ptyRoom)
		rows[i] = p.Read(tracer.Cell(numbers[2+i]), buffers[i], ptyRoom).Tolerate() // or it is empty
	}
	if err := p.Run(); err != nil {
		return nil, fmt.Errorf("take what has not been read: %w", err)
	}
	for i, into := range []*[]byte{&taken.output, &taken.typed} {
		if rows[i].Err() != nil {
			continue
		}
		*into = make([]byte, rows[i].Result())
		if err := r.ReadMem(buffers[i], *into); err != nil {
			return nil, err
		}
	}
	for _, at := range numbers {
		var pair [8]byte
		if err := r.ReadMem(at, pair[:]); err != nil {
			return nil, err
		}
		taken.pipes = append(taken.pipes, tracer.FD(int32(binary.LittleEndian.Uint32(pair[:]))), tracer.FD(int32(binary.LittleEndian.Uint32(pair[4:]))))
	}
	return taken, nil
}

// giveBack begins the program that puts all of it back.
func (taken *takenPty) giveBack(p *tracer.Program) {
	for _, u := range taken.undos {
		p.Forget(u)
	}
	for _, fd := range taken.pipes {
		p.Close(fd)
	}
}

// fill puts into an empty terminal what was in it: lines as lines, and what is
// behind an end of file as behind it. It ends with the settings and the mode
// that the terminal has.
func (r *savedPty) fill(p *tracer.Program, master, slave tracer.FD) []*tracer.Row {
	rows := []*tracer.Row{p.Fcntl(master, unix.F_SETFL, tracer.Imm(unix.O_RDWR))}
	quiet := r.lines()
	for i, text := range r.input {
		for piece := range slices.Chunk(text, ptyPiece) {
			rows = append(rows, r.typeIn(p, master, piece, false)...)
		}
		if i < len(r.input)-1 {
			rows = append(rows, r.typeIn(p, master, nil, true)...)
		}
	}
	rows = append(rows, quiet.set(p, master))
	if len(r.output) > 0 {
		rows = append(rows, p.Write(slave, p.Bytes(r.output), uint64(len(r.output))).Full())
	}
	rows = append(rows, r.settings().set(p, master))
	if r.Packet != 0 {
		rows = append(rows, setInt(p, master, unix.TIOCPKT, 1))
	}
	return rows
}

// ptyPiece is a length that never holds every byte.
const ptyPiece = 240

// typeIn types a piece, or an end of file. The kernel looks at what is typed
// later, in a thread of its own, and does to it what the settings of then say.
// So the last thing typed is one that stops the output, of which the master is
// told by a packet: that is waited for.
func (r *savedPty) typeIn(p *tracer.Program, master tracer.FD, piece []byte, end bool) []*tracer.Row {
	stop := r.unusedByte(piece, 1)
	eof := r.unusedByte(piece, stop+1)
	t, started := r.lines(), r.lines()
	t.iflag, t.cc[unix.VSTOP] = unix.IXON, stop
	if end {
		t.cc[unix.VEOF] = eof
		piece = []byte{eof}
	}
	text := append(slices.Clone(piece), stop)
	return []*tracer.Row{
		t.set(p, master),
		setInt(p, master, unix.TIOCPKT, 1),
		p.Write(master, p.Bytes(text), uint64(len(text))).Full(),
		p.Read(master, p.Buffer(8), 8),
		setInt(p, master, unix.TIOCPKT, 0),
		started.set(p, master),
	}
}

// unusedByte is one from there on that stands for nothing else in a piece.
func (r *savedPty) unusedByte(piece []byte, from byte) byte {
	for c := from; ; c++ {
		if c != 0 && c != '\n' && c != r.Chars[unix.VEOL] && c != r.Chars[unix.VEOL2] && bytes.IndexByte(piece, c) < 0 {
			return c
		}
	}
}

// termios is struct termios2 of <asm/termbits.h>.
type termios struct {
	iflag, oflag, cflag, lflag uint32
	line                       uint8
	cc                         [19]byte
	ispeed, ospeed             uint32
}

func (r *ptyRecord) settings() *termios {
	return &termios{r.InputMode, r.OutputMode, r.Control, r.Local, r.Discipline, r.Chars, r.InputRate, r.OutputRate}
}

// raw neither changes what passes nor waits for more.
func (r *ptyRecord) raw() *termios {
	t := r.settings()
	t.iflag, t.oflag, t.lflag = 0, 0, 0
	t.cc = [19]byte{}
	return t
}

// lines makes lines of what is typed, if the program wants that, and does
// nothing else to it. What ends a line besides still does.
func (r *ptyRecord) lines() *termios {
	t := r.raw()
	t.lflag = r.Local & unix.ICANON
	t.cc[unix.VEOL], t.cc[unix.VEOL2] = r.Chars[unix.VEOL], r.Chars[unix.VEOL2]
	return t
}

func (t *termios) set(p *tracer.Program, fd tracer.Arg) *tracer.Row {
	return p.Ioctl(fd, unix.TCSETS2, tracer.Ptr(p.Bytes(t.bytes())))
}

func (t *termios) bytes() (raw []byte) {
	for _, word := range []uint32{t.iflag, t.oflag, t.cflag, t.lflag} {
		raw = binary.LittleEndian.AppendUint32(raw, word)
	}
	raw = append(append(raw, t.line), t.cc[:]...)
	raw = binary.LittleEndian.AppendUint32(raw, t.ispeed)
	return binary.LittleEndian.AppendUint32(raw, t.ospeed)
}

// setInt is an ioctl that is given a pointer to an int.
func setInt(p *tracer.Program, fd tracer.Arg, request uint64, n uint32) *tracer.Row {
	return p.Ioctl(fd, request, tracer.Ptr(p.Bytes(binary.LittleEndian.AppendUint32(nil, n))))
}

func dumpPty(s *Saver, f *procfs.FD, ref object.Ref) error {
	index := ptyIndex(f)
	terminal, first := s.Objects.Add(object.Inode, ptyID(index))
	open := ptyOpenRecord{Terminal: uint32(terminal), Flags: f.Flags &^ unix.O_CLOEXEC}
	if slaveIndex(f) >= 0 {
		open.Slave = 1
	}
	if err := s.W.Put(uint32(ref), &open); err != nil || !first {
		return err
	}
	saved := s.ptys[index]
	if saved == nil {
		return &fault.Error{Code: fault.Pty, Object: s.FDName(f.Number)}
	}
	if err := s.W.Put(uint32(terminal), &saved.ptyRecord); err != nil {
		return err
	}
	for _, data := range append([][]byte{saved.output}, saved.input...) {
		if err := s.W.Put(0, &image.Buffer{Data: data}); err != nil {
			return err
		}
	}
	return nil
}

// ptyID tells terminals apart.
type ptyID int
