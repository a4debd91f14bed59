package resource

import (
	"encoding/hex"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/core/object"
	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// inotify is a set of watched files, inotify(7). fdinfo tells of each watch its
// number, its events, and the inode: the name has to be found.
var inotify = FileKind{
	Name:    "inotify",
	Support: Partial,
	Note: "Watches with their numbers and events, by name. The name is found by the file's handle, which takes " +
		"CAP_DAC_READ_SEARCH, or in the places that the process has to do with. Refused if there are events that the " +
		"process has not read. What happens to the files between checkpoint and restart is not told.",
	Records: []image.Spec{
		image.Row[inotifyRecord](inotifyKind, "FD_INOTIFY", image.InFiles, "an inotify instance; its parent is the reference of the open file; INOTIFY_WATCHes follow"),
		image.Row[inotifyWatchRecord](inotifyWatchKind, "INOTIFY_WATCH", image.InFiles, "one watched file, in the order of their numbers"),
	},
	Match:  func(_ *View, f *procfs.FD) bool { return f.Target == "anon_inode:inotify" },
	Refuse: refuseInotify,
	Dump:   dumpInotify,
	Kind:   inotifyKind,
	Load:   loadInotify,
	Skip: func(b *Builder, ref object.Ref) (*stagedOpen, error) {
		rec, _, err := readInotify(b, ref)
		if err != nil {
			return nil, err
		}
		return &stagedOpen{fd: nothing, path: "inotify", flags: rec.Flags}, nil
	},
}

const (
	inotifyKind      image.Kind = 6473
	inotifyWatchKind image.Kind = 6474
)

type inotifyRecord struct {
	Watches uint32 `doc:"how many INOTIFY_WATCHes follow"`
	Flags   uint32 `fmt:"oct" doc:"open flags"`
}

type inotifyWatchRecord struct {
	WD   int32  `doc:"number of the watch"`
	Mask uint32 `fmt:"hex" doc:"IN_* of inotify_add_watch(2); IN_DONT_FOLLOW if a symbolic link itself is watched"`
	Name string
}

// inotifyMask is what fdinfo shows of a watch (inotify_mark_user_mask of
// fs/notify/inotify/inotify.h), and what a record may add.
const inotifyMask = unix.IN_ALL_EVENTS | unix.IN_ONESHOT | unix.IN_EXCL_UNLINK

// maxWatchNumber bounds the numbers that are gone through to come to one. The
// kernel gives them out in order and never again.
const maxWatchNumber = 1 << 20

// inotifyWatch is a line of fdinfo (inotify_fdinfo of fs/notify/fdinfo.c).
type inotifyWatch struct {
	wd     int32
	mask   uint32
	inode  inodeID
	handle *unix.FileHandle // nil if the file system has none
}

func parseInotify(f *procfs.FD) ([]inotifyWatch, error) {
	var watches []inotifyWatch
	for _, line := range f.Values("inotify") {
		var w inotifyWatch
		var ino, sdev, ignored uint64
		var size, kind uint32
		var raw string
		n, err := fmt.Sscanf(line, "wd:%x ino:%x sdev:%x mask:%x ignored_mask:%x fhandle-bytes:%x fhandle-type:%x f_handle:%s",
			&w.wd, &ino, &sdev, &w.mask, &ignored, &size, &kind, &raw)
		if n < 5 {
			return nil, fmt.Errorf("read watch in fdinfo: %w", err)
		}
		w.inode = inodeID{unix.Mkdev(uint32(sdev>>20), uint32(sdev&0xfffff)), ino} // MKDEV of include/linux/kdev_t.h
		if handle, err := hex.DecodeString(raw); n == 8 && err == nil {
			h := unix.NewFileHandle(int32(kind), handle)
			w.handle = &h
		}
		watches = append(watches, w)
	}
	slices.SortFunc(watches, func(a, b inotifyWatch) int { return int(a.wd) - int(b.wd) })
	return watches, nil
}

func refuseInotify(v *View, f *procfs.FD) *fault.Error {
	watches, err := parseInotify(f)
	if err != nil {
		return &fault.Error{Code: fault.Inotify, Err: err}
	}
	if unread, err := unreadEvents(v, f); err != nil || unread > 0 {
		return &fault.Error{Code: fault.InotifyEvents, Detail: fmt.Sprintf("%d bytes", unread), Err: err}
	}
	for i := range watches {
		if watches[i].wd > maxWatchNumber {
			return &fault.Error{Code: fault.Inotify, Detail: fmt.Sprintf("watch %d, after so many others", watches[i].wd)}
		}
		if _, err := v.watchedName(&watches[i]); err != nil {
			return &fault.Error{Code: fault.Inotify, Detail: fmt.Sprintf("watch %d", watches[i].wd), Err: err}
		}
	}
	return refuseNameless(v, f)
}

func unreadEvents(v *View, f *procfs.FD) (int, error) {
	fd, err := v.duplicate(f.Number)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	n, err := unix.IoctlGetInt(fd, unix.TIOCINQ)
	if err != nil {
		return 0, fmt.Errorf("read length of queue: %w", err)
	}
	return n, nil
}

func dumpInotify(s *Saver, f *procfs.FD, ref object.Ref) error {
	watches, err := parseInotify(f)
	if err != nil {
		return err
	}
	if err := s.W.Put(uint32(ref), &inotifyRecord{Watches: uint32(len(watches)), Flags: f.Flags &^ unix.O_CLOEXEC}); err != nil {
		return err
	}
	for i := range watches {
		w := &watches[i]
		name, err := s.watchedName(w)
		if err != nil {
			return &fault.Error{Code: fault.Inotify, Object: s.FDName(f.Number), Detail: fmt.Sprintf("watch %d", w.wd), Err: err}
		}
		rec := inotifyWatchRecord{WD: w.wd, Mask: w.mask & inotifyMask, Name: name}
		var st unix.Stat_t
		if err := unix.Lstat(name, &st); err != nil {
			return err
		}
		if st.Mode&unix.S_IFMT == unix.S_IFLNK {
			rec.Mask |= unix.IN_DONT_FOLLOW
		}
		if err := s.W.Put(uint32(ref), &rec); err != nil {
			return err
		}
	}
	return nil
}

func readInotify(b *Builder, ref object.Ref) (*inotifyRecord, []*inotifyWatchRecord, error) {
	rec, head, err := image.Expect[inotifyRecord](b.R)
	if err != nil {
		return nil, nil, err
	}
	what := fmt.Sprintf("open file %d", ref)
	if head.Parent != uint32(ref) {
		return nil, nil, badImage(fault.ImageValue, what, "owner %d", head.Parent)
	}
	var watches []*inotifyWatchRecord
	last := int32(0)
	for range rec.Watches {
		w, _, err := image.Expect[inotifyWatchRecord](b.R)
		if err != nil {
			return nil, nil, err
		}
		if w.WD <= last || w.WD > maxWatchNumber || w.Mask&unix.IN_ALL_EVENTS == 0 || w.Mask&^(inotifyMask|unix.IN_DONT_FOLLOW) != 0 {
			return nil, nil, badImage(fault.ImageValue, what, "watch %d, events %#x", w.WD, w.Mask)
		}
		last = w.WD
		watches = append(watches, w)
	}
	return rec, watches, nil
}

func loadInotify(b *Builder, ref object.Ref) (*stagedOpen, error) {
	rec, watches, err := readInotify(b, ref)
	if err != nil {
		return nil, err
	}
	open := b.nameless(b.Stage().Call(unix.SYS_INOTIFY_INIT1, tracer.Imm(unix.O_CLOEXEC|unix.O_NONBLOCK)), "inotify")
	rows := make([]*tracer.Row, len(watches))
	next := int32(1)
	for i, w := range watches {
		name, err := b.named(w.Name)
		if err != nil {
			return nil, err
		}
		add := func() *tracer.Row {
			p := b.Stage()
			return b.Expect(p.Call(unix.SYS_INOTIFY_ADD_WATCH, open.fd, tracer.Ptr(p.String(name)), tracer.Imm(w.Mask)), fault.WatchLost, w.Name)
		}
		for skipped := 0; next < w.WD; next++ {
			b.Expect(b.Stage().Call(unix.SYS_INOTIFY_RM_WATCH, open.fd, add()), fault.WatchLost, w.Name)
			if skipped++; skipped == inotifyAtOnce || next == w.WD-1 {
				if err := b.drainInotify(open, skipped); err != nil {
					return nil, err
				}
				skipped = 0
			}
		}
		rows[i] = add()
		next++
	}
	b.setFlags(open, rec.Flags)
	open.verify = func(*procfs.FD) error {
		for i, w := range watches {
			if got := int32(rows[i].Result()); got != w.WD {
				return &fault.Error{Code: fault.WatchLost, Object: w.Name, Detail: fmt.Sprintf("as watch %d, not %d", got, w.WD)}
			}
		}
		return nil
	}
	return open, nil
}

// inotifyAtOnce is how many numbers are gone through by one program.
const inotifyAtOnce = 4096

// drainInotify reads the events that tell that so many watches have gone, and
// runs what has gathered.
func (b *Builder) drainInotify(open *stagedOpen, n int) error {
	p := b.Stage()
	size := uint64(n) * unix.SizeofInotifyEvent
	p.Read(open.fd, p.Buffer(size), size).Tolerate() // a full queue holds fewer
	if n < inotifyAtOnce {
		return nil
	}
	return b.Flush()
}
