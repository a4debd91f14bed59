package shim

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
)

// root is the directory that becomes the root of a container, or is it already. Places in it are found as they will be from
// within: a symbolic link in a root of somebody else's making does not lead out of it.
type root struct {
	fd   int
	path string // "" for /
}

// mountAll mounts what a container has of its own: /proc, and with a root of its own /dev; and what was asked for.
func (c *containerConfig) mountAll() error {
	r, err := openRoot(c.Rootfs)
	if err != nil {
		return err
	}
	defer unix.Close(r.fd)
	if err := r.mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return c.procFault(r.path+"/proc", err)
	}
	if c.Rootfs != "" {
		if err := r.mountDevices(); err != nil {
			return err
		}
	}
	for _, b := range c.Binds {
		if err := r.bind(b); err != nil {
			return err
		}
	}
	if c.Rootfs == "" {
		return nil
	}
	return r.enter()
}

// procFault explains that /proc cannot be mounted.
func (c *containerConfig) procFault(place string, err error) error {
	if errors.Is(err, unix.EPERM) && c.User != userNone {
		return &fault.Error{Code: fault.ContainerProc, Object: place, Err: err}
	}
	return err
}

// openRoot opens / or a directory, which becomes a mount: pivot_root(2) takes nothing less.
func openRoot(dir string) (*root, error) {
	name := "/"
	if dir != "" {
		name = dir
		for _, needed := range []string{"proc", "dev"} {
			if info, err := os.Lstat(filepath.Join(dir, needed)); err != nil || !info.IsDir() {
				if err == nil {
					err = unix.ENOTDIR
				}
				return nil, &fault.Error{Code: fault.ContainerRoot, Object: dir, Err: err}
			}
		}
		if err := unix.Mount(dir, dir, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return nil, mountFault(dir, err)
		}
	}
	fd, err := unix.Open(name, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fault.Error{Code: fault.ContainerRoot, Object: name, Err: err}
	}
	return &root{fd: fd, path: dir}, nil
}

// open finds a place in the root. Its name for mount(2) is place.
func (r *root) open(target string) (int, error) {
	fd, err := r.find(target)
	if err != nil {
		return -1, mountFault(r.path+target, err)
	}
	return fd, nil
}

func (r *root) find(target string) (int, error) {
	return unix.Openat2(r.fd, "./"+strings.TrimPrefix(target, "/"), &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
}

func place(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }

// mount is mount(2) at a place in the root.
func (r *root) mount(source, target, fstype string, flags uintptr, data string) error {
	fd, err := r.open(target)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Mount(source, place(fd), fstype, flags, data); err != nil {
		return mountFault(r.path+target, err)
	}
	return nil
}

// bind makes what the host has somewhere appear in the root.
func (r *root) bind(b bind) error {
	if err := r.mount(b.Source, b.Target, "", unix.MS_BIND|unix.MS_REC, ""); err != nil || !b.ReadOnly {
		return err
	}
	fd, err := r.open(b.Target)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &attr); err != nil {
		return mountFault(r.path+b.Target, err)
	}
	return nil
}

// mountDevices makes a small /dev. A user namespace can make no devices, so those of the host are bound; its terminals are
// its own.
func (r *root) mountDevices() error {
	if err := r.mount("tmpfs", "/dev", "tmpfs", unix.MS_NOSUID|unix.MS_STRICTATIME, "mode=755,size=65536k"); err != nil {
		return err
	}
	dev, err := r.open("/dev")
	if err != nil {
		return err
	}
	defer unix.Close(dev)
	for _, name := range []string{"null", "zero", "full", "random", "urandom", "tty"} {
		fd, err := unix.Openat(dev, name, unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC|unix.O_WRONLY, 0o666)
		if err != nil {
			return mountFault(r.path+"/dev/"+name, err)
		}
		_ = unix.Close(fd) // nothing was written
		if err := r.bind(bind{Source: "/dev/" + name, Target: "/dev/" + name}); err != nil {
			return err
		}
	}
	for _, dir := range []struct{ name, fstype, data string }{
		{"pts", "devpts", "newinstance,ptmxmode=0666,mode=620"},
		{"shm", "tmpfs", "mode=1777"},
	} {
		if err := unix.Mkdirat(dev, dir.name, 0o755); err != nil {
			return mountFault(r.path+"/dev/"+dir.name, err)
		}
		flags := uintptr(unix.MS_NOSUID | unix.MS_NOEXEC)
		if dir.fstype == "tmpfs" {
			flags |= unix.MS_NODEV
		}
		if err := r.mount(dir.fstype, "/dev/"+dir.name, dir.fstype, flags, dir.data); err != nil {
			return err
		}
	}
	for name, to := range map[string]string{
		"ptmx": "pts/ptmx", "fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2",
	} {
		if err := unix.Symlinkat(to, dev, name); err != nil {
			return mountFault(r.path+"/dev/"+name, err)
		}
	}
	return nil
}

// enter makes the root the root of every process in the mount namespace, and lets go of the old one (pivot_root(2), NOTES).
func (r *root) enter() error {
	err := unix.Fchdir(r.fd)
	if err == nil {
		err = unix.PivotRoot(".", ".")
	}
	if err == nil {
		err = unix.Unmount(".", unix.MNT_DETACH)
	}
	if err == nil {
		err = os.Chdir("/")
	}
	if err != nil {
		return &fault.Error{Code: fault.ContainerRoot, Object: r.path, Err: err}
	}
	return nil
}
