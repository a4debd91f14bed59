package tests

import (
	"encoding/binary"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/image"
)

// locked starts a program of scenarios/locks.c, saves it, and leaves it running.
func locked(e *env, t *testing.T, name string) *job {
	j := e.start(streams{}, program(t, glibc, "scenarios", "locks"), name, "external", e.dir, "1")
	pid := e.announced(j, "ready", 1)
	e.start(streams{}, e.crshim, "checkpoint", strconv.Itoa(pid), "-o", "img").ends("exit status 0")
	return j
}

// TestLockTaken: a lock that somebody else holds makes a restart fail, which
// changes nothing about it and leaves none behind.
func TestLockTaken(t *testing.T) {
	for _, name := range []string{"flock", "posix", "ofd"} {
		t.Run(name, func(t *testing.T) {
			eachUser(t, func(t *testing.T, u user) {
				e := newEnv(t, u)
				j := locked(e, t, name)
				before := locksOn(t, e.path("locked"))
				failed := e.start(streams{}, e.crshim, "restart", "img")
				failed.ends("exit status 125")
				if text := failed.output(); !strings.Contains(text, "CR2121") {
					t.Errorf("restart failed with %q, want CR2121", text)
				}
				if after := locksOn(t, e.path("locked")); before == "" || before != after {
					t.Errorf("locks before %q, after %q", before, after)
				}
				e.write(e.nth("go", 1), "")
				j.ends("exit status 0")
				e.passed()
				if after := locksOn(t, e.path("locked")); after != "" {
					t.Errorf("locks of nobody: %q", after)
				}
			})
		})
	}
}

// locksOn returns the lines of /proc/locks about a file, without their numbers.
func locksOn(t *testing.T, path string) string {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	all, err := os.ReadFile("/proc/locks")
	if err != nil {
		t.Fatal(err)
	}
	var found strings.Builder
	for line := range strings.Lines(string(all)) {
		if strings.Contains(line, ":"+strconv.FormatUint(st.Ino, 10)+" ") {
			_, lock, _ := strings.Cut(line, ": ")
			found.WriteString(lock)
		}
	}
	return found.String()
}

// TestLockOfCaller: a caller does not lose its own locks in a restart that
// fails.
func TestLockOfCaller(t *testing.T) {
	eachUser(t, func(t *testing.T, u user) {
		e := newEnv(t, u)
		j := locked(e, t, "posix")
		e.write(e.nth("go", 1), "")
		j.ends("exit status 0")
		j = e.start(streams{}, e.crshim, "run", program(t, glibc, "callers", "locked"), "locked", "img")
		j.ends("exit status 0")
		if got, want := j.output(), strconv.Itoa(int(unix.EBUSY))+" held\n"; !strings.Contains(got, want) {
			t.Errorf("restart in a caller with locks: %q, want %q", got, want)
		}
	})
}

// writing is callers/writer.c with its image and what its file was then.
type writing struct {
	*env
	saved string
	inode uint64
}

func (w *writing) data() string { return w.read(w.path("data")) }

// newWriting saves the program when it has written a line, lets it write
// another one and ends it.
func newWriting(t *testing.T, u user, args ...string) *writing {
	w := &writing{env: newEnv(t, u)}
	w.save(t, args...)
	return w
}

func (w *writing) save(t *testing.T, args ...string) {
	t.Helper()
	// A page of data, a hole, and another page.
	w.write(w.path("data"), strings.Repeat("a", 4096))
	if err := os.Truncate(w.path("data"), 1<<20); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(w.path("data"), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("the end"); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(w.path("data"), w.path("link")); err != nil {
		t.Fatal(err)
	}
	w.write(w.path("other"), "something")
	j := w.start(streams{}, program(t, glibc, "callers", "writer"), w.dir)
	w.until("it is there", func() bool { return exists(w.path("ready")) || j.ended() })
	w.step(j, 1)
	w.saved, w.inode = w.data(), inodeOf(t, w.path("data"))
	args = append([]string{w.crshim, "checkpoint", strconv.Itoa(j.pid()), "-o", "img"}, args...)
	w.start(streams{}, args...).ends("exit status 0")
	w.step(j, 2)
	w.signal(j.pid(), unix.SIGKILL)
	j.ends("signal: killed")
	w.remove(w.nth("go", 2))
	w.remove(w.nth("done", 2))
}

func inodeOf(t *testing.T, path string) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

func (w *writing) step(j *job, n int) {
	w.Helper()
	w.write(w.nth("go", n), "")
	w.until("line "+strconv.Itoa(n)+" is written", func() bool { return exists(w.nth("done", n)) || j.ended() })
	if j.ended() && n < 3 {
		w.Fatalf("%v ended: %s", j.cmd.Args, j.output())
	}
}

// goOn restarts the program, and returns the file as it finds it, and as it is
// when the program has written the rest.
func (w *writing) goOn(args ...string) (found, left string) {
	w.Helper()
	j := w.start(streams{}, append([]string{w.crshim, "restart"}, args...)...)
	comm := "writer"
	w.until("it runs", func() bool {
		if j.ended() {
			w.Fatalf("restart: %s", j.output())
		}
		for _, p := range descendants(j.pid()) {
			if p.comm == comm && untraced(p.pid) {
				return true
			}
		}
		return false
	})
	found = w.data()
	w.step(j, 2)
	w.step(j, 3)
	j.ends("exit status 0")
	return found, w.data()
}

// TestFilesPolicy: what becomes of a file that has changed since.
func TestFilesPolicy(t *testing.T) {
	after := func(w *writing) string { // what the program leaves if it goes on in what it had
		b := []byte(w.saved)
		copy(b[7:], "line 2\nline 3\n")
		b[5000] = 'X'
		return string(b)
	}
	for name, test := range map[string]struct {
		save    []string
		change  func(*writing) // by others, after the program has ended
		restart []string
		found   func(*writing) string // nil for what is there
	}{
		"verify":   {},
		"ignore":   {restart: []string{"--files", "ignore"}, change: func(w *writing) { w.truncate(100) }},
		"truncate": {restart: []string{"--files", "truncate"}, change: (*writing).grow, found: func(w *writing) string { return w.data()[:len(w.saved)] }},
		"rollback": {save: []string{"--save-files"}, restart: []string{"--files", "rollback"}, found: func(w *writing) string { return w.saved }},
		"rollback-longer": {
			save: []string{"--save-files"}, restart: []string{"--files", "rollback"},
			change: func(w *writing) { w.grow(); w.patch("ccc", 1); w.patch("in the hole", 300000) },
			found:  func(w *writing) string { return w.saved },
		},
		"rollback-shorter": {
			save: []string{"--save-files"}, restart: []string{"--files", "rollback"},
			change: func(w *writing) { w.truncate(3) }, found: func(w *writing) string { return w.saved },
		},
		"not-rolled-back": {save: []string{"--save-files"}},
	} {
		t.Run(name, func(t *testing.T) {
			eachUser(t, func(t *testing.T, u user) {
				w := newWriting(t, u, test.save...)
				if test.change != nil {
					test.change(w)
				}
				want := w.data()
				if test.found != nil {
					want = test.found(w)
				}
				found, left := w.goOn(append(test.restart, "img")...)
				if found != want {
					t.Errorf("found %d bytes, want %d: not as they should be", len(found), len(want))
				}
				if test.found != nil && left != after(w) {
					t.Errorf("left %d bytes %.40q, want %d bytes %.40q", len(left), left, len(after(w)), after(w))
				}
				if inodeOf(t, w.path("data")) != w.inode || w.read(w.path("link")) != left {
					t.Error("the file is another one now")
				}
			})
		})
	}
}

func (w *writing) truncate(size int64) {
	w.Helper()
	if err := os.Truncate(w.path("data"), size); err != nil {
		w.Fatal(err)
	}
}

// patch writes into the file, in place.
func (w *writing) patch(text string, at int64) {
	w.Helper()
	f := w.create(w.path("data"), os.O_WRONLY)
	defer f.Close()
	if _, err := f.WriteAt([]byte(text), at); err != nil {
		w.Fatal(err)
	}
}

func (w *writing) grow() {
	w.Helper()
	w.patch(strings.Repeat("b", 1<<20), int64(len(w.data())))
}

// TestFilesRefused: a restart that fails has changed no file.
func TestFilesRefused(t *testing.T) {
	for name, test := range map[string]struct {
		save    []string
		change  func(*writing)
		restart []string
		want    string
	}{
		"shorter": {change: func(w *writing) { w.truncate(100) }, want: "CR2123"},
		"missing": {change: func(w *writing) { w.remove(w.path("data")); w.write(w.path("data"), "new") }, want: "CR2123"},
		"unsaved": {restart: []string{"--files", "rollback"}, want: "CR2124"},
		"other file": {
			save: []string{"--save-files"}, restart: []string{"--files", "rollback"},
			change: func(w *writing) { w.remove(w.path("other")) }, want: "CR2101",
		},
		"other file, truncate": {
			restart: []string{"--files", "truncate"},
			change:  func(w *writing) { w.grow(); w.remove(w.path("other")) }, want: "CR2101",
		},
		"cut image": {
			save: []string{"--save-files"}, restart: []string{"--files", "rollback"},
			change: func(w *writing) {
				img := w.read(w.path("img"))
				w.write(w.path("img"), img[:len(img)-20])
			}, want: "CR",
		},
		"cut image, truncate": {
			restart: []string{"--files", "truncate"},
			change: func(w *writing) {
				w.grow()
				img := w.read(w.path("img"))
				w.write(w.path("img"), img[:len(img)-20])
			}, want: "CR",
		},
	} {
		t.Run(name, func(t *testing.T) {
			eachUser(t, func(t *testing.T, u user) {
				w := newWriting(t, u, test.save...)
				if test.change != nil {
					test.change(w)
				}
				before, names, mtime := w.data(), w.names(), mtimeOf(t, w.path("data"))
				j := w.start(streams{}, append(append([]string{w.crshim, "restart"}, test.restart...), "img")...)
				j.ends("exit status 125")
				if text := j.output(); !strings.Contains(text, test.want) {
					t.Errorf("refused with %q, want %s", text, test.want)
				}
				if w.data() != before || mtimeOf(t, w.path("data")) != mtime {
					t.Error("a restart that failed has changed the file")
				}
				if after := w.names(); strings.Join(after, " ") != strings.Join(names, " ") {
					t.Errorf("files before %q, after %q", names, after)
				}
			})
		})
	}
}

// names lists the files but for the logs of jobs.
func (w *writing) names() (names []string) {
	w.Helper()
	entries, err := os.ReadDir(w.dir)
	if err != nil {
		w.Fatal(err)
	}
	for _, e := range entries {
		if !w.ofHarness(e.Name()) {
			names = append(names, e.Name())
		}
	}
	return names
}

func mtimeOf(t *testing.T, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.ModTime().UnixNano()
}

// TestFileSizeLimit: contents that the restarter may not write.
func TestFileSizeLimit(t *testing.T) {
	eachUser(t, func(t *testing.T, u user) {
		e := newEnv(t, u)
		imageOf(t, e, "deleted", "contents")
		j := e.start(streams{}, "sh", "-c", "ulimit -f 100; exec "+e.crshim+" restart img")
		j.ends("exit status 125")
		if text := j.output(); !strings.Contains(text, "CR2120") {
			t.Errorf("restart failed with %q, want CR2120", text)
		}
		// In place: the caller gets the errno, and no signal.
		f, err := os.Open(e.path("img"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		s, err := ourSamples()
		if err != nil {
			t.Fatal(err)
		}
		j = e.start(streams{In: f}, e.crshim, "run", "sh", "-c", "ulimit -f 100; exec "+s.path("rstr"))
		j.ends("exit status 1")
		if text := j.output(); !strings.Contains(text, "File too large") {
			t.Errorf("rstr says %q, want EFBIG", text)
		}
	})
}

// imageOf saves a program of scenarios/ and ends it.
func imageOf(t *testing.T, e *env, name, scenario string) {
	t.Helper()
	j := e.start(streams{}, program(t, glibc, "scenarios", name), scenario, "external", e.dir, "1")
	pid := e.announced(j, "ready", 1)
	e.start(streams{}, e.crshim, "checkpoint", strconv.Itoa(pid), "-o", "img").ends("exit status 0")
	e.signal(pid, unix.SIGKILL)
	j.ends("signal: killed")
	e.remove(e.nth("ready", 1))
}

// TestBadImageFiles: values of the records of files that no checkpoint writes.
func TestBadImageFiles(t *testing.T) {
	const (
		deletedOpen, deleted, fileData, lock, owner, place, fileState image.Kind = 6460, 6461, 6462, 6463, 6464, 6465, 6466

		parent = -4 // of the header
	)
	u32 := func(v uint32) []byte { return binary.LittleEndian.AppendUint32(nil, v) }
	u64 := func(v uint64) []byte { return binary.LittleEndian.AppendUint64(nil, v) }
	type patch struct {
		what   string
		kind   image.Kind
		offset int64 // in the payload
		value  []byte
	}
	for _, from := range []struct {
		program, scenario string
		patches           []patch
	}{
		{"deleted", "shared", []patch{
			{"owner", deletedOpen, parent, u32(4711)},
			{"file 0", deletedOpen, 0, u32(0)},
			{"file that is not there", deletedOpen, 0, u32(4711)},
			{"access mode", deletedOpen, 4, u32(unix.O_ACCMODE)},
			{"offset", deletedOpen, 8, u64(1 << 63)},
			{"owner of the file", deleted, parent, u32(4711)},
			{"size", deleted, 0, u64(1 << 63)},
			{"flags without O_TMPFILE", deleted, 36, u32(unix.O_RDWR)},
			{"O_TMPFILE for reading", deleted, 36, u32(unix.O_TMPFILE)},
			{"name", deleted, 40, []byte("x")},
			{"piece behind the end", fileData, 0, u64(11)},
			{"piece that wraps", fileData, 0, u64(1<<64 - 1)},
			{"size of a file", fileState, 0, u64(1 << 63)},
		}},
		{"locks", "posix", []patch{
			{"owner of a lock", lock, parent, u32(4711)},
			{"kind of lock", lock, 0, u32(9)},
			{"no kind of lock", lock, 0, u32(0)},
			{"type of lock", lock, 4, u32(2)},
			{"lock that ends before it starts", lock, 8, u64(1 << 40)},
			{"lock without end", lock, 16, u64(1 << 63)},
		}},
		{"locks", "owner", []patch{
			{"owner of an owner", owner, parent, u32(4711)},
			{"who", owner, 0, u32(9)},
			{"signal", owner, 4, u32(65)},
		}},
		{"files", "place", []patch{
			{"owner of a place", place, parent, u32(4711)},
			{"flags without O_PATH", place, 4, u32(0)},
			{"name of a place", place, 16, []byte("x")},
			{"type of a place", place, 0, u32(unix.S_IFREG)},
		}},
	} {
		t.Run(from.scenario, func(t *testing.T) {
			eachUser(t, func(t *testing.T, u user) {
				c := newCalls(t, u)
				imageOf(t, c.env, from.program, from.scenario)
				b := &badSetup{callSetup: c, raw: readRaw(t, c.path("img"))}
				for _, p := range from.patches {
					rec := b.raw.find(p.kind, 0)
					if rec == nil {
						t.Fatalf("%s: the image has no record of kind %v", p.what, p.kind)
					}
					bad := slices.Clone(b.raw.bytes)
					copy(bad[rec.Offset+8+p.offset:], p.value)
					b.add(p.what, b.raw.signed(bad), unix.EINVAL)
				}
				b.try(glibc, "file")
			})
		})
	}
}

// TestFilesFullDisk: a file that cannot get back its contents keeps what it has.
func TestFilesFullDisk(t *testing.T) {
	u := users()[0]
	if u.id != 0 {
		t.Skip("needs: root, who may mount")
	}
	dir := newEnv(t, u).dir
	if err := unix.Mount("crshim", dir, "tmpfs", 0, "size=4m"); err != nil {
		t.Skip("needs: a file system of a limited size:", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	w := &writing{env: newEnv(t, u)}
	home := w.dir
	w.dir = dir
	w.save(t, "--save-files")
	w.truncate(3)
	left := strings.Repeat("x", 1<<20)
	for i := 0; ; i++ {
		f, err := os.Create(w.nth("full", i))
		if err != nil {
			t.Fatal(err)
		}
		_, err = f.WriteString(left)
		if cerr := f.Close(); cerr != nil {
			t.Fatal(cerr)
		}
		if err != nil {
			break
		}
	}
	before := w.data()
	w.dir = home // for what the job itself writes
	j := w.start(streams{}, w.crshim, "restart", "--files", "rollback", dir+"/img")
	j.ends("exit status 125")
	w.dir = dir
	if text := j.output(); !strings.Contains(text, "CR2120") || !strings.Contains(text, "no space") {
		t.Errorf("refused with %q, want CR2120", text)
	}
	if w.data() != before {
		t.Error("a rollback that failed has changed the file")
	}
	w.dir = home
}
