package shim

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/tracer/procfs"
)

// registry is the directory in which the running containers of a user are listed: a file for each, locked for as long as the
// container lives by the process that waits for it. So one that was killed is not listed, and its name is free. Whoever adds or
// removes a file has the directory locked.
type registry struct{ dir *os.File }

// containerEntry is what such a file says, once the container has started. The numbers are those of the pid namespace in which
// it was started.
type containerEntry struct {
	Name    string    `json:"name"`
	PID     int       `json:"pid"`         // the first process, which stands for the whole
	Command int       `json:"command_pid"` // the same where the command is the first process
	Started time.Time `json:"started"`
	Args    []string  `json:"command"`
}

// runtimeDirectory is where the registry is.
func runtimeDirectory() string {
	if dir := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "crshim")
	}
	if os.Geteuid() == 0 {
		return "/run/crshim"
	}
	return fmt.Sprintf("/tmp/crshim-%d", os.Geteuid())
}

// openRegistry opens the directory and locks it until close. Nobody else may be able to write there.
func openRegistry() (*registry, error) {
	path := runtimeDirectory()
	failed := func(err error) error { return &fault.Error{Code: fault.RuntimeDirectory, Object: path, Err: err} }
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, failed(err)
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, failed(err)
	}
	r := &registry{os.NewFile(uintptr(fd), path)}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, errors.Join(failed(err), r.dir.Close())
	}
	switch {
	case int(st.Uid) != os.Geteuid():
		return nil, errors.Join(failed(fmt.Errorf("it belongs to user %d", st.Uid)), r.dir.Close())
	case st.Mode&0o022 != 0:
		return nil, errors.Join(failed(errors.New("others may write there")), r.dir.Close())
	}
	for {
		err := unix.Flock(fd, unix.LOCK_EX)
		if err == nil {
			return r, nil
		}
		if !errors.Is(err, unix.EINTR) {
			return nil, errors.Join(failed(err), r.dir.Close())
		}
	}
}

func (r *registry) close() { _ = r.dir.Close() } // and with it the lock

func (r *registry) path(name string) string { return filepath.Join(r.dir.Name(), name+".json") }

// add takes a name. The descriptor that it returns holds the name until it is closed everywhere.
func (r *registry) add(name string) (int, error) {
	fd, err := unix.Open(r.path(name), unix.O_RDWR|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return -1, &fault.Error{Code: fault.RuntimeDirectory, Object: r.path(name), Err: err}
	}
	err = unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK})
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		return -1, errors.Join(&fault.Error{Code: fault.NameTaken, Object: name}, unix.Close(fd))
	}
	if err == nil {
		err = unix.Ftruncate(fd, 0) // of one that was killed
	}
	if err != nil {
		return -1, errors.Join(&fault.Error{Code: fault.RuntimeDirectory, Object: r.path(name), Err: err}, unix.Close(fd))
	}
	return fd, nil
}

// all lists the containers that run, by name. Those that were killed are taken off the list.
func (r *registry) all() ([]containerEntry, error) {
	files, err := os.ReadDir(r.dir.Name())
	if err != nil {
		return nil, &fault.Error{Code: fault.RuntimeDirectory, Object: r.dir.Name(), Err: err}
	}
	var entries []containerEntry
	for _, file := range files {
		name, ok := strings.CutSuffix(file.Name(), ".json")
		if !ok {
			continue
		}
		entry, err := r.read(name)
		switch {
		case errors.Is(err, errEnded):
			err = os.Remove(r.path(name))
		case errors.Is(err, errStarting):
			err = nil
		case err == nil:
			entries = append(entries, *entry)
		}
		if err != nil {
			return nil, &fault.Error{Code: fault.RuntimeDirectory, Object: r.path(name), Err: err}
		}
	}
	return entries, nil
}

var (
	errEnded    = errors.New("the container has ended")
	errStarting = errors.New("the container has not started yet")
)

// read reads one file, whose name need not be one that is listed.
func (r *registry) read(name string) (*containerEntry, error) {
	f, err := os.OpenFile(r.path(name), os.O_RDWR|unix.O_NOFOLLOW, 0) // to ask for a lock of writing
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read from
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &lock); err != nil {
		return nil, err
	}
	if lock.Type == unix.F_UNLCK {
		return nil, errEnded
	}
	text, err := io.ReadAll(io.LimitReader(f, 1<<20))
	if err != nil {
		return nil, err
	}
	entry := new(containerEntry)
	if json.Unmarshal(text, entry) != nil || entry.PID <= 0 {
		return nil, errStarting
	}
	return entry, nil
}

// findContainer finds a running container by its name.
func findContainer(name string) (*containerEntry, error) {
	r, err := openRegistry()
	if err != nil {
		return nil, err
	}
	defer r.close()
	entry, err := r.read(name)
	if err != nil {
		return nil, &fault.Error{Code: fault.NoSuchContainer, Object: name, Err: err}
	}
	return entry, nil
}

// list takes the container's name, or finds one for it.
func (c *containerConfig) list(command string) error {
	r, err := openRegistry()
	if err != nil {
		return err
	}
	defer r.close()
	if c.Name == "" {
		c.Name = fmt.Sprintf("%s-%d", nameOf(command), os.Getpid())
	}
	c.Listed, err = r.add(c.Name)
	return err
}

// release gives up the name, which the stages hold that come after this one, and what is meant for the last of them.
func (c *containerConfig) release() error {
	if c == nil {
		return nil
	}
	c.Feed.close()
	c.Feed = 0
	if c.Listed == 0 {
		return nil
	}
	fd := c.Listed
	c.Listed = 0
	return unix.Close(fd)
}

// nameOf makes a name of a command: crshim ps is to show what it is.
func nameOf(command string) string {
	name := strings.Map(func(c rune) rune {
		if c < 0x80 && nameForm.MatchString("a"+string(c)) {
			return c
		}
		return '_'
	}, filepath.Base(command))
	if !nameForm.MatchString(name) {
		name = "c" + name
	}
	return fmt.Sprintf("%.40s", name)
}

// tell says in the file of the container who its processes are.
func (c *containerConfig) tell(first *firstProcess, command []string) error {
	text, err := json.Marshal(containerEntry{c.Name, first.pid, first.command, time.Now().Truncate(time.Second), command})
	if err == nil {
		_, err = unix.Pwrite(c.Listed, text, 0)
	}
	if err != nil {
		return &fault.Error{Code: fault.RuntimeDirectory, Object: c.Name, Err: err}
	}
	return nil
}

// unlist takes the container off the list when it has ended.
func (c *containerConfig) unlist(first *firstProcess) error {
	r, err := openRegistry()
	if err != nil {
		return err
	}
	defer r.close()
	for _, path := range []string{r.path(c.Name), r.stoppedPath(procfs.PID(first.pid))} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return &fault.Error{Code: fault.RuntimeDirectory, Object: path, Err: err}
		}
	}
	return nil
}
