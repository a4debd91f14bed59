package resource

import (
	"strings"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/tracer"
)

// filesystem is where the task stands in the file system.
var filesystem = Part{
	Name:    "root and working directory, umask",
	Support: Full,
	Note:    "The directories by name. Another root than the restarter's takes CAP_SYS_CHROOT.",
	Records: []image.Spec{
		image.Row[fsRecord](fsKind, "FS", image.InTask, "file mode creation mask", image.Times(image.OncePerTask)),
		image.Row[rootRecord](rootKind, "FS_ROOT", image.InTask, "root directory; like all names it is seen from the root directory of the supervisor", image.Times(image.OncePerTask)),
		image.Row[cwdRecord](cwdKind, "FS_CWD", image.InTask, "working directory", image.Times(image.OncePerTask)),
	},
	Save:    func() Saving { return filesystemSave{} },
	Restore: func() Restoring { return new(filesystemRestore) },
}

// Our kinds for the file system state.
const (
	fsKind   image.Kind = 6301
	rootKind image.Kind = 6302
	cwdKind  image.Kind = 6303
)

type fsRecord struct {
	Umask uint32 `fmt:"oct"`
	_     [4]byte
}

type rootRecord struct{ Path string }

type cwdRecord struct{ Path string }

type filesystemSave struct{ nothingToAsk }

func (filesystemSave) Survey(v *View) fault.List {
	var list fault.List
	if cwd, err := v.Proc.Link("cwd"); err != nil || strings.HasSuffix(cwd, " (deleted)") {
		list = append(list, &fault.Error{Code: fault.DirectoryGone, Object: v.Name(), Err: err})
	}
	if strings.HasSuffix(v.Root, " (deleted)") {
		list = append(list, &fault.Error{Code: fault.RootUnreachable, Object: v.Name()})
	}
	return list
}

func (filesystemSave) Dump(s *Saver) error {
	cwd, err := s.Proc.Link("cwd")
	if err != nil {
		return err
	}
	if err := s.W.Put(s.vpid(), &fsRecord{Umask: s.Status.Umask}); err != nil {
		return err
	}
	if err := s.W.Put(s.vpid(), &rootRecord{Path: s.Root}); err != nil {
		return err
	}
	return s.W.Put(s.vpid(), &cwdRecord{Path: cwd})
}

type filesystemRestore struct {
	umask uint32
	cwd   *stagedFile
}

func (r *filesystemRestore) Load(b *Builder) error {
	fs, _, err := image.Expect[fsRecord](b.R)
	if err != nil {
		return err
	}
	r.umask = fs.Umask & 0o777
	root, _, err := image.Expect[rootRecord](b.R)
	if err != nil {
		return err
	}
	cwd, _, err := image.Expect[cwdRecord](b.R)
	if err != nil {
		return err
	}
	if b.shares&image.SharesFS != 0 {
		return nil // the parent brings it back
	}
	if err := b.useRoot(root.Path); err != nil {
		return err
	}
	r.cwd, err = b.openDirectory(cwd.Path)
	return err
}

func (r *filesystemRestore) Commit(b *Builder, p *tracer.Program) error {
	if b.shares&image.SharesFS != 0 {
		return nil
	}
	if b.rootFile != nil {
		p.Fchdir(b.rootFile.fd)
		p.Chroot(".")
	}
	p.Fchdir(r.cwd.fd)
	p.Umask(r.umask)
	return nil
}

// useRoot opens the root directory of the image, if the caller has another one.
func (b *Builder) useRoot(path string) error {
	if path == b.Caller.Root {
		return nil
	}
	if !b.capable(capSysChroot) {
		return &fault.Error{Code: fault.Directory, Object: path, Detail: "changing the root directory takes CAP_SYS_CHROOT", Err: unix.EPERM}
	}
	f, err := b.openFile(path, unix.O_PATH|unix.O_DIRECTORY, fault.Directory)
	b.rootFile = f
	return err
}

// named turns a name of the image, which begins at our own root directory, into
// one that begins at the caller's: programs keep using what they had opened and
// mapped before they changed their root, so names may lie outside of it.
func (b *Builder) named(path string) (string, error) {
	root := b.Caller.Root
	switch inside, ok := strings.CutPrefix(path, root); {
	case path == "" || path[0] != '/' || len(path) >= unix.PathMax:
		return "", badImage(fault.ImageValue, "file name", "%q", path)
	case root == "/":
		return path, nil
	case ok && inside == "":
		return "/", nil
	case ok && inside[0] == '/':
		return inside, nil
	}
	return "", &fault.Error{Code: fault.FileOpen, Object: path, Detail: "outside of the caller's root directory " + root, Err: unix.ENOENT}
}
