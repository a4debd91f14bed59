package shim

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
)

// imageOutput is where an image goes. Under its name it appears only as a whole.
type imageOutput struct {
	*os.File
	path string // "" for standard output
	name string // what it has as long as it is not complete; "" none
}

// createOutput makes a file without a name where the file system has them
// (O_TMPFILE): nothing is left of it if we are killed.
func createOutput(path string) (*imageOutput, error) {
	if path == toStdout {
		// Not standard output itself: Go ends a program that writes to a broken pipe there, and with it the checkpoint.
		fd, err := unix.FcntlInt(uintptr(unix.Stdout), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			return nil, fmt.Errorf("open standard output: %w", err)
		}
		return &imageOutput{File: os.NewFile(uintptr(fd), "standard output")}, nil
	}
	f, err := os.OpenFile(filepath.Dir(path), os.O_RDWR|unix.O_TMPFILE, 0o600) // an image holds secrets
	if err == nil {
		return &imageOutput{File: f, path: path}, nil
	}
	if f, err = os.CreateTemp(filepath.Dir(path), pattern(path)); err != nil { // of mode 0600, too
		return nil, &fault.Error{Code: fault.ImageWrite, Object: path, Err: err}
	}
	return &imageOutput{File: f, path: path, name: f.Name()}, nil
}

// pattern names what is to become a file.
func pattern(path string) string { return "." + filepath.Base(path) + ".*" }

// publish puts a complete image on disk and under its name.
func (o *imageOutput) publish() error {
	if o.path == "" {
		return nil
	}
	err := o.Sync()
	if err == nil && o.name == "" {
		if err = o.link(o.path); err == nil {
			return nil
		}
		if errors.Is(err, fs.ErrExist) { // only a name can take the place of another
			err = o.linkBeside()
		}
	}
	if err == nil {
		err = os.Rename(o.name, o.path)
	}
	if err != nil {
		return &fault.Error{Code: fault.ImageWrite, Object: o.path, Err: err}
	}
	return nil
}

// link gives a file that has none a name.
func (o *imageOutput) link(name string) error {
	err := unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", o.Fd()), unix.AT_FDCWD, name, unix.AT_SYMLINK_FOLLOW)
	return os.NewSyscallError("linkat", err)
}

// linkBeside gives it a name for a moment.
func (o *imageOutput) linkBeside() error {
	free, err := os.CreateTemp(filepath.Dir(o.path), pattern(o.path))
	if err != nil {
		return err
	}
	if err := errors.Join(free.Close(), os.Remove(free.Name())); err != nil {
		return err
	}
	if err := o.link(free.Name()); err != nil {
		return err
	}
	o.name = free.Name()
	return nil
}

// discard removes what is not complete.
func (o *imageOutput) discard() error {
	if o.name == "" {
		return nil
	}
	err := os.Remove(o.name)
	if errors.Is(err, os.ErrNotExist) {
		return nil // it was published, and something failed after that
	}
	return err
}
