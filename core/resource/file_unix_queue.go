package resource

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/tracer/procfs"
)

// unixMessage is a message that a socket has yet to receive, or some bytes of
// a stream that may be read in one go.
type unixMessage struct {
	rec    unixMessageRecord
	from   string // address of the sender, empty if it has none
	data   []byte
	rights []int32 // descriptors that the process was lent
}

// peeked is a message as it was peeked at, with our own descriptors.
type peeked struct {
	n      int
	from   string
	short  bool // the buffer was too small
	rights []int
	creds  *unix.Ucred
}

func (p *peeked) drop() {
	for _, fd := range p.rights {
		unix.Close(fd)
	}
	p.rights = nil
}

// peek looks at what SO_PEEK_OFF of the socket points to, and moves that on.
func (u *savedUnix) peek(buf []byte) (*peeked, error) {
	flags := 0
	if u.rec.Type != unix.SOCK_STREAM {
		flags = unix.MSG_TRUNC // tells the length of what does not fit
	}
	control := make([]byte, 4<<10) // 253 descriptors at most (SCM_MAX_FD)
	n, from, length, got, err := peekUnix(u.own, buf, control, flags)
	if err != nil {
		return nil, err
	}
	p := &peeked{n: n, from: from, short: n > len(buf)}
	messages, err := unix.ParseSocketControlMessage(control[:length])
	if err != nil {
		return nil, err
	}
	const scmPidfd = 4
	for i := range messages {
		m := &messages[i]
		switch m.Header.Type {
		case unix.SCM_RIGHTS, scmPidfd:
			m.Header.Type = unix.SCM_RIGHTS
			fds, err := unix.ParseUnixRights(m)
			if err != nil {
				return nil, err
			}
			p.rights = append(p.rights, fds...)
		case unix.SCM_CREDENTIALS:
			if p.creds, err = unix.ParseUnixCredentials(m); err != nil {
				return nil, err
			}
		}
	}
	if got&unix.MSG_CTRUNC != 0 {
		p.drop()
		return nil, fmt.Errorf("take what is attached to a message: %w", unix.EMFILE)
	}
	return p, nil
}

func (u *savedUnix) seek(to int) error {
	return unix.SetsockoptInt(u.own, unix.SOL_SOCKET, unix.SO_PEEK_OFF, to)
}

// readQueue looks at everything that the socket has yet to receive and leaves
// it there. MSG_PEEK alone always shows the beginning; SO_PEEK_OFF (Linux 3.4,
// of streams 4.11) walks on.
func (l *unixLook) readQueue(u *savedUnix) error {
	if u.fact.State == tcpListen {
		return nil
	}
	poll := []unix.PollFd{{Fd: int32(u.own), Events: unix.POLLIN | unix.POLLPRI}}
	if _, err := unix.Poll(poll, 0); err != nil {
		return err
	}
	waiting, err := unix.IoctlGetInt(u.own, unix.SIOCINQ)
	if err != nil {
		return fmt.Errorf("read length: %w", err)
	}
	events := poll[0].Revents
	stream := u.rec.Type == unix.SOCK_STREAM
	switch {
	case events&unix.POLLPRI != 0:
		l.refuse(u, fault.UnixQueue, "urgent data")
		return nil
	case events&unix.POLLERR != 0:
		// To receive reports the error before any message. Where it can be only
		// that the peer was closed before it had read all, it can be made again.
		u.rec.Reset = 1
		if u.rec.Type == unix.SOCK_DGRAM || !stream && waiting > 0 {
			l.refuse(u, fault.UnixState, "it has an error to report")
			return nil
		}
	}
	if l.s == nil || events&unix.POLLIN == 0 || stream && waiting == 0 || u.rec.Reset != 0 && waiting == 0 {
		return nil
	}
	if stream {
		if all, err := l.readPlain(u, waiting); all || err != nil {
			return err
		}
	}
	if err := l.borrow(u, unix.SO_PEEK_OFF, -1); err != nil {
		return err
	}
	if stream {
		return l.readStream(u, waiting)
	}
	return l.readMessages(u)
}

// readPlain reads a stream that is no more than bytes in one go, and tells
// whether it is that.
func (l *unixLook) readPlain(u *savedUnix, total int) (bool, error) {
	_, walks := u.rec.option(unix.SO_PEEK_OFF)
	_, passes := u.rec.option(unix.SO_PASSCRED)
	if walks || passes {
		return false, nil
	}
	data := make([]byte, total)
	p, err := u.peek(data)
	if err != nil {
		return false, err
	}
	if p.n < total || len(p.rights) > 0 {
		p.drop()
		return false, nil
	}
	return true, l.keep(u, p, data)
}

// readStream takes apart what must be: credentials and rights are those of
// some bytes. The kernel ends at them (unix_stream_read_generic of
// net/unix/af_unix.c), but may begin before.
func (l *unixLook) readStream(u *savedUnix, total int) error {
	data := make([]byte, total)
	for at := 0; at < total; {
		if err := u.seek(at); err != nil {
			return err
		}
		p, err := u.peek(data[at:])
		if err != nil {
			return err
		}
		if p.n == 0 {
			p.drop()
			l.refuse(u, fault.UnixQueue, "%d bytes of %d can be looked at", at, total)
			return nil
		}
		if len(p.rights) > 0 {
			plain, err := u.plain(at, p.n)
			if err != nil {
				p.drop()
				return err
			}
			if plain > 0 {
				first := &peeked{n: plain, creds: p.creds}
				if err := l.keep(u, first, data[at:at+plain]); err != nil {
					p.drop()
					return err
				}
				at, p.n = at+plain, p.n-plain
			}
		}
		if err := l.keep(u, p, data[at:at+p.n]); err != nil {
			return err
		}
		at += p.n
	}
	return nil
}

// plain returns how many of n bytes from an offset on come before those that
// the rights belong to. Any peek shows the rights that are next, however few
// bytes it takes. But the kernel copies what was sent in one go whole or not at
// all: the last byte has no place to go to, and what it belongs to is missing.
func (u *savedUnix) plain(at, n int) (int, error) {
	page := os.Getpagesize()
	memory, err := unix.Mmap(-1, 0, (n-1+page-1)/page*page+page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return 0, err
	}
	defer func() { _ = unix.Munmap(memory) }() // ours
	end := len(memory) - page
	if err := unix.Mprotect(memory[end:], unix.PROT_NONE); err != nil {
		return 0, err
	}
	if err := u.seek(at); err != nil {
		return 0, err
	}
	p, err := u.peek(memory[end-(n-1) : end+1])
	switch {
	case errors.Is(err, unix.EFAULT):
		return 0, nil
	case err != nil:
		return 0, err
	}
	p.drop()
	return p.n, nil
}

// readMessages reads datagrams, also of no bytes. SO_PEEK_OFF passes over an
// empty one that was peeked at before (__skb_try_recv_from_queue of
// net/core/datagram.c), so that the first one is looked at without it.
func (l *unixLook) readMessages(u *savedUnix) error {
	ends := u.rec.Type == unix.SOCK_SEQPACKET && u.rec.Shutdown&rcvShutdown != 0
	if ends {
		// The end looks like an empty message, but for the credentials.
		if err := l.borrow(u, unix.SO_PASSCRED, 1); err != nil {
			return err
		}
	}
	for at, first := 0, true; ; {
		p, err := u.peek(l.buf)
		if errors.Is(err, unix.EAGAIN) {
			return nil
		}
		if err != nil {
			return err
		}
		switch {
		case p.n == 0 && ends && p.creds == nil:
			return nil
		case p.short:
			p.drop()
			l.buf = make([]byte, p.n)
			if err := u.seek(at); err != nil {
				return err
			}
			continue
		case first && p.n > 0:
			p.drop()
		default:
			if err := l.keep(u, p, append([]byte(nil), l.buf[:p.n]...)); err != nil {
				return err
			}
			at += p.n
		}
		if first {
			first = false
			if err := u.seek(0); err != nil {
				return err
			}
		}
	}
}

const rcvShutdown, sendShutdown = 1, 2 // RCV_SHUTDOWN, SEND_SHUTDOWN

// keep adds a message to what the socket has, and lends its open files to the
// process. Ours are closed: the process must be the only one to have them.
func (l *unixLook) keep(u *savedUnix, p *peeked, data []byte) error {
	defer p.drop()
	m := &unixMessage{from: p.from, data: data}
	m.rec.Bytes, m.rec.Rights = uint32(len(data)), uint32(len(p.rights))
	u.messages = append(u.messages, m)
	if passes, _ := u.rec.option(unix.SO_PASSCRED); passes != 0 && p.creds != nil && p.creds.Pid != 0 {
		if p.creds.Pid != int32(l.v.PID) {
			l.refuse(u, fault.UnixQueue, "it has a message of pid %d", p.creds.Pid)
		}
		var err error
		m.rec.Creds = 1
		if m.rec.UID, m.rec.GID, err = l.v.idsInside(p.creds.Uid, p.creds.Gid); err != nil {
			return err
		}
	}
	for len(p.rights) > 0 {
		file := os.NewFile(uintptr(p.rights[0]), "open file of a message")
		p.rights = p.rights[1:]
		fd, err := l.lend(file)
		if err = errors.Join(err, file.Close()); err != nil {
			return err
		}
		m.rights = append(m.rights, fd)
	}
	for _, fd := range m.rights {
		f, err := l.v.Proc.FD(fd)
		if err != nil {
			return err
		}
		if err := l.add(*f); err != nil {
			return err
		}
	}
	return nil
}

// dumpUnixQueues writes what is on its way.
func dumpUnixQueues(s *Saver) error {
	for _, u := range s.unix.stopped {
		if len(u.messages) == 0 {
			continue
		}
		if err := s.W.Put(0, &unixQueueRecord{Ino: u.rec.Ino, Messages: uint32(len(u.messages))}); err != nil {
			return err
		}
		for _, m := range u.messages {
			if err := m.dump(s); err != nil {
				return err
			}
		}
	}
	return nil
}

func (m *unixMessage) dump(s *Saver) error {
	if err := s.W.Put(0, &m.rec); err != nil {
		return err
	}
	for data := m.data; len(data) > 0; {
		n := min(len(data), pieceOfPipe)
		if err := s.W.Put(0, &image.Buffer{Data: data[:n]}); err != nil {
			return err
		}
		data = data[n:]
	}
	for _, fd := range m.rights {
		i := slices.IndexFunc(s.FDs, func(f procfs.FD) bool { return f.Number == fd })
		ref, dump, err := s.openFile(&s.FDs[i])
		if err != nil {
			return err
		}
		if err := s.W.Put(0, &unixRightRecord{File: uint32(ref)}); err != nil {
			return err
		}
		if err := dump(); err != nil {
			return fmt.Errorf("save an open file of a message: %w", err)
		}
	}
	return nil
}
