package resource

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/tracer"
)

type unixOption struct {
	Option int32 `doc:"SO_*"`
	Value  int32
}

// unixOptions are those of level SOL_SOCKET that unix sockets have a use for,
// or at least keep, and their values in a new socket. Some came late: PASSPIDFD
// with Linux 6.5, PASSRIGHTS with 6.16.
var unixOptions = []unixOption{
	{unix.SO_SNDBUF, -1}, {unix.SO_RCVBUF, -1}, // depends on the host
	{unix.SO_REUSEADDR, 0}, {unix.SO_REUSEPORT, 0}, {unix.SO_KEEPALIVE, 0}, {unix.SO_BROADCAST, 0}, {unix.SO_OOBINLINE, 0},
	{unix.SO_PRIORITY, 0}, {unix.SO_MARK, 0}, {unix.SO_RCVLOWAT, 1}, {unix.SO_TIMESTAMP, 0}, {unix.SO_TIMESTAMPNS, 0},
	{unix.SO_PASSCRED, 0}, {unix.SO_PASSSEC, 0}, {soPassPidfd, 0}, {soPassRights, 1}, {unix.SO_PEEK_OFF, -1},
}

const (
	soPassPidfd  = 76
	soPassRights = 83
)

// isBuffer tells the options of which the kernel keeps twice what is set.
func (o unixOption) isBuffer() bool { return o.Option == unix.SO_SNDBUF || o.Option == unix.SO_RCVBUF }

// option returns the value of an option, if it is not as in a new socket.
func (r *unixSocketRecord) option(name int32) (int32, bool) {
	for _, o := range r.Options {
		if o.Option == name {
			return o.Value, true
		}
	}
	return 0, false
}

// readOptions reads those that are not as in a new socket.
func (u *savedUnix) readOptions() error {
	for _, o := range unixOptions {
		value, err := unix.GetsockoptInt(u.own, unix.SOL_SOCKET, int(o.Option))
		switch {
		case errors.Is(err, unix.ENOPROTOOPT) || errors.Is(err, unix.EOPNOTSUPP):
			continue // this kernel does not have it
		case err != nil:
			return fmt.Errorf("read option %d: %w", o.Option, err)
		case int32(value) != o.Value || o.isBuffer():
			u.rec.Options = append(u.rec.Options, unixOption{o.Option, int32(value)})
		}
	}
	for i, option := range []int{unix.SO_RCVTIMEO, unix.SO_SNDTIMEO} {
		t, err := unix.GetsockoptTimeval(u.own, unix.SOL_SOCKET, option)
		if err != nil {
			return fmt.Errorf("read option %d: %w", option, err)
		}
		u.rec.Timeouts[2*i], u.rec.Timeouts[2*i+1] = t.Sec, t.Usec
	}
	return nil
}

// borrow sets an option of a socket for as long as we look. What it was comes
// back even if we die meanwhile.
func (l *unixLook) borrow(u *savedUnix, option int, value int32) error {
	before, err := unix.GetsockoptInt(u.own, unix.SOL_SOCKET, option)
	if err != nil {
		return fmt.Errorf("read option %d: %w", option, err)
	}
	was := l.back.Buffer(4) // stays until back has run
	if err := l.s.Remote.WriteMem(was, binary.NativeEndian.AppendUint32(nil, uint32(before))); err != nil {
		return err
	}
	p := l.s.Remote.Program()
	set := func(p *tracer.Program, at tracer.Addr) *tracer.Row {
		return p.Call(unix.SYS_SETSOCKOPT, tracer.FD(u.fd.Number), tracer.Imm(unix.SOL_SOCKET), tracer.Int(option), tracer.Ptr(at), tracer.Imm(4))
	}
	row := set(p, p.Bytes(binary.NativeEndian.AppendUint32(nil, uint32(value))))
	undo := row.Undo(unix.SYS_SETSOCKOPT, tracer.FD(u.fd.Number), tracer.Imm(unix.SOL_SOCKET), tracer.Int(option), tracer.Ptr(was), tracer.Imm(4))
	if err := p.Run(); err != nil {
		return fmt.Errorf("set option %d: %w", option, err)
	}
	set(l.back, was)
	l.back.Forget(undo)
	return nil
}

// setUnixOption adds the setting of an option of 4 bytes.
func (b *Builder) setUnixOption(open *stagedOpen, option, value int32) *tracer.Row {
	p := b.Stage()
	at := p.Bytes(binary.NativeEndian.AppendUint32(nil, uint32(value)))
	return p.Call(unix.SYS_SETSOCKOPT, open.fd, tracer.Imm(unix.SOL_SOCKET), tracer.Int(int(option)), tracer.Ptr(at), tracer.Imm(4)).Tolerate()
}

// setOptions sets those that are not as they were, and looks whether they are
// then: the kernel cuts buffer sizes down without a word. More than the limits
// of the host takes CAP_NET_ADMIN.
func (r *unixRestore) setOptions(b *Builder) error {
	for _, u := range r.sockets {
		u.setTimeouts(b)
	}
	for _, force := range []bool{false, true} {
		wrong, err := r.wrongOptions(b)
		if err != nil {
			return err
		}
		for _, w := range wrong {
			if force && !w.option.isBuffer() {
				return w.fault()
			}
			option, value := w.option.Option, w.option.Value
			if w.option.isBuffer() {
				value /= 2 // the kernel doubles it
			}
			switch {
			case force && option == unix.SO_SNDBUF:
				option = unix.SO_SNDBUFFORCE
			case force:
				option = unix.SO_RCVBUFFORCE
			}
			b.setUnixOption(w.u.open, option, value)
		}
	}
	wrong, err := r.wrongOptions(b)
	if err == nil && len(wrong) > 0 {
		err = wrong[0].fault()
	}
	return err
}

// wrongOption is an option of a socket that has another value than it had.
type wrongOption struct {
	u      *stagedUnix
	option unixOption
	is     int32
}

func (w *wrongOption) fault() error {
	return &fault.Error{Code: fault.UnixOption, Object: w.u.rec.label(), Detail: fmt.Sprintf("option %d is %d, was %d", w.option.Option, w.is, w.option.Value), Err: unix.EPERM}
}

func (r *unixRestore) wrongOptions(b *Builder) ([]wrongOption, error) {
	p := b.Stage()
	type asked struct {
		wrongOption
		row *tracer.Row
		at  tracer.Addr
	}
	var all []asked
	size := binary.NativeEndian.AppendUint32(nil, 4)
	for _, u := range r.sockets {
		for _, o := range u.rec.Options {
			at := p.Bytes(make([]byte, 4))
			row := p.Call(unix.SYS_GETSOCKOPT, u.open.fd, tracer.Imm(unix.SOL_SOCKET), tracer.Int(int(o.Option)), tracer.Ptr(at), tracer.Ptr(p.Bytes(size))).Tolerate()
			all = append(all, asked{wrongOption{u: u, option: o}, row, at})
		}
	}
	if err := b.Flush(); err != nil {
		return nil, err
	}
	var wrong []wrongOption
	for _, a := range all {
		word := make([]byte, 4)
		if err := b.Remote.ReadMem(a.at, word); err != nil {
			return nil, err
		}
		a.is = int32(binary.NativeEndian.Uint32(word))
		if a.row.Err() != nil || a.is != a.option.Value {
			wrong = append(wrong, a.wrongOption)
		}
	}
	return wrong, nil
}

func (u *stagedUnix) setTimeouts(b *Builder) {
	p := b.Stage()
	for i, option := range []int{unix.SO_RCVTIMEO, unix.SO_SNDTIMEO} {
		t := u.rec.Timeouts[2*i : 2*i+2]
		if t[0] == 0 && t[1] == 0 {
			continue
		}
		raw := binary.NativeEndian.AppendUint64(binary.NativeEndian.AppendUint64(nil, uint64(t[0])), uint64(t[1]))
		row := p.Call(unix.SYS_SETSOCKOPT, u.open.fd, tracer.Imm(unix.SOL_SOCKET), tracer.Int(option), tracer.Ptr(p.Bytes(raw)), tracer.Imm(16))
		b.Expect(row, fault.UnixOption, u.rec.label())
	}
}
