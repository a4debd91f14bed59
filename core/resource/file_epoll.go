package resource

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/core/object"
	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// epoll is a set of watched descriptors, epoll_create(2). A watch belongs to an
// open file and the number under which it was added, both (struct
// epoll_filefd of fs/eventpoll.c), and fdinfo tells the number.
var epoll = FileKind{
	Name:    "epoll",
	Support: Partial,
	Note: "Watched descriptors with their events and data, epoll within epoll. What is ready is reported once more where " +
		"EPOLLET had reported it; a watch that EPOLLONESHOT has switched off is switched on for errors and hang-ups. Refused " +
		"if a watched number has been closed while its file is still open.",
	Records: []image.Spec{
		image.Row[epollRecord](epollKind, "FD_EPOLL", image.InFiles, "an epoll instance; its parent is the reference of the open file; EPOLL_WATCHes follow"),
		image.Row[epollWatchRecord](epollWatchKind, "EPOLL_WATCH", image.InFiles, "one watched descriptor"),
	},
	Match:  func(_ *View, f *procfs.FD) bool { return f.Target == "anon_inode:[eventpoll]" },
	Refuse: refuseEpoll,
	Dump: func(s *Saver, f *procfs.FD, ref object.Ref) error {
		watches, err := readWatches(f)
		if err != nil {
			return err
		}
		if err := s.W.Put(uint32(ref), &epollRecord{Watches: uint32(len(watches)), Flags: f.Flags &^ unix.O_CLOEXEC}); err != nil {
			return err
		}
		for i := range watches {
			if err := s.W.Put(uint32(ref), &watches[i]); err != nil {
				return err
			}
		}
		return nil
	},
	Kind: epollKind,
	Load: loadEpoll,
}

const (
	epollKind      image.Kind = 6416
	epollWatchKind image.Kind = 6417
)

type epollRecord struct {
	Watches uint32 `doc:"how many EPOLL_WATCHes follow"`
	Flags   uint32 `fmt:"oct" doc:"open flags"`
}

type epollWatchRecord struct {
	FD     int32  `doc:"number under which it is watched"`
	Events uint32 `fmt:"hex" doc:"EPOLL* of epoll_ctl(2)"`
	Data   uint64 `fmt:"hex" doc:"what the program wants to be told"`
}

// readWatches reads lines as ep_show_fdinfo of fs/eventpoll.c prints them.
func readWatches(f *procfs.FD) ([]epollWatchRecord, error) {
	var watches []epollWatchRecord
	for _, line := range f.Values("tfd") {
		var w epollWatchRecord
		if _, err := fmt.Sscanf(line, "%d events: %x data: %x", &w.FD, &w.Events, &w.Data); err != nil {
			return nil, fmt.Errorf("read tfd in fdinfo: %w", err)
		}
		watches = append(watches, w)
	}
	return watches, nil
}

func refuseEpoll(v *View, f *procfs.FD) *fault.Error {
	watches, err := readWatches(f)
	if err != nil {
		return &fault.Error{Code: fault.Epoll, Err: err}
	}
	seen := make(map[int32]bool)
	for _, w := range watches {
		target := fmt.Sprintf("fd %d", w.FD)
		order, err := 1, error(nil)
		if !seen[w.FD] && slices.ContainsFunc(v.FDs, func(o procfs.FD) bool { return o.Number == w.FD }) {
			order, err = kcmpEpoll(v.PID, w.FD, f.Number)
		}
		if err != nil || order != 0 {
			return &fault.Error{Code: fault.Epoll, Detail: target, Err: err}
		}
		seen[w.FD] = true
	}
	return refuseNameless(v, f)
}

// stagedEpoll is an epoll instance in the caller and what it is to watch.
type stagedEpoll struct {
	open    *stagedOpen
	watches []*epollWatchRecord
}

func loadEpoll(b *Builder, ref object.Ref) (*stagedOpen, error) {
	rec, head, err := image.Expect[epollRecord](b.R)
	if err != nil {
		return nil, err
	}
	if head.Parent != uint32(ref) {
		return nil, badImage(fault.ImageValue, fmt.Sprintf("open file %d", ref), "owner %d", head.Parent)
	}
	open := b.nameless(b.Stage().Call(unix.SYS_EPOLL_CREATE1, tracer.Imm(unix.O_CLOEXEC)), "epoll")
	open.epoll = &stagedEpoll{open: open}
	for range rec.Watches {
		w, _, err := image.Expect[epollWatchRecord](b.R)
		if err != nil {
			return nil, err
		}
		open.epoll.watches = append(open.epoll.watches, w)
	}
	b.setFlags(open, rec.Flags)
	return open, nil
}

// watch adds the watches once everything is open. The kernel looks at each of
// them: whether the file can be watched, that no circle comes about, that
// the user may have so many. Those whose descriptors wait out of the way are
// added under the numbers that they have there.
func (r *filesRestore) watch(b *Builder) error {
	place := make(map[int32]*stagedEntry, len(r.entries))
	for _, e := range r.entries {
		place[int32(e.final)] = e
	}
	for _, e := range r.epolls() {
		p := b.Stage()
		// A file that is closed is in no set any more.
		e.watches = slices.DeleteFunc(e.watches, func(w *epollWatchRecord) bool { return r.closed[w.FD] })
		for _, w := range e.watches {
			target, ok := place[w.FD]
			if !ok {
				return badImage(fault.ImageValue, "epoll", "fd %d is not open", w.FD)
			}
			row := epollCtl(p, e.open.fd, unix.EPOLL_CTL_ADD, target.at, w)
			if target.replaces {
				r.doubtful = append(r.doubtful, &doubtfulWatch{e, w, row.Tolerate()})
				continue
			}
			b.Expect(row, fault.WatchFailed, fmt.Sprintf("fd %d", w.FD))
		}
	}
	return nil
}

// doubtfulWatch is one of what the policy has put in the place of a file. A
// regular file has no events and cannot be watched; the program is then as one
// to which nothing happens there.
type doubtfulWatch struct {
	epoll *stagedEpoll
	watch *epollWatchRecord
	row   *tracer.Row
}

// watched drops the watches that cannot be, and says so.
func (r *filesRestore) watched(b *Builder) error {
	for _, d := range r.doubtful {
		switch err := d.row.Err(); {
		case err == nil:
		case errors.Is(err, unix.EPERM):
			d.epoll.watches = slices.DeleteFunc(d.epoll.watches, func(w *epollWatchRecord) bool { return w == d.watch })
			b.Warn("epoll does not watch fd %d any more: what --fd has put there has no events", d.watch.FD)
		default:
			return &fault.Error{Code: fault.WatchFailed, Object: fmt.Sprintf("fd %d", d.watch.FD), Err: err}
		}
	}
	return nil
}

func (r *filesRestore) epolls() []*stagedEpoll {
	var all []*stagedEpoll
	for _, o := range r.opened {
		if o.epoll != nil {
			all = append(all, o.epoll)
		}
	}
	return all
}

// aside calls do for each watch of a descriptor that waits out of the way,
// with the numbers that it and its epoll instance have until the move, or
// from then on.
func (r *filesRestore) aside(moved bool, do func(epfd, fd tracer.FD, w *epollWatchRecord)) {
	place := make(map[int32]*stagedEntry, len(r.entries))
	final := make(map[tracer.FD]tracer.FD, len(r.entries))
	for _, e := range r.entries {
		place[int32(e.final)], final[e.at] = e, e.final
	}
	for _, e := range r.epolls() {
		for _, w := range e.watches {
			switch target := place[w.FD]; {
			case target.at == target.final:
			case moved:
				do(final[e.open.fd], target.final, w)
			default:
				do(e.open.fd, target.at, w)
			}
		}
	}
}

// unwatch and rewatch stand around the move in the commit. There is room for
// what is added again, since the same has just been taken away.
func (r *filesRestore) unwatch(p *tracer.Program) {
	r.aside(false, func(epfd, fd tracer.FD, w *epollWatchRecord) { epollCtl(p, epfd, unix.EPOLL_CTL_DEL, fd, w) })
}

func (r *filesRestore) rewatch(p *tracer.Program) {
	r.aside(true, func(epfd, fd tracer.FD, w *epollWatchRecord) { epollCtl(p, epfd, unix.EPOLL_CTL_ADD, fd, w) })
}

func epollCtl(p *tracer.Program, epfd tracer.FD, op int, fd tracer.FD, w *epollWatchRecord) *tracer.Row {
	event := p.Bytes(w.event())
	return p.Call(unix.SYS_EPOLL_CTL, epfd, tracer.Int(op), fd, tracer.Ptr(event))
}
