package resource

import (
	"encoding/binary"
	"errors"
	"fmt"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// unixFile is a socket file that bind(2) is to make. What stands in its place
// today is removed only if it is a socket that nobody has any more, and only
// by the commit: until then it lies aside in the same directory, and whatever
// ends the stage puts it back.
type unixFile struct {
	u       *stagedUnix
	begin   string      // directory that a relative name begins at; root directory of an absolute one
	from    *stagedFile // begin, of a relative name
	dir     *stagedFile // directory that it lies in
	name    text        // within that directory
	aside   text        // of what was found there; empty if nothing was
	found   uint64      // inode of that
	moved   tracer.Addr // struct statx of what was moved
	unbind  *tracer.Undo
	putBack *tracer.Undo
}

// text is a string that lies in the caller's memory through the stage: undo
// calls take it from there.
type text struct {
	s  string
	at tracer.Addr
}

func (t text) arg() tracer.Arg { return tracer.Ptr(t.at) }

// link is a name by which the stage finds the file.
func (f *unixFile) link() string { return fmt.Sprintf("/proc/self/fd/%d/%s", f.dir.fd, f.name.s) }

// probe is what the stage saw of the place of a file.
type probe struct {
	connect, stat *tracer.Row
	statx         tracer.Addr
}

const (
	statxSize     = 256 // struct statx
	statxModeAt   = 28
	statxInoAt    = 32
	asidePrefix   = ".crshim-"
	renameNoClash = 1 // RENAME_NOREPLACE
)

// openFiles opens the directories and looks at what is there.
func (r *unixRestore) openFiles(b *Builder) error {
	if len(r.files) == 0 {
		return nil
	}
	if b.rootFile != nil {
		return &fault.Error{Code: fault.UnixNamed, Object: r.files[0].u.rec.label(), Detail: "it begins at another root directory", Err: unix.EXDEV}
	}
	for _, f := range r.files {
		if err := f.openDir(b); err != nil {
			return err
		}
	}
	prober := b.unixSocket(&unixSocketRecord{Type: unix.SOCK_DGRAM})
	p := b.Stage()
	probes := make([]probe, len(r.files))
	for i, f := range r.files {
		address := unixAddress(f.link())
		if len(address) > 2+sunPathSize {
			return f.u.rec.bad("its name is too long")
		}
		// To a datagram socket, a living stream socket is of the wrong type even
		// if it does not listen.
		connect := p.Call(unix.SYS_CONNECT, prober.fd, tracer.Ptr(p.Bytes(address)), tracer.Imm(uint64(len(address)))).Tolerate()
		stat, at := f.statx(p, p.String(f.name.s))
		probes[i] = probe{connect: connect, stat: stat.Tolerate(), statx: at}
	}
	p.Close(prober.fd)
	b.fds.drop(prober.fd)
	if err := b.Flush(); err != nil {
		return err
	}
	taken := make(map[string]bool)
	for i, f := range r.files {
		if f.u.rec.Listener != 0 && f.u.rec.State != unixWaiting {
			continue // has its name from the listening socket
		}
		if taken[f.path()] {
			return f.u.rec.bad("another socket has the same name")
		}
		taken[f.path()] = true
		if err := f.judge(b, &probes[i]); err != nil {
			return err
		}
	}
	return r.keepTexts(b)
}

// path is the whole name, as it was bound: "..", behind a link, is elsewhere
// than it reads.
func (f *unixFile) path() string {
	return strings.TrimSuffix(f.begin, "/") + "/" + strings.TrimPrefix(f.u.rec.name(), "/")
}

// openDir opens the directory of the file.
func (f *unixFile) openDir(b *Builder) (err error) {
	full := f.path()
	slash := strings.LastIndex(full, "/")
	f.name.s = full[slash+1:]
	if !path.IsAbs(f.begin) || f.name.s == "" || f.name.s == "." || f.name.s == ".." {
		return f.u.rec.bad("begins at %q", f.begin)
	}
	const flags = unix.O_PATH | unix.O_DIRECTORY
	if f.dir, err = b.openFile(full[:max(slash, 1)], flags, fault.UnixNamed); err != nil || path.IsAbs(f.u.rec.name()) {
		return err
	}
	f.from, err = b.openFile(f.begin, flags, fault.UnixNamed)
	return err
}

// judge decides whether the place is free, or can be made so.
func (f *unixFile) judge(b *Builder, p *probe) error {
	failed := p.connect.Err()
	if errors.Is(failed, unix.ENOENT) && errors.Is(p.stat.Err(), unix.ENOENT) {
		return nil
	}
	taken := &fault.Error{Code: fault.UnixNameTaken, Object: f.u.rec.label(), Err: failed}
	if !errors.Is(failed, unix.ECONNREFUSED) || p.stat.Err() != nil {
		return taken
	}
	st := make([]byte, statxSize)
	if err := b.Remote.ReadMem(p.statx, st); err != nil {
		return err
	}
	if binary.NativeEndian.Uint16(st[statxModeAt:])&unix.S_IFMT != unix.S_IFSOCK {
		taken.Detail = "by a file that is not a socket"
		return taken
	}
	f.found = binary.NativeEndian.Uint64(st[statxInoAt:])
	f.aside.s = fmt.Sprintf("%s%d", asidePrefix, f.found)
	return nil
}

// statx looks at a name in the directory of the file.
func (f *unixFile) statx(p *tracer.Program, name tracer.Addr) (*tracer.Row, tracer.Addr) {
	at := p.Buffer(statxSize)
	return p.Call(unix.SYS_STATX, f.dir.arg(), tracer.Ptr(name), tracer.Imm(unix.AT_SYMLINK_NOFOLLOW),
		tracer.Imm(unix.STATX_TYPE|unix.STATX_INO), tracer.Ptr(at)), at
}

// checkAside makes sure, once the stage has moved it, that what lies aside is
// what was judged: a socket that nobody has never finds anybody again, but
// another one may have taken its name.
func (f *unixFile) checkAside(b *Builder) error {
	if f.aside.s == "" {
		return nil
	}
	st := make([]byte, statxSize)
	if err := b.Remote.ReadMem(f.moved, st); err != nil {
		return err
	}
	if binary.NativeEndian.Uint64(st[statxInoAt:]) != f.found {
		return &fault.Error{Code: fault.UnixNameTaken, Object: f.u.rec.label(), Err: unix.EADDRINUSE}
	}
	return nil
}

// keepTexts puts the names where undo calls find them.
func (r *unixRestore) keepTexts(b *Builder) error {
	var data []byte
	var texts []*text
	var offsets []int
	for _, f := range r.files {
		for _, t := range []*text{&f.name, &f.aside} {
			texts, offsets = append(texts, t), append(offsets, len(data))
			data = append(append(data, t.s...), 0)
		}
	}
	size := (uint64(len(data)) + procfs.PageSize - 1) &^ (procfs.PageSize - 1)
	at, ok := b.Layout.Find(size, 0, procfs.PageSize)
	if !ok {
		return &fault.Error{Code: fault.StageRoom, Object: b.Caller.Name()}
	}
	b.Layout.Occupy(at)
	r.texts = at
	row := b.Stage().Mmap(at, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|mapFixedNoReplace, tracer.FD(-1), 0)
	b.Expect(row, fault.StageMemory, "names of unix sockets")
	if err := b.Flush(); err != nil {
		return err
	}
	for i, t := range texts {
		t.at = at.Start + tracer.Addr(offsets[i])
	}
	return b.Remote.WriteMem(at.Start, data)
}

// bind gives a socket its name.
func (r *unixRestore) bind(b *Builder, u *stagedUnix) error {
	p := b.Stage()
	if u.file == nil {
		address := u.address()
		row := p.Call(unix.SYS_BIND, u.open.fd, tracer.Ptr(p.Bytes(address)), tracer.Imm(uint64(len(address))))
		b.Expect(row, fault.UnixNameTaken, u.rec.label())
		return nil
	}
	return u.file.bind(b)
}

// bind makes the file. The name is bound as it is, from where it begins, for
// that is how getsockname(2) and /proc/net/unix tell it; everybody is kept out
// until it has its mode.
func (f *unixFile) bind(b *Builder) error {
	p := b.Stage()
	rec := f.u.rec
	expect := func(row *tracer.Row) *tracer.Row { return b.Expect(row, fault.UnixNamed, rec.label()) }
	dir := f.dir.arg()
	if f.aside.s != "" {
		row := expect(p.Call(unix.SYS_RENAMEAT2, dir, f.name.arg(), dir, f.aside.arg(), tracer.Imm(renameNoClash)))
		f.putBack = row.Undo(unix.SYS_RENAMEAT2, dir, f.aside.arg(), dir, f.name.arg(), tracer.Imm(renameNoClash))
		row, f.moved = f.statx(p, f.aside.at)
		expect(row)
	}
	var here *stagedFile
	var back *tracer.Undo
	if f.from != nil {
		row := p.Openat(tracer.Int(unix.AT_FDCWD), ".", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		here = &stagedFile{fd: b.fds.take(expect(row))}
		back = expect(p.Fchdir(f.from.fd)).Undo(unix.SYS_FCHDIR, here.arg())
	}
	mask := p.Umask(0o777)
	unmask := mask.Undo(unix.SYS_UMASK, mask)
	address := unixAddress(rec.name())
	row := expect(p.Call(unix.SYS_BIND, f.u.open.fd, tracer.Ptr(p.Bytes(address)), tracer.Imm(uint64(len(address)))))
	f.unbind = row.Undo(unix.SYS_UNLINKAT, dir, f.name.arg(), tracer.Imm(0))
	p.Call(unix.SYS_UMASK, mask)
	p.Forget(unmask)
	if here != nil {
		expect(p.Fchdir(here.fd))
		p.Forget(back)
		here.closeStaged(b)
	}
	if rec.Named == unixDeleted {
		return nil
	}
	expect(p.Call(unix.SYS_FCHOWNAT, dir, f.name.arg(), tracer.Imm(uint64(rec.UID)), tracer.Imm(uint64(rec.GID)), tracer.Imm(unix.AT_SYMLINK_NOFOLLOW)))
	expect(p.Call(unix.SYS_FCHMODAT, dir, f.name.arg(), tracer.Imm(uint64(rec.Mode))))
	return nil
}

// remove takes away the file of a name that had none any more, and puts back
// what was in its place.
func (f *unixFile) remove(b *Builder) {
	p := b.Stage()
	b.Expect(p.Call(unix.SYS_UNLINKAT, f.dir.arg(), f.name.arg(), tracer.Imm(0)), fault.UnixNamed, f.u.rec.label())
	p.Forget(f.unbind)
	if f.putBack == nil {
		return
	}
	row := p.Call(unix.SYS_RENAMEAT2, f.dir.arg(), f.aside.arg(), f.dir.arg(), f.name.arg(), tracer.Imm(renameNoClash))
	b.Expect(row, fault.UnixNamed, f.u.rec.label())
	p.Forget(f.putBack)
	f.putBack = nil
}

// commit removes for good what was in the way: a file, if it cannot be, is all
// that would stay.
func (r *unixRestore) commit(p *tracer.Program) {
	for _, f := range r.files {
		if f.putBack != nil {
			p.Call(unix.SYS_UNLINKAT, f.dir.arg(), tracer.Ptr(p.String(f.aside.s)), tracer.Imm(0)).Tolerate()
		}
	}
	if !r.texts.Empty() {
		p.Munmap(r.texts)
	}
}
