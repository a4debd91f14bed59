package resource

import (
	"os"

	"github.com/crshim/crshim/tracer/procfs"
)

// Namespace is the number of one that the process is in (procfs.Proc.NS), which
// does not change while it is stopped.
func (v *View) Namespace(kind string) (uint64, error) {
	if ns, known := v.namespaces[kind]; known {
		return ns, nil
	}
	ns, err := v.Proc.NS(kind)
	if err != nil {
		return 0, err
	}
	if v.namespaces == nil {
		v.namespaces = make(map[string]uint64)
	}
	v.namespaces[kind] = ns
	return ns, nil
}

// InOurs tells whether the process is in the namespace of that kind that we are in.
func (v *View) InOurs(kind string) (bool, error) {
	theirs, err := v.Namespace(kind)
	if err != nil {
		return false, err
	}
	if v.tree != nil {
		if ours, known := v.tree.ours[kind]; known {
			return ours == theirs, nil
		}
	}
	self, err := procfs.Open(procfs.PID(os.Getpid()))
	if err != nil {
		return false, err
	}
	defer self.Close()
	ours, err := self.NS(kind)
	if err != nil {
		return false, err
	}
	if v.tree != nil {
		v.tree.ours[kind] = ours
	}
	return ours == theirs, nil
}
