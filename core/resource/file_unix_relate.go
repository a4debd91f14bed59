package resource

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/tracer/procfs"
)

// relate finds out how the sockets belong together, and refuses what has
// others than these, or what could not be told to the kernel again.
func (l *unixLook) relate() {
	for _, u := range l.sockets {
		if u.fact.State == tcpListen {
			u.rec.State = unixListening
			l.relateWaiting(u)
		}
	}
	for _, u := range l.sockets {
		if u.rec.State == unixAlone && u.fact.Connected {
			l.relatePeer(u)
		}
	}
	l.relateNames()
	if l.s == nil {
		return
	}
	for _, u := range l.sockets {
		l.relateMessages(u)
	}
}

// relatePassed looks at the open files that are in messages.
func (l *unixLook) relatePassed() {
	for i := range l.v.FDs {
		f := &l.v.FDs[i]
		if !l.v.unix.extra[f.Number] {
			continue
		}
		if refusal := refusePassed(l.v, f); refusal != nil {
			refusal.Object = "open file in a message to " + l.v.Name()
			l.refused = append(l.refused, refusal)
		}
	}
}

// refusePassed names why an open file in a message cannot be saved.
func refusePassed(v *View, f *procfs.FD) *fault.Error {
	for i := range v.FDs {
		o := &v.FDs[i]
		if v.unix.extra[o.Number] || o.Dev != f.Dev || o.Ino != f.Ino {
			continue
		}
		if order, err := kcmp(v.PID, v.PID, kcmpFile, o.Number, f.Number); err == nil && order == 0 {
			return nil // it has been asked about
		}
	}
	kind := kindOf(v, f)
	if refusal := kind.Refuse(v, f); refusal != nil {
		return refusal
	}
	// What becomes of these is settled by descriptor, and it has none.
	owner, err := v.ownerOf(f)
	if kind == &external || kind == &epoll || err != nil || owner != nil || len(f.Values("lock")) > 0 {
		return &fault.Error{Code: fault.UnixQueue, Detail: f.Target, Err: err}
	}
	return nil
}

// relateWaiting looks at the connections that the listening socket has not
// accepted. What was written to them nobody can look at.
func (l *unixLook) relateWaiting(u *savedUnix) {
	for i, ino := range u.fact.Waiting {
		w := l.byIno[ino]
		if w == nil && l.passing {
			continue
		}
		if w == nil {
			detail := "from another process"
			if pid, err := holderOf(fmt.Sprintf("socket:[%d]", ino)); err == nil && pid != 0 {
				detail = fmt.Sprintf("from pid %d", pid)
			}
			l.refuse(u, fault.UnixBacklog, "%s", detail)
			continue
		}
		w.rec.State, w.rec.Listener, w.rec.Turn = unixWaiting, u.rec.Ino, uint32(i)
		if unread, err := unix.IoctlGetInt(w.own, unix.SIOCOUTQ); err != nil || unread != 0 {
			l.refuse(u, fault.UnixBacklog, "written to by %s", l.v.FDName(w.fd.Number))
		}
	}
}

func (l *unixLook) relatePeer(u *savedUnix) {
	peer := l.byIno[u.fact.Peer]
	mutual := peer != nil && peer.fact.Peer == u.rec.Ino
	datagram := u.rec.Type == unix.SOCK_DGRAM
	switch {
	case mutual:
		u.rec.State = unixConnected
	case u.fact.Peer == 0 && (datagram || u.rec.Shutdown == rcvShutdown|sendShutdown):
		u.rec.State = unixOrphaned
	case u.fact.Peer == 0:
		l.refuse(u, fault.UnixPeer, "it waits to be accepted by another process")
	case peer == nil && l.passing:
	case peer == nil:
		l.refusal(u, l.v.unixPeerElsewhere(u.fact.Peer))
	case peer.rec.Named == unixNoName:
		l.refuse(u, fault.UnixState, "it is connected to %s, which has no name", l.v.FDName(peer.fd.Number))
	default:
		u.rec.State = unixConnected
	}
}

// unixKey is equal for sockets that only one of can be bound.
type unixKey struct {
	name string
	kind uint32 // abstract names are apart by type, those of files are not
}

func (u *savedUnix) key() unixKey {
	if u.rec.Named == unixAbstract {
		return unixKey{string(u.fact.Name), u.rec.Type}
	}
	return unixKey{string(u.fact.Name), 0}
}

// relateNames finds the listening socket that others have their names from:
// what accept(2) returns has that of the listening socket.
func (l *unixLook) relateNames() {
	bound := make(map[unixKey]*savedUnix)
	for _, u := range l.sockets {
		if u.rec.State == unixListening && u.rec.Named != unixNoName && bound[u.key()] == nil {
			bound[u.key()] = u
		}
	}
	for _, u := range l.sockets {
		if u.rec.Named == unixNoName || bound[u.key()] == u {
			continue
		}
		other := bound[u.key()]
		accepted := other != nil && other.rec.State == unixListening && other.rec.Type == u.rec.Type &&
			other.fact.FileIno == u.fact.FileIno && (u.rec.State == unixConnected || u.rec.State == unixOrphaned)
		switch {
		case other == nil:
			bound[u.key()] = u
		case accepted:
			u.rec.Listener = other.rec.Ino
		default:
			l.refuse(u, fault.UnixName, "%s has the same, %s", l.v.FDName(other.fd.Number), u.rec.label())
		}
	}
}

// relateMessages finds the senders: the peer, or whoever has the address that
// comes with a datagram.
func (l *unixLook) relateMessages(u *savedUnix) {
	if len(u.messages) == 0 || u.rec.Type != unix.SOCK_DGRAM {
		l.missing(u)
		return
	}
	peer := l.byIno[u.fact.Peer]
	mutual := peer != nil && peer.fact.Peer == u.rec.Ino
	for _, m := range u.messages {
		if m.from == "" {
			if !mutual && u.rec.State != unixOrphaned && u.rec.Named == unixNoName {
				l.refuse(u, fault.UnixQueue, "it has a message of a socket that is not connected to it")
			}
			continue
		}
		var sender *savedUnix
		for _, o := range l.sockets {
			if o.rec.Type == unix.SOCK_DGRAM && string(o.fact.Name) == m.from {
				sender = o
			}
		}
		switch {
		case sender == nil:
			l.refuse(u, fault.UnixQueue, "it has a message from %q", m.from)
		case u.rec.Named == unixNoName && !(mutual && sender == peer):
			l.refuse(u, fault.UnixQueue, "it has a message of a socket that is not connected to it")
		default:
			m.rec.Sender = sender.rec.Ino
		}
	}
	l.missing(u)
}

// missing refuses a queue that holds empty messages that nobody can look at:
// SO_PEEK_OFF passes over one that the process, or a checkpoint, has peeked at
// already. The sender is charged for them, and so for each as much as a copy
// of the queue and so many empty ones are.
func (l *unixLook) missing(u *savedUnix) {
	peer := l.byIno[u.fact.Peer]
	if u.rec.Type == unix.SOCK_STREAM || u.rec.State != unixConnected || peer == nil || peer.fact.Peer != u.rec.Ino {
		return
	}
	charged, err := unix.IoctlGetInt(peer.own, unix.SIOCOUTQ)
	if err != nil || charged == 0 {
		return
	}
	all, one, err := chargeOf(u)
	if err == nil && charged > all && (charged-all)%one == 0 {
		l.refuse(u, fault.UnixQueue, "it has empty messages that were peeked at")
	}
}

// chargeOf returns what a sender is charged for such a queue, and for an empty
// message.
func chargeOf(u *savedUnix) (all, one int, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, int(u.rec.Type)|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return 0, 0, err
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	if err := unix.SetsockoptInt(pair[0], unix.SOL_SOCKET, unix.SO_SNDBUF, 1<<30); err != nil {
		return 0, 0, err
	}
	if err := unix.Sendmsg(pair[0], nil, nil, nil, 0); err != nil {
		return 0, 0, err
	}
	if one, err = unix.IoctlGetInt(pair[0], unix.SIOCOUTQ); err != nil {
		return 0, 0, err
	}
	for _, m := range u.messages {
		if err := unix.Sendmsg(pair[0], m.data, nil, nil, 0); err != nil {
			return 0, 0, err
		}
	}
	all, err = unix.IoctlGetInt(pair[0], unix.SIOCOUTQ)
	return all - one, one, err
}
