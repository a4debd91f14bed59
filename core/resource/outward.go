package resource

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/core/object"
)

// Outward is a descriptor of an image that leads out of it, and what a restart
// does about that.
type Outward struct {
	Task   uint32 // process id, as saved
	FD     int32
	What   string // "pipe", "socket", "terminal", "device", "file", "TCP connection"
	Access string // "read", "write", "read and write"
	Name   string // link in /proc/PID/fd when it was saved, or the address of the peer

	// Of the following none is so for a connection that is reset whatever the
	// restarter says.
	Standard int32    // descriptor of the restarter's that takes its place; -1 if none does
	With     int32    // descriptor that it shares the open file with, and what takes the place of that; -1 if it is the first
	Say      []string // words that Policy.Descriptors has to have one of, or a path: nobody else can know
	Keep     bool     // a connection that the policy KeepTCP may keep
}

// Outwards finds what leads out of an image, record by record, in the order of
// the image.
type Outwards struct {
	List []Outward

	task    uint32
	fd      int32 // of the last FD_ENT
	first   map[object.Ref]Outward
	address *inetRecord // of the socket that a TCP_CONNECTION belongs to
}

// Add takes one record, and its parent.
func (o *Outwards) Add(parent uint32, rec any) {
	switch rec := rec.(type) {
	case *image.Files:
		o.task = parent
	case *image.FDEntry:
		o.fd = rec.FD
		if first, shared := o.first[object.Ref(rec.ObjRef)]; shared {
			o.share(first)
		}
	case *externalRecord:
		o.enter(parent, rec.outward(o.fd))
	case *inetRecord:
		o.address = rec
	case *tcpConnectionRecord:
		if o.address != nil && rec.Flags&insideConnection == 0 && o.address.State != unix.BPF_TCP_CLOSE {
			o.enter(parent, o.connection(rec))
		}
	}
}

// enter notes the first descriptor of an open file.
func (o *Outwards) enter(ref uint32, w Outward) {
	w.Task, w.FD, w.With = o.task, o.fd, -1
	if o.first == nil {
		o.first = make(map[object.Ref]Outward)
	}
	o.first[object.Ref(ref)] = w
	o.List = append(o.List, w)
}

// share notes a further one. Each standard descriptor is the restarter's own.
func (o *Outwards) share(w Outward) {
	switch {
	case w.Standard >= 0 && o.fd <= 2:
		w.Standard = o.fd
	default:
		w.With = w.FD
	}
	w.Task, w.FD, w.Say = o.task, o.fd, nil
	o.List = append(o.List, w)
}

func (rec *externalRecord) outward(fd int32) Outward {
	w := Outward{Name: rec.Path, Standard: rec.Standard, Access: "read"}
	switch rec.Flags & unix.O_ACCMODE {
	case unix.O_WRONLY:
		w.Access = "write"
	case unix.O_RDWR:
		w.Access = "read and write"
	}
	hangs := rec.streamType()
	w.What = map[uint32]string{unix.S_IFIFO: "pipe", unix.S_IFSOCK: "socket", unix.S_IFCHR: "terminal", 0: "device"}[hangs]
	if rec.Mode&unix.S_IFMT == unix.S_IFREG {
		w.What = "file"
	}
	switch {
	case rec.Standard >= 0 && fd <= 2:
		w.Standard = fd
	case rec.Standard < 0:
		w.Say = slices.DeleteFunc([]string{InheritFD, NullFD, HangupFD, CloseFD}, func(word string) bool { return word == HangupFD && hangs == 0 })
	}
	return w
}

func (o *Outwards) connection(rec *tcpConnectionRecord) Outward {
	return Outward{
		What: "TCP connection", Access: "read and write", Name: addressText(o.address.Domain, &o.address.Peer), Standard: -1,
		Keep: rec.Flags&hasRepair != 0,
	}
}

// Decision says in words what a restart does about it.
func (w *Outward) Decision() string {
	switch {
	case w.With >= 0:
		return fmt.Sprintf("as fd %d", w.With)
	case w.Standard >= 0:
		return fmt.Sprintf("the restarter's fd %d", w.Standard)
	case len(w.Say) > 0:
		return "--fd has to say"
	case w.Keep:
		return "reset, or kept by --tcp keep"
	}
	return "reset"
}
