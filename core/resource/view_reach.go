package resource

import (
	"strings"
)

// reach returns a name by which we find what the process finds by that one.
// /proc shows the names of a process in another mount namespace as they are
// there; its own root leads us in (proc(5), /proc/PID/root).
func (v *View) reach(name string) string {
	if v.sameMounts == nil {
		same := v.inOwnMounts()
		v.sameMounts = &same
	}
	if *v.sameMounts {
		return name
	}
	if v.Root != "/" {
		name = strings.TrimPrefix(name, v.Root)
	}
	return procPath(v.PID, "root") + name
}

// inOwnMounts tells whether the process is in our mount namespace; where that
// cannot be known, names are taken as they stand.
func (v *View) inOwnMounts() bool {
	same, err := v.InOurs("mnt")
	return err != nil || same
}
