package resource

import (
	"slices"

	"github.com/crshim/crshim/tracer/procfs"
)

// initialUser is the inode number of the first user namespace, whose rights
// are those over the machine (PROC_USER_INIT_INO of include/linux/proc_ns.h).
const initialUser = 0xEFFFFFFD

// userNamespace reads what the user namespace of the process knows.
func (v *View) userNamespace() (*userNamespace, error) {
	var ns userNamespace
	var err error
	if ns.uids, err = v.Proc.UIDs(); err != nil {
		return nil, err
	}
	if ns.gids, err = v.Proc.GIDs(); err != nil {
		return nil, err
	}
	ns.groups, err = v.Proc.MaySetGroups()
	return &ns, err
}

// sharesUsers tells whether ids mean to the process what they mean to us.
func (v *View) sharesUsers() (bool, error) { return v.InOurs("user") }

// idsInside are a user and a group as the process calls them. Those that its user
// namespace does not know have the numbers that it sees for them.
func (v *View) idsInside(uid, gid uint32) (uint32, uint32, error) {
	if same, err := v.sharesUsers(); same || err != nil {
		return uid, gid, err
	}
	ns, err := v.userNamespace()
	if err != nil {
		return 0, 0, err
	}
	const overflow = 65534 // DEFAULT_OVERFLOWUID of linux/highuid.h
	inside := func(ids procfs.IDs, id uint32) uint32 {
		if n, ok := ids.In(id); ok {
			return n
		}
		return overflow
	}
	return inside(ns.uids, uid), inside(ns.gids, gid), nil
}

// credentials reads from a status what a thread of the process is, by the
// numbers of its own user namespace. It is false if one of them has none there.
func (v *View) credentials(status *procfs.Status) (c *credentials, ok bool, err error) {
	c = &credentials{
		uid: status.Uid, gid: status.Gid, groups: slices.Clone(status.Groups),
		caps: capabilities{
			inheritable: status.CapInh, permitted: status.CapPrm, effective: status.CapEff,
			bounding: status.CapBnd, ambient: status.CapAmb,
		},
	}
	if same, err := v.sharesUsers(); same || err != nil {
		slices.Sort(c.groups)
		return c, true, err
	}
	ns, err := v.userNamespace()
	if err != nil {
		return nil, false, err
	}
	for _, of := range []struct {
		numbers []uint32
		ids     procfs.IDs
	}{{c.uid[:], ns.uids}, {c.gid[:], ns.gids}, {c.groups, ns.gids}} {
		for i, id := range of.numbers {
			if of.numbers[i], ok = of.ids.In(id); !ok {
				return nil, false, nil
			}
		}
	}
	slices.Sort(c.groups)
	return c, true, nil
}
