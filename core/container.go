package core

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/core/resource"
	"github.com/crshim/crshim/core/task"
)

// Container is what an image tells of a container that crshim has made.
type Container struct {
	User                 UserNamespace
	Net                  NetNamespace
	Init                 bool // the first process is the init of crshim
	Cgroup, Time         bool // control group and time namespaces
	Hostname, Domainname string
	// What CLOCK_MONOTONIC and CLOCK_BOOTTIME showed in a time namespace.
	Monotonic, Boottime time.Duration
	// Rootfs is the directory of the host that is its root, "" if that is the root of the host.
	Rootfs string
	// OwnMounts is set if Mounts tells what is mounted in it, as every image does now.
	OwnMounts bool
	Mounts    []Mount
	// Groups are the control groups that it is in, in hierarchies in which one limits it.
	Groups []task.Group
	plan   *mountPlan // of one that is being saved
}

// UserNamespace says who the user of a container is in it.
type UserNamespace uint32

// User namespaces.
const (
	UserNone UserNamespace = iota // there is none
	UserRoot
	UserKeep
)

// NetNamespace says what network a container has of its own.
type NetNamespace uint32

// Network namespaces.
const (
	NetHost     NetNamespace = iota // none of its own
	NetNone                         // nothing is up
	NetLoopback                     // lo is
)

// firstPID is the number of the first process of a pid namespace.
const firstPID = 1

func (c *Container) record() *image.Container {
	rec := &image.Container{User: uint32(c.User), Net: uint32(c.Net)}
	for bit, set := range map[uint32]bool{image.OwnInit: c.Init, image.OwnCgroup: c.Cgroup, image.OwnTime: c.Time} {
		if set {
			rec.Own |= bit
		}
	}
	copy(rec.Hostname[:], c.Hostname)
	copy(rec.Domainname[:], c.Domainname)
	return rec
}

// readContainer reads the record, if there is one.
func readContainer(r *image.Reader, f *forest) (*Container, error) {
	if next, err := r.Peek(); err != nil || next != image.KindContainer {
		return nil, err
	}
	rec, _, err := image.Expect[image.Container](r)
	if err != nil {
		return nil, err
	}
	c := &Container{
		User: UserNamespace(rec.User), Net: NetNamespace(rec.Net),
		Init: rec.Own&image.OwnInit != 0, Cgroup: rec.Own&image.OwnCgroup != 0, Time: rec.Own&image.OwnTime != 0,
		Hostname: unix.ByteSliceToString(rec.Hostname[:]), Domainname: unix.ByteSliceToString(rec.Domainname[:]),
	}
	const own = image.OwnInit | image.OwnCgroup | image.OwnTime
	if c.User > UserKeep || c.Net > NetLoopback || rec.Own&^own != 0 || f.living[0].VPID != firstPID {
		return nil, &fault.Error{Code: fault.ImageValue, Object: "image", Detail: "CONTAINER"}
	}
	if c.Time {
		if err := c.readClocks(r); err != nil {
			return nil, err
		}
	}
	if err := c.readMounts(r); err != nil {
		return nil, err
	}
	return c, c.readGroups(r)
}

// checkFirst refuses to make the first process of a pid namespace one among
// others: orphans would not come to it, and those below it know it as 1.
func (r *restart) checkFirst() error {
	view := r.plants[0].view
	if r.forest.living[0].VPID != firstPID || view.VPID() == firstPID {
		return nil
	}
	return &fault.Error{Code: fault.NotFirst, Object: "pid 1 of the image", Detail: fmt.Sprintf("%s is number %d of its namespace", view.Name(), view.VPID())}
}

// tellReady tells who wants to know it that all processes are in place.
func (r *restart) tellReady() error {
	if r.ready == nil {
		return nil
	}
	var second PID
	for _, p := range r.plants[1:] {
		if p.VPID == firstPID+1 {
			second = p.tracee.TID()
		}
	}
	return r.ready(r.tracee.TID(), second)
}

// containerOf returns the container that a process stands for, nil if it is
// none of crshim's.
func (e *Engine) containerOf(v *resource.View) *Container {
	if v.VPID() != firstPID {
		return nil
	}
	return e.launcher(v.Stat.PPid)
}
