package resource

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

var errNoName = errors.New("no name of the file is known")

// watchedName finds a name that leads to a watched inode.
func (v *View) watchedName(w *inotifyWatch) (string, error) {
	if w.handle != nil {
		if name, err := nameByHandle(w); err == nil {
			return usable(name)
		}
	}
	if v.names == nil {
		v.names = make(map[inodeID]string)
		v.nameSurroundings()
	}
	name, ok := v.names[w.inode]
	if !ok {
		return "", fmt.Errorf("inode %d of device %d:%d: %w", w.inode.ino, unix.Major(w.inode.dev), unix.Minor(w.inode.dev), errNoName)
	}
	return usable(name)
}

// usable refuses names that mean something else for another process.
func usable(name string) (string, error) {
	if ofProcess.MatchString(name) {
		return "", fmt.Errorf("%s is about one process: %w", name, errNoName)
	}
	return name, nil
}

func namesInode(name string, want inodeID) bool {
	var st unix.Stat_t
	return unix.Lstat(name, &st) == nil && inodeID{st.Dev, st.Ino} == want
}

// nameByHandle opens the inode, where we may, and asks for its name.
func nameByHandle(w *inotifyWatch) (string, error) {
	mounts, err := mountsOf(w.inode.dev)
	if err != nil {
		return "", err
	}
	for _, mount := range mounts {
		name, err := nameBelow(mount, w.handle)
		if err == nil && namesInode(name, w.inode) {
			return name, nil
		}
	}
	return "", errNoName
}

func nameBelow(mount string, handle *unix.FileHandle) (string, error) {
	at, err := unix.Open(mount, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(at)
	fd, err := unix.OpenByHandleAt(at, *handle, unix.O_PATH|unix.O_CLOEXEC)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	return os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
}

// mountsOf lists where a file system is mounted, as proc_pid_mountinfo(5) has
// it.
func mountsOf(dev uint64) ([]string, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read from
	want := fmt.Sprintf("%d:%d", unix.Major(dev), unix.Minor(dev))
	var mounts []string
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if words := strings.Fields(lines.Text()); len(words) > 4 && words[2] == want {
			mounts = append(mounts, unescape(words[4]))
		}
	}
	return mounts, lines.Err()
}

// unescape turns \040 and the like back.
func unescape(s string) string {
	before, rest, ok := strings.Cut(s, `\`)
	if !ok || len(rest) < 3 {
		return s
	}
	n, err := strconv.ParseUint(rest[:3], 8, 8)
	if err != nil {
		return s
	}
	return before + string([]byte{byte(n)}) + unescape(rest[3:])
}

// maxNames bounds how many names are looked at.
const maxNames = 1 << 17

// nameSurroundings remembers the names that the process has to do with: its
// directories, what it has open and mapped, what its command line and its
// environment name, all above these, and what lies in them; then what lies
// below its working directory.
func (v *View) nameSurroundings() {
	var dirs []string
	seen := make(map[string]bool)
	add := func(name string) {
		for name = filepath.Clean(name); filepath.IsAbs(name) && !seen[name]; name = filepath.Dir(name) {
			seen[name] = true
			if v.remember(name) {
				dirs = append(dirs, name)
			}
		}
	}
	cwd, err := v.Proc.Link("cwd")
	if err == nil {
		add(cwd)
	}
	if exe, err := v.Proc.Link("exe"); err == nil {
		add(exe)
	}
	for i := range v.FDs {
		add(v.FDs[i].Target)
	}
	for i := range v.Mappings {
		add(v.Mappings[i].Name)
	}
	words, _ := v.Proc.Cmdline() // what cannot be read names nothing
	environ, _ := v.Proc.Environ()
	for _, word := range append(words, environ...) {
		_, value, ok := strings.Cut(word, "=")
		if !ok {
			value = word
		}
		for _, name := range strings.Split(value, ":") {
			if filepath.IsAbs(name) {
				add(name)
			} else if ok := name != "" && !strings.HasPrefix(name, "-"); ok {
				add(filepath.Join(cwd, name))
			}
		}
	}
	for _, dir := range dirs {
		v.list(dir)
	}
	if cwd == "/" {
		return
	}
	for below := v.list(cwd); len(below) > 0 && len(v.names) < maxNames; below = below[1:] {
		below = append(below, v.list(below[0])...)
	}
}

// list remembers what lies in a directory, and returns the directories of it.
func (v *View) list(dir string) (dirs []string) {
	entries, err := os.ReadDir(dir)
	if err != nil || dir == "/proc" {
		return nil
	}
	for _, entry := range entries {
		name := filepath.Join(dir, entry.Name())
		if len(v.names) < maxNames && v.remember(name) {
			dirs = append(dirs, name)
		}
	}
	return dirs
}

// remember tells whether the name is that of a directory.
func (v *View) remember(name string) bool {
	var st unix.Stat_t
	if unix.Lstat(name, &st) != nil {
		return false
	}
	if id := (inodeID{st.Dev, st.Ino}); v.names[id] == "" {
		v.names[id] = name
	}
	return st.Mode&unix.S_IFMT == unix.S_IFDIR
}
