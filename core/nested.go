package core

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/resource"
	"github.com/crshim/crshim/tracer/procfs"
)

// A process may have left the mount, UTS or IPC namespace of its parent for one of
// its own, which those that descend from it are in, too. It opens such a one again
// as soon as it is there, and brings it to what it was: before anything of the image
// is in the process, whose files it may need.

// findNested finds which namespaces processes have opened, and refuses what could
// not be opened again.
func findNested(all []*relative) (list fault.List, err error) {
	for i, r := range all[1:] {
		refuse := func(detail string) {
			list = append(list, &fault.Error{Code: fault.OtherNamespaces, Object: r.view.Name(), Detail: detail})
		}
		for _, kind := range nestedKinds {
			same, err := sameNamespace(kind.name, r.view, r.parent.view)
			if err != nil {
				return nil, err
			}
			if same {
				continue
			}
			for _, o := range all[:i+1] {
				if same, err = sameNamespace(kind.name, r.view, o.view); err != nil {
					return nil, err
				}
				if same {
					refuse(kind.name + ", that of " + o.view.Name() + ", who is not its parent")
					break
				}
			}
			if r.own == nil {
				r.own = new(nested)
			}
			r.own.own |= kind.bit
		}
		if r.maker != r.parent {
			same, err := sameNamespace("pid", r.view, r.maker.view)
			if err != nil {
				return nil, err
			}
			if !same || r.own != nil || r.maker.own != nil {
				refuse("and it shares with " + r.maker.view.Name() + ", which has the same parent")
			}
		}
		if root := all[0].view; r.within(nestedIPC) && hasSegments(r.view) {
			refuse("ipc, with System V shared memory of " + root.Name() + " or its own")
		}
		if r.own != nil && r.own.own&nestedMounts != 0 {
			refused, err := r.planMounts(all)
			if err != nil {
				return nil, err
			}
			list = append(list, refused...)
		}
	}
	return list, nil
}

// within tells whether a process is in a namespace that it or one from whom it descends
// has opened.
func (r *relative) within(bit uint32) bool {
	for ; r != nil; r = r.parent {
		if r.own != nil && r.own.own&bit != 0 {
			return true
		}
	}
	return false
}

func hasSegments(v *resource.View) bool {
	return slices.ContainsFunc(v.Mappings, func(m procfs.Mapping) bool { return m.Special() == procfs.SpecialSysV })
}

// planMounts says how to bring a copy of the mounts of the parent to what a process has.
func (r *relative) planMounts(all []*relative) (fault.List, error) {
	p, err := planFrom(r.view, r.parent.view.Proc, "")
	if err != nil {
		return nil, err
	}
	if r.parent.view.Root != "/" {
		p.refuse("/", "made in the root directory "+r.parent.view.Root)
	}
	p.checkKept()
	for i, info := range p.infos {
		m := nestedMount{Mount: p.list[i], by: r.number(all)}
		switch {
		case m.Kind == MountInside && p.theirs.at(p.list[m.From].Place) != p.infos[m.From], m.ReadOnly:
			p.refuse(m.Place, "read-only, or covered by another mount")
		case m.Filled:
			if why := p.emptiness(m.Place, m.Options); why != "" {
				p.refuse(m.Place, why)
			}
		case m.Kind == MountNew && m.FSType == "proc":
			first := r.firstOf(all, p.procOf(info))
			if first == nil {
				p.refuse(m.Place, "proc of a pid namespace that none of its descendants is the first of")
				break
			}
			m.by = first.number(all)
		}
		if i > 0 && m.by == r.number(all) && slices.ContainsFunc(r.own.mounts, func(o nestedMount) bool { return o.by != m.by && within(m.Place, o.Place) }) {
			p.refuse(m.Place, "mounted upon the proc of a process within")
		}
		r.own.mounts = append(r.own.mounts, m)
	}
	for o := r.parent; o != nil; o = o.parent {
		if o.own == nil || o.own.own&nestedMounts == 0 {
			continue
		}
		for _, m := range o.own.mounts {
			if m.by != o.number(all) && !r.descends(m.by, all) {
				p.refuse(m.Place, "mounted by a process that it does not descend from")
			}
		}
		break
	}
	return p.refused, nil
}

// number is that of a process in the pid namespace of the first one.
func (r *relative) number(all []*relative) int32 {
	return int32(r.view.Status.NStgid[len(all[0].view.Status.NStgid)-1])
}

// descends tells whether a process comes down from the one with that number, or is it.
func (r *relative) descends(number int32, all []*relative) bool {
	for ; r != nil; r = r.parent {
		if r.number(all) == number {
			return true
		}
	}
	return false
}

// firstOf is who has the mounts of a process and a pid namespace, as the first one of
// that; the process itself if it is in there. nil if there is nobody.
func (r *relative) firstOf(all []*relative, ns uint64) *relative {
	for _, o := range all {
		mounts, errMounts := sameNamespace("mnt", o.view, r.view)
		own, err := o.view.Namespace("pid")
		if errors.Join(errMounts, err) == nil && own == ns && mounts && (o == r || o.view.VPID() == firstPID && o.descends(r.number(all), all)) {
			return o
		}
	}
	return nil
}

// checkKept refuses what a copy has and the process has not: it has unmounted it, or has
// another root.
func (p *mountPlan) checkKept() {
	for key, n := range p.known {
		if n > 0 {
			p.refuse("/", "without "+key+", which its parent has")
		}
	}
}

// emptiness says why a tmpfs is not like a new one.
func (p *mountPlan) emptiness(place, options string) string {
	at := fmt.Sprintf("/proc/%d/root%s", p.view.PID, place)
	entries, err := os.ReadDir(at)
	if err != nil {
		return err.Error()
	}
	var st unix.Stat_t
	if err := unix.Stat(at, &st); err != nil {
		return err.Error()
	}
	var mode uint32 = 0o1777
	var uid, gid uint32
	for option := range strings.SplitSeq(options, ",") {
		_, _ = fmt.Sscanf(option, "mode=%o", &mode)
		_, _ = fmt.Sscanf(option, "uid=%d", &uid)
		_, _ = fmt.Sscanf(option, "gid=%d", &gid)
	}
	u, uOK := p.uids.In(st.Uid)
	g, gOK := p.gids.In(st.Gid)
	if len(entries) > 0 || st.Mode&0o7777 != mode || !uOK || !gOK || u != uid || g != gid {
		return "tmpfs with something in it, or with a root of another owner or mode than it was mounted with"
	}
	return ""
}

// askNested has processes tell of the UTS and IPC namespaces that they have opened.
func (c *checkpoint) askNested() error {
	for i, m := range c.members {
		own := c.relatives[i].own
		if own == nil {
			continue
		}
		if own.own&nestedUTS != 0 {
			var err error
			if own.hostname, own.domain, err = m.names(); err != nil {
				return err
			}
		}
		if own.own&nestedIPC == 0 {
			continue
		}
		ipc, err := m.saver.AskNamespaces(false)
		if err != nil {
			return err
		}
		if ipc.Objects() {
			return &fault.Error{Code: fault.OtherNamespaces, Object: m.view.Name(), Detail: "ipc, with objects in it"}
		}
		own.settings = ipc.Settings()
	}
	return nil
}
