package core

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/resource"
	"github.com/crshim/crshim/tracer/procfs"
)

// Mount is a mount of a container that a copy of the mounts of the host, or of
// those at the directory that is its root, does not have.
type Mount struct {
	Place    string    // in the container
	Kind     MountKind // how it is made again
	Attr     uint64    // MOUNT_ATTR_* of linux/mount.h
	ReadOnly bool      // not only the mount, the file system itself
	Deep     bool      // with what is mounted below its source (MS_REC)
	Filled   bool      // the contents of the file system are in the image
	From     uint32    // of a MountInside: which mount of the list has its source
	FSType   string    // of a MountNew
	Options  string    // of a MountNew, as mount(2) takes them
	Source   string    // what is bound: a path of the host or, for MountInside, within From; of a MountNew its name
}

// MountKind says how a mount is made.
type MountKind uint32

// Kinds of mounts.
const (
	MountRoot   MountKind = iota + 1 // the root of the container: the directory that crshim was given
	MountNew                         // a file system of its own
	MountHost                        // bound from the host
	MountInside                      // bound from another mount of the list
)

// maxMounts bounds the list of an image.
const maxMounts = 1024

// fileSystems are the types of which a new one is as good as the old, apart from
// what is in it, with the options that mount(2) takes again.
var fileSystems = map[string]struct {
	options []string
	filled  bool
}{
	"tmpfs": {options: []string{"size", "nr_blocks", "nr_inodes", "mode", "uid", "gid", "huge", "mpol", "inode32", "inode64", "noswap"},
		filled: true},
	"proc":   {options: []string{"hidepid", "gid", "subset"}},
	"devpts": {options: []string{"gid", "mode", "ptmxmode", "max"}},
	"mqueue": {},
	"sysfs":  {},
}

// mountPlan is the search for how the mounts of a container can be made again.
type mountPlan struct {
	view         *resource.View
	theirs, ours *mountTable
	rootfs       string // where the root of the container is, "" for that of the host
	uids, gids   procfs.IDs

	known   map[string]int // copies of ours that a new container has, too
	made    map[int]bool   // mounts of theirs, by id, that are there or on the list
	primary map[device]int // place in the list of the mount that has all of a file system
	list    []Mount
	infos   []*mountinfo.Info // of the list
	refused fault.List
}

// planMounts says how to make the mounts of a container again.
func planMounts(v *resource.View, rootfs string) (*mountPlan, error) {
	self, err := procfs.Open(procfs.PID(os.Getpid()))
	if err != nil {
		return nil, err
	}
	defer self.Close()
	p, err := planFrom(v, self, rootfs)
	if err != nil {
		return nil, err
	}
	own, err := v.Proc.NS("pid")
	if err != nil {
		return nil, err
	}
	for i, m := range p.infos {
		if p.list[i].Kind == MountNew && m.FSType == "proc" && p.procOf(m) != own {
			p.refuse(m.Mountpoint, "proc of another pid namespace")
		}
	}
	return p, nil
}

// procOf is the pid namespace that a proc file system tells of, by its inode; 0 if that cannot be seen.
func (p *mountPlan) procOf(m *mountinfo.Info) uint64 {
	if p.theirs.at(m.Mountpoint) != m {
		return 0
	}
	var st unix.Stat_t // of a link of the kernel's, which leads to the namespace of the first process
	if err := unix.Stat(fmt.Sprintf("/proc/%d/root%s/1/ns/pid", p.view.PID, m.Mountpoint), &st); err != nil {
		return 0
	}
	return st.Ino
}

// planFrom says how to make the mounts of a process again where those of another one are.
func planFrom(v *resource.View, base *procfs.Proc, rootfs string) (p *mountPlan, err error) {
	p = &mountPlan{view: v, rootfs: rootfs, known: make(map[string]int), made: make(map[int]bool), primary: make(map[device]int)}
	if p.ours, err = readMountTable(base); err != nil {
		return nil, err
	}
	if p.theirs, err = readMountTable(v.Proc); err != nil {
		return nil, err
	}
	if p.uids, err = v.Proc.UIDs(); err != nil {
		return nil, err
	}
	if p.gids, err = v.Proc.GIDs(); err != nil {
		return nil, err
	}
	if p.rootfs != "" {
		if real, err := filepath.EvalSymlinks(p.rootfs); err == nil {
			p.rootfs = real
		}
	}
	if v.Root != "/" {
		p.refuse("/", "its root is "+v.Root+", and mounts outside of it cannot be seen")
		return p, nil
	}
	p.begin()
	p.takeAll()
	if len(p.list) > maxMounts {
		p.refuse("/", fmt.Sprintf("there are %d mounts, more than %d", len(p.list), maxMounts))
	}
	return p, nil
}

func (p *mountPlan) refuse(place, why string) {
	p.refused = append(p.refused, &fault.Error{Code: fault.ContainerMounts, Object: place + " of " + p.view.Name(), Detail: why})
}

// begin takes note of what a new container has before anything is mounted in it.
func (p *mountPlan) begin() {
	for _, o := range p.ours.all {
		place := o.Mountpoint
		if p.rootfs != "" {
			if place == p.rootfs || !within(place, p.rootfs) {
				continue
			}
			place = below(place, p.rootfs)
		}
		p.known[mountKey(o, place)]++
	}
	if p.rootfs == "" {
		return
	}
	top := p.theirs.top
	p.add(Mount{Place: "/", Kind: MountRoot}, top)
	p.checkShared(top)
	p.checkAttr(top)
}

// mountKey is the same for a mount and its copy in another namespace.
func mountKey(m *mountinfo.Info, place string) string {
	return fmt.Sprintf("%d:%d %s %s %s", m.Major, m.Minor, m.Root, place, m.Options)
}

// takeAll goes through their mounts, which the kernel lists as they were made, until
// each has found the one it lies upon and the one that it is bound from.
func (p *mountPlan) takeAll() {
	rest := p.theirs.all
	for progress := true; progress && len(rest) > 0; {
		progress = false
		var later []*mountinfo.Info
		for _, m := range rest {
			if p.made[m.ID] {
				continue
			}
			if m != p.theirs.top && !p.made[m.Parent] || !p.take(m) {
				later = append(later, m)
				continue
			}
			p.made[m.ID] = true
			progress = true
		}
		rest = later
	}
	for _, m := range rest {
		p.refuse(m.Mountpoint, m.FSType+", of which only "+m.Root+" is mounted")
	}
}

func (p *mountPlan) add(m Mount, info *mountinfo.Info) {
	m.Attr = attrOf(info.Options)
	p.list, p.infos = append(p.list, m), append(p.infos, info)
	p.made[info.ID] = true
}

// take finds out how one mount can be made, and tells whether it has: another one
// may have to come before it.
func (p *mountPlan) take(m *mountinfo.Info) bool {
	key := mountKey(m, m.Mountpoint)
	if p.known[key] > 0 {
		p.known[key]--
		p.checkShared(m)
		return true
	}
	dev := deviceOf(m)
	kind, own := fileSystems[m.FSType]
	path := p.ours.find(dev, m.Root)
	from, inside := p.primary[dev]
	top := p.theirs.top
	switch {
	case m.Mountpoint == "/":
		p.refuse("/", m.FSType)
		return true
	case strings.HasSuffix(m.Root, "//deleted"):
		p.refuse(m.Mountpoint, "what it was bound from is deleted")
		return true
	case inside:
		p.add(Mount{Place: m.Mountpoint, Kind: MountInside, From: uint32(from), Source: m.Root}, m)
	case p.rootfs != "" && dev == deviceOf(top) && within(m.Root, top.Root):
		p.add(Mount{Place: m.Mountpoint, Kind: MountInside, Source: below(m.Root, top.Root)}, m)
	case path != "":
		bound := Mount{Place: m.Mountpoint, Kind: MountHost, Source: path}
		bound.Deep = p.bringsAll(m, path)
		p.add(bound, m)
	case !own || p.ours.has(dev):
		p.refuse(m.Mountpoint, m.FSType)
		return true
	case m.Root != "/":
		return false
	default:
		options, why := p.optionsOf(m)
		if why != "" {
			p.refuse(m.Mountpoint, why)
			return true
		}
		if kind.filled && p.theirs.at(m.Mountpoint) != m {
			p.refuse(m.Mountpoint, m.FSType+", whose contents another mount covers")
			return true
		}
		p.primary[dev] = len(p.list)
		p.add(Mount{Place: m.Mountpoint, Kind: MountNew, FSType: m.FSType, Options: options, Source: m.Source,
			Filled: kind.filled, ReadOnly: slices.Contains(strings.Split(m.VFSOptions, ","), "ro")}, m)
	}
	p.checkShared(m)
	p.checkAttr(m)
	return true
}

// bringsAll tells whether a bind mount has below it what our source has, and
// nothing else of that: it was made with all below it, and what came with it
// needs not be made. To bind without is not permitted in a user namespace, where
// it would show what lies beneath.
func (p *mountPlan) bringsAll(m *mountinfo.Info, source string) bool {
	var brought []int
	for _, o := range p.ours.all {
		if o.Mountpoint == source || !within(o.Mountpoint, source) {
			continue
		}
		place := filepath.Join(m.Mountpoint, below(o.Mountpoint, source))
		i := slices.IndexFunc(p.theirs.all, func(t *mountinfo.Info) bool {
			return t.Mountpoint == place && deviceOf(t) == deviceOf(o) && t.Root == o.Root && !p.made[t.ID] &&
				attrOf(t.Options) == attrOf(o.Options)|attrOf(m.Options)&unix.MOUNT_ATTR_RDONLY
		})
		if i < 0 {
			return false
		}
		brought = append(brought, p.theirs.all[i].ID)
	}
	for _, id := range brought {
		p.made[id] = true
	}
	return len(brought) > 0
}

// checkShared refuses what is not private, as all mounts of a container are at first.
func (p *mountPlan) checkShared(m *mountinfo.Info) {
	if m.Optional != "" {
		p.refuse(m.Mountpoint, m.Optional)
	}
}

func (p *mountPlan) checkAttr(m *mountinfo.Info) {
	for option := range strings.SplitSeq(m.Options, ",") {
		if _, known := mountAttrs[option]; !known {
			p.refuse(m.Mountpoint, "mounted with "+option)
		}
	}
}

// mountAttrs are the options of a mount; without one of those about times of
// access it has MOUNT_ATTR_STRICTATIME.
var mountAttrs = map[string]uint64{
	"rw": 0, "ro": unix.MOUNT_ATTR_RDONLY, "nosuid": unix.MOUNT_ATTR_NOSUID, "nodev": unix.MOUNT_ATTR_NODEV, "noexec": unix.MOUNT_ATTR_NOEXEC,
	"nosymfollow": unix.MOUNT_ATTR_NOSYMFOLLOW, "nodiratime": unix.MOUNT_ATTR_NODIRATIME,
	"relatime": unix.MOUNT_ATTR_RELATIME, "noatime": unix.MOUNT_ATTR_NOATIME,
}

func attrOf(options string) (attr uint64) {
	if !strings.Contains(options, "relatime") && !strings.Contains(options, "noatime") {
		attr = unix.MOUNT_ATTR_STRICTATIME
	}
	for option := range strings.SplitSeq(options, ",") {
		attr |= mountAttrs[option]
	}
	return attr
}

// optionsOf are the options of a file system that are to be given to mount(2),
// or why there is none like it.
func (p *mountPlan) optionsOf(m *mountinfo.Info) (options, why string) {
	kind := fileSystems[m.FSType]
	var kept []string
	for option := range strings.SplitSeq(m.VFSOptions, ",") {
		name, value, _ := strings.Cut(option, "=")
		switch {
		case option == "rw" || option == "ro" || option == "seclabel":
			continue
		case !slices.Contains(kind.options, name):
			return "", m.FSType + " with option " + option
		case name == "uid" || name == "gid":
			known := map[string]procfs.IDs{"uid": p.uids, "gid": p.gids}[name]
			id, err := strconv.ParseUint(value, 10, 32)
			inside, ok := known.In(uint32(id)) // the kernel shows what it is to itself
			if err != nil || !ok {
				return "", m.FSType + " with option " + option
			}
			option = fmt.Sprintf("%s=%d", name, inside)
		}
		kept = append(kept, option)
	}
	return strings.Join(kept, ","), ""
}

// checkOptions tells whether options of an image are such as we write.
func checkOptions(fstype, options string) bool {
	kind, ok := fileSystems[fstype]
	if !ok || options == "" {
		return ok
	}
	for option := range strings.SplitSeq(options, ",") {
		name, _, _ := strings.Cut(option, "=")
		if !slices.Contains(kind.options, name) {
			return false
		}
	}
	return true
}
