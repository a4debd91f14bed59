package resource

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// savedUnix is a unix socket of a process that stands still.
type savedUnix struct {
	fd       procfs.FD // one by which the process has it
	fact     *unixFact
	rec      unixSocketRecord
	dir      string // directory that a name with a file begins at
	own      int    // our descriptor of it
	messages []*unixMessage
}

// unixLook is how the unix sockets of a stopped process are found and read:
// those behind its descriptors, and those on their way in the others' queues.
type unixLook struct {
	s       *Saver
	diag    *os.File // of the network namespace of the process
	sockets []*savedUnix
	byIno   map[uint64]*savedUnix
	back    *tracer.Program // puts options back that were borrowed
	refused fault.List
	buf     []byte // for messages
}

// lookAtUnix finds all unix sockets of the stopped process and what is in
// their queues, and refuses what cannot be made again. Open files that are on
// their way are given to the process as descriptors, out of the way of its own,
// so that the other kinds can look at them; if the checkpoint fails, or we die,
// they are closed again.
func lookAtUnix(s *Saver) (err error) {
	any := false
	for i := range s.FDs {
		any = any || s.isUnix(&s.FDs[i])
	}
	if !any {
		return nil
	}
	diag, err := takeUnixDiag(s)
	if err != nil {
		return err
	}
	defer func() { _ = diag.Close() }() // only asked
	if s.unix.facts, err = readUnixFacts(diag); err != nil {
		return fmt.Errorf("look at sockets of %s: %w", s.Name(), err)
	}
	l := &unixLook{s: s, diag: diag, byIno: make(map[uint64]*savedUnix), back: s.Remote.Program(), buf: make([]byte, 256<<10)}
	defer func() {
		for _, u := range l.sockets {
			unix.Close(u.own)
		}
	}()
	for i := range s.FDs {
		if err := l.add(s.FDs[i]); err != nil {
			return err
		}
	}
	for i := 0; i < len(l.sockets); i++ { // reading one may add others
		if err := l.readQueue(l.sockets[i]); err != nil {
			return fmt.Errorf("look into %s: %w", s.FDName(l.sockets[i].fd.Number), err)
		}
	}
	if err := l.back.Run(); err != nil {
		return fmt.Errorf("put back options of sockets of %s: %w", s.Name(), err)
	}
	l.relate()
	s.unix.stopped = l.sockets
	return l.refused.Err()
}

// takeUnixDiag has the process open the socket: unix_diag tells about the
// network namespace of whoever made it.
func takeUnixDiag(s *Saver) (*os.File, error) {
	p := s.Remote.Program()
	row := p.Call(unix.SYS_SOCKET, tracer.Imm(unix.AF_NETLINK), tracer.Imm(unix.SOCK_RAW|unix.SOCK_CLOEXEC), tracer.Imm(unix.NETLINK_SOCK_DIAG))
	undo := row.Undo(unix.SYS_CLOSE, row)
	if err := p.Run(); err != nil {
		return nil, &fault.Error{Code: fault.UnixNamespace, Object: s.Name(), Err: err}
	}
	diag, err := s.Remote.TakeFD(row.FD())
	p = s.Remote.Program()
	p.Close(row.FD())
	p.Forget(undo)
	if err = errors.Join(err, p.Run()); err != nil {
		return nil, fmt.Errorf("take socket for unix_diag from %s: %w", s.Name(), err)
	}
	return diag, nil
}

func (l *unixLook) refuse(u *savedUnix, code fault.Code, format string, args ...any) {
	l.refused = append(l.refused, &fault.Error{Code: code, Object: l.s.FDName(u.fd.Number), Detail: fmt.Sprintf(format, args...)})
}

// add looks at what is behind a descriptor, if it is a unix socket of which
// nothing is known yet.
func (l *unixLook) add(f procfs.FD) error {
	if !l.s.isUnix(&f) || l.byIno[f.Ino] != nil || kindOf(l.s.View, &f) != &unixSocket {
		return nil
	}
	fact, err := l.s.unix.facts[f.Ino], error(nil)
	if fact == nil {
		fact, err = askUnix(l.diag, f.Ino)
		l.s.unix.facts[f.Ino] = fact
	}
	if err != nil {
		l.refused = append(l.refused, &fault.Error{Code: fault.UnixNamespace, Object: l.s.FDName(f.Number), Err: err})
		return nil
	}
	own, err := l.s.duplicate(f.Number)
	if err != nil {
		return err
	}
	u := &savedUnix{fd: f, fact: fact, own: own}
	l.sockets = append(l.sockets, u)
	l.byIno[f.Ino] = u
	if err := l.readState(u); err != nil {
		return fmt.Errorf("look at %s: %w", l.s.FDName(f.Number), err)
	}
	return nil
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

// readState reads everything but the queue.
func (l *unixLook) readState(u *savedUnix) error {
	kind, err := unix.GetsockoptInt(u.own, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return err
	}
	peer, err := unix.GetsockoptUcred(u.own, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return err
	}
	u.rec = unixSocketRecord{Ino: u.fd.Ino, Peer: u.fact.Peer, Type: uint32(kind), Shutdown: uint32(u.fact.Shutdown), Backlog: u.fact.Backlog,
		PeerUID: peer.Uid, PeerGID: peer.Gid}
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
	if n, err := sockopt(u.own, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, nil); err != nil || n > 0 { // SO_GET_FILTER: how many instructions
		l.refuse(u, fault.UnixState, "it has a packet filter")
	}
	return l.readName(u)
}

// readName finds out about the file that belongs to the name.
func (l *unixLook) readName(u *savedUnix) error {
	name := u.fact.Name
	if len(name) == 0 {
		return nil
	}
	u.rec.Named = unixAbstract
	if name[0] == 0 {
		name = name[1:]
	} else {
		u.rec.Named = unixPath
		if name[len(name)-1] == 0 { // not if it has all 108 bytes
			name = name[:len(name)-1]
		}
	}
	if len(name) > sunPathSize {
		return fmt.Errorf("name of %d bytes: %w", len(name), unix.ENAMETOOLONG)
	}
	u.rec.NameLen = uint32(copy(u.rec.Name[:], name))
	if u.rec.Named == unixAbstract {
		return nil
	}
	begin := "root"
	if !path.IsAbs(string(name)) {
		begin = "cwd"
	}
	var err error
	if u.dir, err = l.s.Proc.Link(begin); err != nil {
		return err
	}
	var st unix.Stat_t
	err = unix.Lstat(fmt.Sprintf("/proc/%d/%s/%s", l.s.PID, begin, name), &st)
	if err == nil && st.Mode&unix.S_IFMT == unix.S_IFSOCK && uint32(st.Ino) == u.fact.FileIno && st.Dev == u.fact.FileDev {
		u.rec.Mode, u.rec.UID, u.rec.GID = st.Mode&0o7777, st.Uid, st.Gid
		return nil
	}
	l.findFile(u, begin == "cwd")
	return nil
}

// findFile decides about a name that does not lead to the socket. It was
// removed or renamed, or began at a directory that was left since. The kernel
// tells (SIOCUNIXFILE of unix(7), Linux 4.15) only who has CAP_NET_ADMIN.
func (l *unixLook) findFile(u *savedUnix, relative bool) {
	u.rec.Named = unixDeleted
	fd, err := unix.IoctlRetInt(u.own, sioCUnixFile)
	if err == nil {
		defer unix.Close(fd)
		var st unix.Stat_t
		if err = unix.Fstat(fd, &st); err == nil && st.Nlink > 0 {
			now, _ := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd)) // for people to read
			l.refuse(u, fault.UnixName, "%s is now %s", u.rec.name(), now)
		}
	}
	// Without the kernel's word it matters only where the file is still good for
	// something: to find the socket by.
	if err != nil && (relative || u.fact.State == tcpListen || u.rec.Type == unix.SOCK_DGRAM && !u.fact.Connected) {
		l.refuse(u, fault.UnixName, "%s does not lead to it", u.rec.name())
	}
}

const sioCUnixFile = 0x89e0 // SIOCUNIXFILE, <linux/un.h>

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

// lend gives the process a descriptor of an open file that is on its way in a
// message, above all of its own, and returns what /proc says of it.
func (l *unixLook) lend(file *os.File) (int32, error) {
	v := l.s.View
	low, err := l.s.Remote.SendFD(file)
	if err != nil {
		return 0, err
	}
	high := int32(0)
	for i := range v.FDs {
		high = max(high, v.FDs[i].Number+1)
	}
	p := l.s.Remote.Program()
	row := p.Fcntl(low, unix.F_DUPFD_CLOEXEC, tracer.Imm(uint64(high)))
	row.Undo(unix.SYS_CLOSE, row)
	p.Close(low)
	if err := p.Run(); err != nil {
		return 0, fmt.Errorf("place an open file of a message: %w", err)
	}
	f, err := v.Proc.FD(int32(row.FD()))
	if err != nil {
		return 0, err
	}
	v.FDs = append(v.FDs, *f)
	if v.unix.extra == nil {
		v.unix.extra = make(map[int32]bool)
	}
	v.unix.extra[f.Number] = true
	return f.Number, nil
}

// returnLent closes what lend has given.
func returnLent(s *Saver) error {
	if len(s.unix.extra) == 0 {
		return nil
	}
	p := s.Remote.Program()
	for fd := range s.unix.extra {
		p.Close(tracer.FD(fd))
	}
	return p.Run()
}
