package resource

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// What a thread may make of its credentials is known before it does so: each
// call that changes them stands here beside what the kernel does about it. The
// rules are those of setuid(2), setgroups(2), capset(2), prctl(2) and
// capabilities(7), as kernel/sys.c, kernel/groups.c and security/commoncap.c
// of Linux 6.18 have them.

// credentials are what a thread is and may do, as its user namespace has it.
type credentials struct {
	uid, gid [4]uint32 // real, effective, saved, of the file system
	groups   []uint32  // supplementary, ascending
	caps     capabilities
	secure   uint32 // securebits
}

// capabilities has bit n for capability n.
type capabilities struct {
	inheritable, permitted, effective, bounding, ambient uint64
}

const (
	realID = iota
	effectiveID
	savedID
	fileID
)

// userNamespace is what setting ids depends on.
type userNamespace struct {
	uids, gids procfs.IDs
	groups     bool // setgroups(2) is allowed
}

// Capabilities that decide, by their bits.
const (
	setGIDBit  = 1 << unix.CAP_SETGID
	setUIDBit  = 1 << unix.CAP_SETUID
	setPCapBit = 1 << unix.CAP_SETPCAP
	// CAP_FS_SET of include/linux/capability.h.
	fileCaps = 1<<unix.CAP_CHOWN | 1<<unix.CAP_MKNOD | 1<<unix.CAP_DAC_OVERRIDE | 1<<unix.CAP_DAC_READ_SEARCH |
		1<<unix.CAP_FOWNER | 1<<unix.CAP_FSETID | 1<<unix.CAP_LINUX_IMMUTABLE | 1<<unix.CAP_MAC_OVERRIDE
)

// Securebits of include/uapi/linux/securebits.h. Behind each is the one that
// locks it.
const (
	secureNoSetUIDFixup   = 1 << 2
	secureKeepCaps        = 1 << 4
	secureNoAmbientRaise  = 1 << 6
	secureExecRestrict    = 1 << 8
	secureExecInteractive = 1 << 10
	secureAll             = 1<<12 - 1
	secureLocks           = 0xaaa
	// Those that anybody may set, since Linux 6.14.
	secureUnprivileged = (secureExecRestrict | secureExecInteractive) * 3
)

func (c *credentials) can(bit uint64) bool { return c.caps.effective&bit != 0 }

func (c *credentials) equal(d *credentials) bool {
	return c.uid == d.uid && c.gid == d.gid && slices.Equal(c.groups, d.groups) && c.caps == d.caps && c.secure == d.secure
}

// A credCall is one system call about credentials: what it does to them, by
// the kernel's rule, and the call itself.
type credCall struct {
	name string
	rule func(c *credentials, ns *userNamespace) error
	nr   uintptr
	args []any // a uint64, or the []byte that one points to
}

// add adds the call to a program.
func (c credCall) add(p *tracer.Program) *tracer.Row {
	var args []tracer.Arg
	for _, arg := range c.args {
		switch arg := arg.(type) {
		case uint64:
			args = append(args, tracer.Imm(arg))
		case []byte:
			args = append(args, tracer.Ptr(p.Bytes(arg)))
		}
	}
	return p.Call(c.nr, args...)
}

// words are numbers as they are given to a call.
func words(w ...uint64) []any {
	var args []any
	for _, x := range w {
		args = append(args, x)
	}
	return args
}

// setIDs is setresuid(2) or setresgid(2).
func setIDs(user bool, to [4]uint32) credCall {
	name, nr, may := "setresgid", uintptr(unix.SYS_SETRESGID), uint64(setGIDBit)
	if user {
		name, nr, may = "setresuid", unix.SYS_SETRESUID, setUIDBit
	}
	return credCall{
		name: fmt.Sprintf("%s %d, %d, %d", name, to[realID], to[effectiveID], to[savedID]),
		rule: func(c *credentials, ns *userNamespace) error {
			own, known := &c.gid, ns.gids
			if user {
				own, known = &c.uid, ns.uids
			}
			for _, id := range to[:fileID] {
				if !known.Has(id) {
					return unix.EINVAL
				}
				if !slices.Contains(own[:fileID], id) && !c.can(may) {
					return unix.EPERM
				}
			}
			was := *own
			*own = [4]uint32{to[realID], to[effectiveID], to[savedID], to[effectiveID]}
			if user {
				c.fixup(was)
			}
			return nil
		},
		nr:   nr,
		args: words(uint64(to[realID]), uint64(to[effectiveID]), uint64(to[savedID])),
	}
}

// fixup is what becomes of capabilities when root becomes somebody else
// (cap_emulate_setxuid).
func (c *credentials) fixup(was [4]uint32) {
	if c.secure&secureNoSetUIDFixup != 0 {
		return
	}
	if slices.Contains(was[:fileID], 0) && !slices.Contains(c.uid[:fileID], 0) {
		if c.secure&secureKeepCaps == 0 {
			c.caps.permitted, c.caps.effective = 0, 0
		}
		c.caps.ambient = 0
	}
	switch {
	case was[effectiveID] == 0 && c.uid[effectiveID] != 0:
		c.caps.effective = 0
	case was[effectiveID] != 0 && c.uid[effectiveID] == 0:
		c.caps.effective = c.caps.permitted
	}
}

// setFileID is setfsuid(2) or setfsgid(2), which never say that they failed.
func setFileID(user bool, to uint32) credCall {
	name, nr, may := "setfsgid", uintptr(unix.SYS_SETFSGID), uint64(setGIDBit)
	if user {
		name, nr, may = "setfsuid", unix.SYS_SETFSUID, setUIDBit
	}
	return credCall{
		name: fmt.Sprintf("%s %d", name, to),
		rule: func(c *credentials, ns *userNamespace) error {
			own, known := &c.gid, ns.gids
			if user {
				own, known = &c.uid, ns.uids
			}
			if !known.Has(to) {
				return unix.EINVAL
			}
			if !slices.Contains(own[:], to) && !c.can(may) {
				return unix.EPERM
			}
			was := own[fileID]
			own[fileID] = to
			switch {
			case !user || c.secure&secureNoSetUIDFixup != 0:
			case was == 0 && to != 0:
				c.caps.effective &^= fileCaps
			case was != 0 && to == 0:
				c.caps.effective |= c.caps.permitted & fileCaps
			}
			return nil
		},
		nr:   nr,
		args: words(uint64(to)),
	}
}

func setGroups(groups []uint32) credCall {
	return credCall{
		name: fmt.Sprintf("setgroups %v", groups),
		rule: func(c *credentials, ns *userNamespace) error {
			if !c.can(setGIDBit) || !ns.groups {
				return unix.EPERM
			}
			for _, id := range groups {
				if !ns.gids.Has(id) {
					return unix.EINVAL
				}
			}
			c.groups = groups
			return nil
		},
		nr:   unix.SYS_SETGROUPS,
		args: []any{uint64(len(groups)), words32(groups...)},
	}
}

// setCaps is capset(2).
func setCaps(inheritable, permitted, effective uint64) credCall {
	const capsVersion = 0x20080522 // _LINUX_CAPABILITY_VERSION_3
	var data []uint32
	for shift := 0; shift < 64; shift += 32 {
		data = append(data, uint32(effective>>shift), uint32(permitted>>shift), uint32(inheritable>>shift))
	}
	return credCall{
		name: fmt.Sprintf("capset %#x, %#x, %#x", inheritable, permitted, effective),
		rule: func(c *credentials, _ *userNamespace) error {
			own := &c.caps
			switch {
			case !c.can(setPCapBit) && inheritable&^(own.inheritable|own.permitted) != 0,
				inheritable&^(own.inheritable|own.bounding) != 0,
				permitted&^own.permitted != 0,
				effective&^permitted != 0:
				return unix.EPERM
			}
			own.inheritable, own.permitted, own.effective = inheritable, permitted, effective
			own.ambient &= permitted & inheritable
			return nil
		},
		nr:   unix.SYS_CAPSET,
		args: []any{words32(capsVersion, 0), words32(data...)},
	}
}

func dropBounding(bit int) credCall {
	return credCall{
		name: fmt.Sprintf("drop capability %d from the bounding set", bit),
		rule: func(c *credentials, _ *userNamespace) error {
			if !c.can(setPCapBit) {
				return unix.EPERM
			}
			c.caps.bounding &^= 1 << bit
			return nil
		},
		nr:   unix.SYS_PRCTL,
		args: words(unix.PR_CAPBSET_DROP, uint64(bit)),
	}
}

func clearAmbient() credCall {
	return credCall{
		name: "clear ambient capabilities",
		rule: func(c *credentials, _ *userNamespace) error { c.caps.ambient = 0; return nil },
		nr:   unix.SYS_PRCTL,
		args: words(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0),
	}
}

func raiseAmbient(bit int) credCall {
	return credCall{
		name: fmt.Sprintf("raise ambient capability %d", bit),
		rule: func(c *credentials, _ *userNamespace) error {
			if c.caps.permitted&c.caps.inheritable&(1<<bit) == 0 || c.secure&secureNoAmbientRaise != 0 {
				return unix.EPERM
			}
			c.caps.ambient |= 1 << bit
			return nil
		},
		nr:   unix.SYS_PRCTL,
		args: words(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, uint64(bit), 0, 0),
	}
}

// keepCaps sets that securebit by the way that needs no privilege.
func keepCaps(on bool) credCall {
	value := uint64(0)
	if on {
		value = 1
	}
	return credCall{
		name: fmt.Sprintf("set keepcaps to %d", value),
		rule: func(c *credentials, _ *userNamespace) error {
			if c.secure&(secureKeepCaps<<1) != 0 {
				return unix.EPERM
			}
			c.secure &^= secureKeepCaps
			if on {
				c.secure |= secureKeepCaps
			}
			return nil
		},
		nr:   unix.SYS_PRCTL,
		args: words(unix.PR_SET_KEEPCAPS, value),
	}
}

func setSecureBits(to uint32) credCall {
	return credCall{
		name: fmt.Sprintf("set securebits to %#x", to),
		rule: func(c *credentials, _ *userNamespace) error {
			changed := c.secure ^ to
			switch {
			case to&^uint32(secureAll) != 0,
				c.secure&secureLocks>>1&changed != 0,
				c.secure&secureLocks&^to != 0,
				!c.can(setPCapBit) && (changed == 0 || changed&^uint32(secureUnprivileged) != 0):
				return unix.EPERM
			}
			c.secure = to
			return nil
		},
		nr:   unix.SYS_PRCTL,
		args: words(unix.PR_SET_SECUREBITS, uint64(to)),
	}
}
