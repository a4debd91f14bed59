package resource

import (
	"errors"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// A thread that has called unshare(CLONE_FS) has a working directory and an umask
// of its own, as those of file servers do.

const threadPlaceKind image.Kind = 6222

// threadPlace is where such a thread stands.
type threadPlace struct {
	Umask uint32 `fmt:"oct"`
	_     [4]byte
	Path  string `doc:"working directory"`
}

// ownPlace notes a thread that has directories of its own. The root directory and
// the mount namespace must be those of the process: those a thread cannot have
// alone again.
func (v *View) ownPlace(tid procfs.PID) error {
	proc, err := procfs.OpenThread(v.PID, tid)
	if err != nil {
		return err
	}
	defer proc.Close()
	root, err := proc.Link("root")
	if err != nil {
		return err
	}
	cwd, err := proc.Link("cwd")
	if err != nil {
		return err
	}
	mounts, err := proc.NS("mnt")
	if err != nil {
		return err
	}
	common, err := v.Namespace("mnt")
	switch {
	case err != nil:
		return err
	case root != v.Root:
		return errors.New("root directory " + root)
	case mounts != common:
		return errors.New("in another mount namespace")
	case strings.HasSuffix(cwd, " (deleted)"):
		return errors.New(cwd)
	}
	if v.places == nil {
		v.places = make(map[procfs.PID]string)
	}
	v.places[tid] = cwd
	return nil
}

// dumpPlace writes it, if there is one.
func (t *SavedThread) dumpPlace(s *Saver) error {
	cwd, own := s.places[t.TID]
	if !own {
		return nil
	}
	return s.W.Put(t.owner(), &threadPlace{Umask: t.Status.Umask, Path: cwd})
}

// stagedPlace is the directory, open until the thread stands there.
type stagedPlace struct {
	umask uint32
	dir   *stagedFile
}

func loadThreadPlace(b *Builder) (*stagedPlace, error) {
	if kind, err := b.R.Peek(); err != nil || kind != threadPlaceKind {
		return nil, err
	}
	rec, _, err := image.Expect[threadPlace](b.R)
	if err != nil {
		return nil, err
	}
	if err := b.allowFiles(uint64(len(b.fds.open))+1, rec.Path); err != nil {
		return nil, err
	}
	dir, err := b.openDirectory(rec.Path)
	if err != nil {
		return nil, err
	}
	// All of the process's own numbers are taken by now, or are the caller's: this
	// one is nobody's, and can stay open beyond the commit of the descriptors.
	if b.late == nil {
		b.late = make(map[int32]bool)
	}
	b.late[int32(dir.fd)] = true
	return &stagedPlace{rec.Umask & 0o777, dir}, nil
}

// commit adds what the thread does for that: it comes behind all that its leader
// does, whose directories it has at first.
func (l *stagedPlace) commit(b *Builder, p *tracer.Program) {
	p.Call(unix.SYS_UNSHARE, tracer.Imm(unix.CLONE_FS))
	p.Fchdir(l.dir.fd)
	p.Umask(l.umask)
	p.Close(l.dir.fd)
	b.fds.drop(l.dir.fd)
}

// openDirectory adds the opening of a directory, to go there. fchdir wants search
// permission, which opening with O_PATH does not: that is asked for while it can
// still be refused.
func (b *Builder) openDirectory(path string) (*stagedFile, error) {
	dir, err := b.openFile(path, unix.O_PATH|unix.O_DIRECTORY, fault.Directory)
	if err != nil {
		return nil, err
	}
	const atEmptyPath, atEaccess = 0x1000, 0x200
	row := b.Stage().Call(unix.SYS_FACCESSAT2, dir.arg(), tracer.Imm(uint64(b.Stage().String(""))), tracer.Imm(unix.X_OK), tracer.Imm(atEmptyPath|atEaccess))
	b.Expect(row, fault.Directory, path)
	return dir, nil
}
