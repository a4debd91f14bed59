package procfs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// FD is one open descriptor of a process: its link under /proc/PID/fd, the
// file that the link leads to, and /proc/PID/fdinfo (proc_pid_fdinfo(5)).
type FD struct {
	Number int32
	Target string // text of the link: a path, or socket:[N], pipe:[N], anon_inode:[eventfd], ...

	// From stat(2) through the link, which needs no permission on the path.
	Mode  uint32
	Dev   uint64
	Ino   uint64
	Rdev  uint64
	Size  int64
	Nlink uint64

	Pos   int64
	Flags uint32 // O_* of open(2), with O_CLOEXEC of the descriptor
	MntID int    // as in mountinfo; nameless files are on mounts that are not listed

	// Extra holds the further lines of fdinfo in order. The key ends at the
	// first colon; the lines of inotify and fanotify, which have none, are
	// cut at the first blank.
	Extra []Field
}

// Type is the file type, S_IF* of inode(7).
func (f *FD) Type() uint32 { return f.Mode & unix.S_IFMT }

// CloseOnExec says whether FD_CLOEXEC is set.
func (f *FD) CloseOnExec() bool { return f.Flags&unix.O_CLOEXEC != 0 }

// Values gives all the values that Extra has for the key: one for each tfd of
// an epoll instance, none if there is no such line.
func (f *FD) Values(key string) []string {
	var out []string
	for _, e := range f.Extra {
		if e.Key == key {
			out = append(out, e.Value)
		}
	}
	return out
}

// fdinfo is the content of one file of /proc/PID/fdinfo.
type fdinfo struct {
	pos   int64
	flags uint32
	mntID int
	extra []Field
}

// parseFDInfo wants pos, flags and mnt_id, which seq_show() of fs/proc/fd.c
// writes first; the type of file may print anything below them, also a line
// that looks the same.
func parseFDInfo(data []byte) (fdinfo, error) {
	var info fdinfo
	err := lines(data, func(n int, line []byte) (err error) {
		key, value, ok := keyValue(line)
		switch {
		case n == 1 && ok && string(key) == "pos":
			info.pos, err = intOf[int64](value)
		case n == 2 && ok && string(key) == "flags":
			info.flags, err = octal32(value)
		case n == 3 && ok && string(key) == "mnt_id":
			info.mntID, err = count(value)
		case n <= 3:
			err = malformed("descriptor info", line)
		case n == 4 && string(key) == "ino": // since Linux 5.14; stat has it too
		case len(line) > 0:
			info.extra = append(info.extra, fdinfoField(line))
		}
		if err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
		return nil
	})
	if err != nil {
		return fdinfo{}, err
	}
	if bytes.Count(data, []byte{'\n'}) < 3 {
		return fdinfo{}, malformed("descriptor info ends early", data)
	}
	return info, nil
}

func fdinfoField(line []byte) Field {
	for _, prefix := range []string{"inotify ", "fanotify "} {
		if rest, ok := bytes.CutPrefix(line, []byte(prefix)); ok {
			return Field{Key: prefix[:len(prefix)-1], Value: string(bytes.TrimSpace(rest))}
		}
	}
	key, value, ok := keyValue(line)
	if !ok {
		return Field{Value: string(line)}
	}
	return Field{Key: string(bytes.TrimSpace(key)), Value: string(value)}
}

// fdDirs are the two directories that tell about descriptors, held open so
// that a lookup has one name to resolve.
type fdDirs struct {
	p        *Proc
	fd, info int
	buf      []byte
}

func (p *Proc) fdDirs() (*fdDirs, error) {
	fd, err := p.open("fd", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	info, err := p.open("fdinfo", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return &fdDirs{p: p, fd: fd, info: info, buf: make([]byte, 0, 4096)}, nil
}

func (d *fdDirs) close() {
	unix.Close(d.fd)
	unix.Close(d.info)
}

// read returns an error wrapping ENOENT if the number is not open.
func (d *fdDirs) read(number int32) (FD, error) {
	name := strconv.Itoa(int(number))
	f := FD{Number: number}
	var err error
	if f.Target, err = readlinkat(d.fd, name); err != nil {
		return FD{}, d.p.fault("read link", "fd/"+name, err)
	}
	var st unix.Stat_t
	if err := unix.Fstatat(d.fd, name, &st, 0); err != nil {
		return FD{}, d.p.fault("stat", "fd/"+name, err)
	}
	f.Mode, f.Dev, f.Ino, f.Rdev = st.Mode, st.Dev, st.Ino, st.Rdev
	f.Size, f.Nlink = st.Size, uint64(st.Nlink)

	fd, err := unix.Openat(d.info, name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return FD{}, d.p.fault("open", "fdinfo/"+name, err)
	}
	defer unix.Close(fd)
	data, err := readAll(fd, d.buf[:0])
	if err != nil {
		return FD{}, d.p.fault("read", "fdinfo/"+name, err)
	}
	d.buf = data
	info, err := parseFDInfo(data)
	if err != nil {
		return FD{}, fmt.Errorf("parse %s/fdinfo/%s: %w", d.p.in, name, err)
	}
	f.Pos, f.Flags, f.MntID, f.Extra = info.pos, info.flags, info.mntID, info.extra
	return f, nil
}

// OpenFDs lists the numbers of the open descriptors in rising order.
func (p *Proc) OpenFDs() ([]int32, error) { return p.numbers("fd") }

// FDs lists the open descriptors in rising order. Those that a running task
// closes meanwhile are left out.
func (p *Proc) FDs() ([]FD, error) {
	d, err := p.fdDirs()
	if err != nil {
		return nil, err
	}
	defer d.close()
	numbers, err := p.OpenFDs()
	if err != nil {
		return nil, err
	}
	out := make([]FD, 0, len(numbers))
	for _, n := range numbers {
		f, err := d.read(n)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		out = append(out, f)
	}
	return out, nil
}

// FD reads descriptor n. The error wraps EBADF if it is not open.
func (p *Proc) FD(n int32) (*FD, error) {
	d, err := p.fdDirs()
	if err != nil {
		return nil, err
	}
	defer d.close()
	f, err := d.read(n)
	if errors.Is(err, unix.ENOENT) {
		return nil, fmt.Errorf("read %s/fd/%d: %w", p.in, n, unix.EBADF)
	}
	if err != nil {
		return nil, err
	}
	return &f, nil
}
