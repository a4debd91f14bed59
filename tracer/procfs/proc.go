package procfs

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// root is where /proc is mounted for our pid namespace.
const root = "/proc"

type goneError struct{}

func (goneError) Error() string { return "no such process" }

func (goneError) Is(target error) bool { return target == unix.ESRCH }

// ErrGone says that the task has ended and been reaped, or never was. It also
// matches unix.ESRCH.
var ErrGone error = goneError{}

// ErrFormat says that a file of /proc did not look as expected.
var ErrFormat = errors.New("unexpected format")

// Proc is one task as /proc shows it.
type Proc struct {
	dir int // O_PATH descriptor of the task's directory
	pid PID
	in  string // its path, for messages only
}

// Open holds on to the process (or thread) pid. The error is ErrGone if there
// is none, or if a /proc mounted with hidepid=2 hides it.
func Open(pid PID) (*Proc, error) {
	return open(pid, fmt.Sprintf("%s/%d", root, pid))
}

// OpenThread holds on to the thread tid of the process pid. Files that exist
// once per process (task, timers, map_files, coredump_filter) are missing
// there: reading them wraps ENOENT.
func OpenThread(pid, tid PID) (*Proc, error) {
	return open(tid, fmt.Sprintf("%s/%d/task/%d", root, pid, tid))
}

func open(pid PID, path string) (*Proc, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err == nil {
		return &Proc{dir: fd, pid: pid, in: path}, nil
	}
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) {
		// Without this test a missing mount would look like an ended task.
		var fs unix.Statfs_t
		if serr := unix.Statfs(root, &fs); serr != nil || fs.Type != unix.PROC_SUPER_MAGIC {
			return nil, fmt.Errorf("open %s: proc is not mounted there: %w", path, err)
		}
		err = ErrGone
	}
	return nil, fmt.Errorf("open %s: %w", path, err)
}

// Close gives up the task. A second Close does nothing.
func (p *Proc) Close() error {
	if p.dir < 0 {
		return nil
	}
	fd := p.dir
	p.dir = -1
	if err := unix.Close(fd); err != nil {
		return fmt.Errorf("close %s: %w", p.in, err)
	}
	return nil
}

// PID is the number that the task was opened by: of the thread, if it came
// from OpenThread.
func (p *Proc) PID() PID { return p.pid }

// Alive says whether the task still exists; a zombie does.
func (p *Proc) Alive() bool {
	var st unix.Stat_t
	err := unix.Fstatat(p.dir, "stat", &st, 0)
	return !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ESRCH)
}

// fault says what failed on which file of the task. Linux answers a lookup in
// the directory of a reaped task with ENOENT, a read of an open file with
// ESRCH: both become ErrGone. While the task exists they mean that this file
// is missing, or that there is nothing behind it (the memory of a zombie).
func (p *Proc) fault(verb, name string, err error) error {
	if err == nil {
		return nil
	}
	if (errors.Is(err, unix.ESRCH) || errors.Is(err, unix.ENOENT)) && !p.Alive() {
		err = ErrGone
	}
	return fmt.Errorf("%s %s/%s: %w", verb, p.in, name, err)
}

func (p *Proc) open(name string, flags int) (int, error) {
	fd, err := unix.Openat(p.dir, name, flags|unix.O_CLOEXEC, 0)
	return fd, p.fault("open", name, err)
}

// ReadFile returns the content of a file of the task's directory, for what
// has no parser here (mountinfo, uid_map).
func (p *Proc) ReadFile(name string) ([]byte, error) {
	return p.readFile(name, 4096)
}

func (p *Proc) readFile(name string, expect int) ([]byte, error) {
	fd, err := p.open(name, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	data, err := readAll(fd, make([]byte, 0, expect))
	if err != nil {
		return nil, p.fault("read", name, err)
	}
	return data, nil
}

// readAll appends what fd holds to buf, up to the end of the file.
func readAll(fd int, buf []byte) ([]byte, error) {
	for {
		if len(buf) == cap(buf) {
			buf = slices.Grow(buf, max(len(buf), 4096))
		}
		n, err := unix.Read(fd, buf[len(buf):cap(buf)])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if n == 0 {
			return buf, nil
		}
		buf = buf[:len(buf)+n]
	}
}

// buffers are room for files while they are parsed.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

// read parses one small file of the task. What parse returns must not refer to
// the text.
func read[T any](p *Proc, name string, parse func([]byte) (T, error)) (T, error) {
	return readExpect(p, name, 4096, parse)
}

func readExpect[T any](p *Proc, name string, expect int, parse func([]byte) (T, error)) (T, error) {
	var zero T
	fd, err := p.open(name, unix.O_RDONLY)
	if err != nil {
		return zero, err
	}
	defer unix.Close(fd)
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	data, err := readAll(fd, slices.Grow((*buf)[:0], expect))
	if err != nil {
		return zero, p.fault("read", name, err)
	}
	*buf = data
	v, err := parse(data)
	if err != nil {
		return zero, fmt.Errorf("parse %s/%s: %w", p.in, name, err)
	}
	return v, nil
}

// Link returns the text of a symbolic link such as exe, cwd, root, ns/pid or
// fd/3. It is not escaped; " (deleted)" may follow a path that has no name
// left.
func (p *Proc) Link(name string) (string, error) {
	target, err := readlinkat(p.dir, name)
	return target, p.fault("read link", name, err)
}

func readlinkat(dir int, name string) (string, error) {
	for size := 256; ; size *= 2 {
		buf := make([]byte, size)
		n, err := unix.Readlinkat(dir, name, buf)
		if err != nil {
			return "", err
		}
		if n < size {
			return string(buf[:n]), nil
		}
	}
}

// StatLink looks through a magic link at the file itself, whatever the mount
// namespace it is in and whether or not it still has a name.
func (p *Proc) StatLink(name string) (unix.Stat_t, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(p.dir, name, &st, 0); err != nil {
		return unix.Stat_t{}, p.fault("stat", name, err)
	}
	return st, nil
}

// numbers lists the entries of a directory whose names are numbers, in the
// order of the directory.
func (p *Proc) numbers(name string) ([]int32, error) {
	fd, err := p.open(name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	list, err := listNumbers(fd)
	return list, p.fault("list", name, err)
}

// listNumbers takes over fd and closes it.
func listNumbers(fd int) (list []int32, err error) {
	defer unix.Close(fd)
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	*buf = slices.Grow((*buf)[:0], direntRoom)
	var names []string
	for {
		n, err := unix.ReadDirent(fd, (*buf)[:direntRoom])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n == 0 {
			return list, err
		}
		_, _, names = unix.ParseDirent((*buf)[:n], -1, names[:0])
		for _, name := range names {
			if v, err := strconv.ParseInt(name, 10, 32); err == nil {
				list = append(list, int32(v))
			}
		}
	}
}

// direntRoom is how much of a directory is read at a time, in bytes.
const direntRoom = 8 << 10
