package resource

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/tracer/procfs"
)

func (*memorySave) Survey(v *View) fault.List {
	var list fault.List
	shared := make(map[inodeID]*procfs.Mapping)
	for i := range v.Mappings {
		m := &v.Mappings[i]
		refuse := func(code fault.Code, detail string) {
			list = append(list, &fault.Error{Code: code, Object: v.MappingName(m), Detail: detail})
		}
		if code := refusedMapping(m); code != 0 {
			refuse(code, "")
			continue
		}
		if kind := inodeKindOf(m); kind != nil {
			if err := kind.refuseMapped(v, m); err != nil {
				refuse(kind.Code, err.Error())
			}
			continue
		}
		switch m.Special() {
		case procfs.SpecialNone, procfs.SpecialAnon, procfs.SpecialStack, procfs.SpecialHeap:
			if m.Inode == 0 {
				continue
			}
			if m.Deleted {
				refuse(fault.MemoryUnlinked, "")
			} else if err := reachable(v, m); err != nil {
				refuse(fault.MemoryUnreachable, err.Error())
			}
		case procfs.SpecialSharedAnon, procfs.SpecialAnonShmem:
			if m.SwapBytes > 0 {
				refuse(fault.MemoryUnreadable, "shared memory that is swapped out")
			}
			shared[mappedID(m)] = m
		case procfs.SpecialHugeTLB:
			if why := refusePool(v, m); why != "" {
				refuse(fault.MemoryHugetlb, why)
			} else if m.Perms.Shared {
				shared[mappedID(m)] = m
			}
		}
	}
	if refused := v.refuseSpace(); refused != nil {
		list = append(list, refused)
	}
	if len(shared) > 0 && !v.Self {
		for m, pid := range v.sharesMapped(shared) {
			list = append(list, &fault.Error{Code: fault.MemoryShared, Object: v.MappingName(m), Detail: fmt.Sprintf("with pid %d", pid)})
		}
	}
	return list
}

// refusedMapping names the kinds that are never saved; 0 for all others.
func refusedMapping(m *procfs.Mapping) fault.Code {
	switch m.Special() {
	case procfs.SpecialVDSO, procfs.SpecialVVar, procfs.SpecialVVarVClock:
		if m.Flags&procfs.VMSealed != 0 {
			return fault.MemorySealed
		}
		return 0
	case procfs.SpecialVSyscall:
		return 0
	case procfs.SpecialUprobes, procfs.SpecialAIO, procfs.SpecialOther:
		return fault.MemorySpecial
	}
	switch f := m.Flags; {
	case f&procfs.VMHugeTLB != 0 && m.Special() != procfs.SpecialHugeTLB && m.Special() != procfs.SpecialMemfd:
		return fault.MemoryHugetlb
	case m.Name == "/secretmem" && m.Deleted:
		return fault.MemorySecret
	case f&(procfs.VMIO|procfs.VMPFNMap|procfs.VMMixedMap) != 0:
		return fault.MemoryDevice
	case f&(procfs.VMUffdMissing|procfs.VMUffdWP|procfs.VMUffdMinor) != 0:
		return fault.MemoryUserfaultfd
	case f&procfs.VMShadowStack != 0:
		return fault.MemoryShadowStack
	case f&(procfs.VMDroppable|procfs.VMSync) != 0:
		return fault.MemorySpecial
	}
	return 0
}

// reachable checks that the mapped file's name still leads to it.
func reachable(v *View, m *procfs.Mapping) error {
	st, err := v.statMapped(m)
	switch {
	case err != nil:
		return err
	case st.Mode&unix.S_IFMT != unix.S_IFREG && (st.Rdev != zeroDevice || m.Perms.Shared):
		return errors.New("not a regular file")
	case st.Ino != m.Inode:
		return errors.New("another file has that name now")
	}
	return nil
}

// sharesMapped looks for other processes that map the same objects. Those whose
// maps we may not read cannot be asked; they belong to other users.
func (v *View) sharesMapped(objects map[inodeID]*procfs.Mapping) map[*procfs.Mapping]procfs.PID {
	found := make(map[*procfs.Mapping]procfs.PID)
	_ = v.eachOther(func(pid procfs.PID, maps []procfs.Mapping) { // without a list nobody is known
		for i := range maps {
			if m, ok := objects[mappedID(&maps[i])]; ok && maps[i].Perms.Shared {
				found[m] = pid
			}
		}
	})
	return found
}

// eachOther calls do with what every process maps that is not saved along with this
// one, and whose maps we may read.
func (v *View) eachOther(do func(pid procfs.PID, maps []procfs.Mapping)) error {
	pids, err := procfs.List()
	if err != nil {
		return err
	}
	for _, pid := range pids {
		if v.inside(pid) {
			continue
		}
		proc, err := procfs.Open(pid)
		if err != nil {
			continue
		}
		maps, err := proc.Maps()
		proc.Close()
		if err == nil {
			do(pid, maps)
		}
	}
	return nil
}
