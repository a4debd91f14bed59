package resource

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/core/object"
	"github.com/crshim/crshim/tracer"
)

// sentMessage is the sending of some bytes, of which less may be taken.
type sentMessage struct {
	row   *tracer.Row
	bytes int
	to    string
}

const (
	maxUnixMessage = 64 << 20
	maxUnixRights  = 253 // SCM_MAX_FD of include/net/scm.h
)

// loadUnixQueues reads what was on its way once everything is open, sends it
// again, and then gives the sockets the state in which nothing could be sent.
func (r *filesRestore) loadUnixQueues(b *Builder) error {
	for {
		next, err := b.R.Peek()
		if err != nil {
			return err
		}
		if next != unixQueueKind {
			break
		}
		if err := r.loadUnixQueue(b); err != nil {
			return err
		}
	}
	if b.unix == nil {
		return nil
	}
	return b.unix.finish(b)
}

func (r *filesRestore) loadUnixQueue(b *Builder) error {
	rec, _, err := image.Expect[unixQueueRecord](b.R)
	if err != nil {
		return err
	}
	if b.unix == nil || b.unix.byIno[rec.Ino] == nil || b.unix.byIno[rec.Ino].filled {
		return badImage(fault.ImageValue, fmt.Sprintf("unix socket %d", rec.Ino), "a queue without a socket, or twice")
	}
	u := b.unix.byIno[rec.Ino]
	u.filled = true
	for range rec.Messages {
		m, _, err := image.Expect[unixMessageRecord](b.R)
		if err != nil {
			return err
		}
		if m.Bytes > maxUnixMessage || m.Rights > maxUnixRights || m.Creds > 1 || m.Bytes == 0 && u.rec.Type == unix.SOCK_STREAM {
			return u.rec.bad("message of %d bytes, %d open files", m.Bytes, m.Rights)
		}
		var data []byte
		for uint32(len(data)) < m.Bytes {
			piece, _, err := image.Expect[image.Buffer](b.R)
			if err != nil {
				return err
			}
			if len(piece.Data) == 0 || uint64(len(data)+len(piece.Data)) > uint64(m.Bytes) {
				return u.rec.bad("piece of %d bytes", len(piece.Data))
			}
			data = append(data, piece.Data...)
		}
		var rights []tracer.FD
		for range m.Rights {
			fd, err := r.loadUnixRight(b)
			if err != nil {
				return err
			}
			rights = append(rights, fd)
		}
		if err := b.unix.send(b, u, m, data, rights); err != nil {
			return err
		}
		if err := b.filled(len(data)); err != nil {
			return err
		}
	}
	return nil
}

// loadUnixRight opens a file that is in a message. What is left open of it here
// the commit closes.
func (r *filesRestore) loadUnixRight(b *Builder) (tracer.FD, error) {
	rec, _, err := image.Expect[unixRightRecord](b.R)
	if err != nil {
		return -1, err
	}
	ref := object.Ref(rec.File)
	what := fmt.Sprintf("open file %d", ref)
	known, seen, err := b.Objects.Get(object.OpenFile, ref)
	if err != nil {
		return -1, badImage(fault.ImageValue, what, "%v", err)
	}
	if seen && known.(*stagedOpen).fd == nothing {
		return -1, &fault.Error{Code: fault.UnixSent, Object: what, Detail: "it is in a message, and the policy closes it", Err: unix.EBADF}
	}
	if seen {
		return known.(*stagedOpen).fd, nil
	}
	open, err := b.loadFile(ref, false)
	if err != nil {
		return -1, err
	}
	if open.epoll != nil || open.external != nil || open.attached.owner != nil || len(open.attached.locks) > 0 {
		return -1, badImage(fault.ImageValue, what, "not of those that a message can have")
	}
	r.opened = append(r.opened, open)
	if err := b.Objects.Add(object.OpenFile, ref, open); err != nil {
		return -1, badImage(fault.ImageValue, what, "%v", err)
	}
	return open.fd, nil
}

// sender returns who sends a message to u, and the address to send it to, nil
// if the two are connected.
func (r *unixRestore) sender(b *Builder, u *stagedUnix, m *unixMessageRecord) (*stagedOpen, []byte, error) {
	peer := r.peer(u)
	datagram := u.rec.Type == unix.SOCK_DGRAM
	named := r.byIno[m.Sender]
	switch {
	case m.Sender != 0 && (named == nil || !datagram || named.rec.Type != u.rec.Type):
		return nil, nil, u.rec.bad("message from %d", m.Sender)
	case peer != nil && (named == nil || named == peer):
		return peer.open, nil, nil
	case u.ghost != nil && named == nil:
		return u.ghost, nil, nil
	case !datagram || u.rec.Named == unixNoName:
		return nil, nil, u.rec.bad("message from %d", m.Sender)
	case named != nil:
		return named.open, u.address(), nil
	}
	if r.helper == nil {
		r.helper = b.unixSocket(&unixSocketRecord{Type: unix.SOCK_DGRAM})
	}
	return r.helper, u.address(), nil
}

// send puts a message into the queue of u. Whether it has credentials is up to
// the message alone, for no socket has SO_PASSCRED yet.
func (r *unixRestore) send(b *Builder, u *stagedUnix, m *unixMessageRecord, data []byte, rights []tracer.FD) error {
	from, address, err := r.sender(b, u, m)
	if err != nil {
		return err
	}
	p := b.Stage()
	r.widen(b, from)
	var control []byte
	if m.Creds != 0 {
		control = appendControl(control, unix.SCM_CREDENTIALS, uint32(b.VPID), m.UID, m.GID)
	}
	if len(rights) > 0 {
		numbers := make([]uint32, len(rights))
		for i, fd := range rights {
			numbers[i] = uint32(fd)
		}
		control = appendControl(control, unix.SCM_RIGHTS, numbers...)
	}
	words := func(w ...uint64) tracer.Addr {
		var raw []byte
		for _, x := range w {
			raw = binary.NativeEndian.AppendUint64(raw, x)
		}
		return p.Bytes(raw)
	}
	iov := words(uint64(p.Bytes(data)), uint64(len(data)))
	msg := words(uint64(p.Bytes(address)), uint64(len(address)), uint64(iov), 1, uint64(p.Bytes(control)), uint64(len(control)), 0)
	row := p.Call(unix.SYS_SENDMSG, from.fd, tracer.Ptr(msg), tracer.Imm(unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL))
	b.Expect(row, fault.UnixSent, u.rec.label())
	r.sent = append(r.sent, sentMessage{row, len(data), u.rec.label()})
	return nil
}

// widen makes room in a socket that sends, as much as there can be: the
// option that it had comes last.
func (r *unixRestore) widen(b *Builder, from *stagedOpen) {
	if r.wide[from] {
		return
	}
	r.wide[from] = true
	const most = 1 << 30
	b.setUnixOption(from, unix.SO_SNDBUF, most)
	b.setUnixOption(from, unix.SO_SNDBUFFORCE, most)
}

// appendControl adds a control message of 32-bit words, as CMSG_SPACE(3) pads it.
func appendControl(b []byte, kind uint32, words ...uint32) []byte {
	b = binary.NativeEndian.AppendUint64(b, uint64(unix.SizeofCmsghdr+4*len(words)))
	b = binary.NativeEndian.AppendUint32(b, unix.SOL_SOCKET)
	b = binary.NativeEndian.AppendUint32(b, kind)
	for _, w := range words {
		b = binary.NativeEndian.AppendUint32(b, w)
	}
	if len(words)%2 != 0 {
		b = append(b, 0, 0, 0, 0)
	}
	return b
}

// finish does what ends sending: it closes the peers that were closed, shuts
// down, and sets the options as they were.
func (r *unixRestore) finish(b *Builder) error {
	if err := b.Flush(); err != nil {
		return err
	}
	for _, s := range r.sent {
		if s.row.Result() != uint64(s.bytes) {
			return &fault.Error{Code: fault.UnixSent, Object: s.to, Detail: fmt.Sprintf("%d of %d bytes", s.row.Result(), s.bytes), Err: unix.EAGAIN}
		}
	}
	p := b.Stage()
	drop := func(open *stagedOpen) {
		p.Close(open.fd)
		b.fds.drop(open.fd)
	}
	for _, u := range r.sockets {
		if !u.taken {
			return u.rec.bad("no open file has it")
		}
		if u.rec.State == unixConnected && r.peer(u) == nil {
			r.connectTo(b, u.open, r.byIno[u.rec.Peer])
		}
		if u.ghost != nil {
			if u.rec.Reset != 0 { // what it leaves unread is reported
				b.Expect(p.Write(u.open.fd, p.Bytes([]byte{0}), 1), fault.FileState, u.rec.label())
			}
			drop(u.ghost)
		}
	}
	for _, u := range r.sockets {
		if u.rec.Shutdown != 0 { // SHUT_RD, SHUT_WR and SHUT_RDWR are one less
			b.Expect(p.Call(unix.SYS_SHUTDOWN, u.open.fd, tracer.Imm(uint64(u.rec.Shutdown-1))), fault.FileState, u.rec.label())
		}
	}
	if r.helper != nil {
		drop(r.helper)
	}
	for _, f := range r.files {
		if f.u.rec.Named == unixDeleted && f.unbind != nil {
			f.remove(b)
		}
	}
	return r.setOptions(b)
}
