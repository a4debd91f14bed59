package resource

import (
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

// unixLook is how the unix sockets of a process are found and read: those
// behind its descriptors, and, once it stands, those on their way in the
// others' queues.
type unixLook struct {
	v       *View
	s       *Saver                  // nil while it runs
	ours    func(f *procfs.FD) bool // tells which are to be saved
	diag    *os.File                // of the network namespace of the process
	sockets []*savedUnix
	byIno   map[uint64]*savedUnix
	back    *tracer.Program // puts options back that were borrowed
	refused fault.List
	first   map[uint64]*fault.Error // refusal of each, by inode
	passing bool                    // it runs, and what seems to be elsewhere may be in a message
	buf     []byte                  // for messages
}

// lookAtUnix finds all unix sockets of the stopped process and what is in
// their queues, and refuses what cannot be made again. Open files that are on
// their way are given to the process as descriptors, out of the way of its own,
// so that the other kinds can look at them; if the checkpoint fails, or we die,
// they are closed again.
func lookAtUnix(s *Saver) (err error) {
	any := false
	for i := range s.FDs {
		any = any || !s.covered[s.FDs[i].Number] && s.isUnix(&s.FDs[i])
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
	l := newUnixLook(s.View, func(f *procfs.FD) bool { return kindOf(s.View, f) == &unixSocket })
	l.s, l.diag, l.back, l.buf = s, diag, s.Remote.Program(), make([]byte, 256<<10)
	defer l.close()
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
	l.relatePassed()
	s.unix.stopped = l.sockets
	return l.refused.Err()
}

func newUnixLook(v *View, ours func(f *procfs.FD) bool) *unixLook {
	return &unixLook{v: v, ours: ours, byIno: make(map[uint64]*savedUnix), first: make(map[uint64]*fault.Error)}
}

func (l *unixLook) close() {
	for _, u := range l.sockets {
		unix.Close(u.own)
	}
}

// surveyUnix returns what can be refused, by inode, without a touch: nothing
// is received, and no option set. What it cannot see, it leaves to lookAtUnix.
func (v *View) surveyUnix() map[uint64]*fault.Error {
	if v.unix.refused != nil {
		return v.unix.refused
	}
	l := newUnixLook(v, func(f *procfs.FD) bool { return matchUnix(v, f) && v.unixFact(f.Ino) != nil })
	defer l.close()
	v.unix.refused = l.first
	l.passing = v.anyUnixQueue()
	for i := range v.FDs {
		_ = l.add(v.FDs[i]) // what goes wrong, unless it was closed meanwhile, will again
	}
	for _, u := range l.sockets {
		_ = l.readQueue(u)
	}
	l.relate()
	return l.first
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
	l.refusal(u, &fault.Error{Code: code, Detail: fmt.Sprintf(format, args...)})
}

func (l *unixLook) refusal(u *savedUnix, refusal *fault.Error) {
	refusal.Object = l.v.FDName(u.fd.Number)
	l.refused = append(l.refused, refusal)
	if l.first[u.fd.Ino] == nil {
		l.first[u.fd.Ino] = refusal
	}
}

// add looks at what is behind a descriptor, if it is a unix socket of which
// nothing is known yet.
func (l *unixLook) add(f procfs.FD) error {
	if l.v.covered[f.Number] || !l.v.isUnix(&f) || l.byIno[f.Ino] != nil || !l.ours(&f) {
		return nil
	}
	fact, err := l.v.unixFact(f.Ino), error(nil)
	if fact == nil {
		fact, err = askUnix(l.diag, f.Ino)
		l.v.unix.facts[f.Ino] = fact
	}
	if err != nil {
		l.refused = append(l.refused, &fault.Error{Code: fault.UnixNamespace, Object: l.v.FDName(f.Number), Err: err})
		return nil
	}
	own, err := l.v.duplicate(f.Number)
	if err != nil {
		return err
	}
	u := &savedUnix{fd: f, fact: fact, own: own}
	l.sockets = append(l.sockets, u)
	l.byIno[f.Ino] = u
	if err := l.readState(u); err != nil {
		return fmt.Errorf("look at %s: %w", l.v.FDName(f.Number), err)
	}
	return nil
}

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
	if err := u.readOptions(); err != nil {
		return err
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
	// Who has bound it to a relative name may be any process of the tree.
	begin, from := "root", []*View{l.v}
	if !path.IsAbs(string(name)) {
		begin, from = "cwd", l.v.together()
	}
	for _, v := range from {
		var st unix.Stat_t
		err := unix.Lstat(fmt.Sprintf("/proc/%d/%s/%s", v.PID, begin, name), &st)
		if err != nil || st.Mode&unix.S_IFMT != unix.S_IFSOCK || uint32(st.Ino) != u.fact.FileIno || st.Dev != u.fact.FileDev {
			continue
		}
		if u.dir, err = v.Proc.Link(begin); err != nil {
			return err
		}
		u.rec.Mode = st.Mode & 0o7777
		u.rec.UID, u.rec.GID, err = l.v.idsInside(st.Uid, st.Gid)
		return err
	}
	var err error
	if u.dir, err = l.v.Proc.Link(begin); err != nil {
		return err
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

// lend gives the process a descriptor of an open file that is on its way in a
// message.
func (l *unixLook) lend(file *os.File) (int32, error) {
	v := l.v
	fd, err := v.lend(l.s.Remote, file)
	if err != nil {
		return 0, err
	}
	if v.unix.extra == nil {
		v.unix.extra = make(map[int32]bool)
	}
	v.unix.extra[fd] = true
	return fd, nil
}

// lend gives the process, which is borrowed, a descriptor above all of its own.
func (v *View) lend(r *tracer.Remote, file *os.File) (int32, error) {
	low, err := r.SendFD(file)
	if err != nil {
		return 0, err
	}
	high := int32(0)
	for i := range v.FDs {
		high = max(high, v.FDs[i].Number+1)
	}
	p := r.Program()
	row := p.Fcntl(low, unix.F_DUPFD_CLOEXEC, tracer.Imm(uint64(high)))
	row.Undo(unix.SYS_CLOSE, row)
	p.Close(low)
	if err := p.Run(); err != nil {
		return 0, fmt.Errorf("place an open file: %w", err)
	}
	f, err := v.Proc.FD(int32(row.FD()))
	if err != nil {
		return 0, err
	}
	v.FDs = append(v.FDs, *f)
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
