package resource

import (
	"slices"

	"github.com/crshim/crshim/tracer/procfs"
)

// Offspring is Glance at a process that another one, of which this was the view,
// has forked just now: what it must have of that is not looked up. Descriptors
// that were opened since are numbers alone.
func Offspring(parent *View, pid procfs.PID) (*View, error) {
	v := &View{PID: pid, Self: parent.Self, Root: parent.Root}
	var err error
	if v.Proc, err = procfs.Open(pid); err != nil {
		return nil, err
	}
	if err := v.readOffspring(parent); err != nil {
		v.Close()
		return nil, err
	}
	return v, nil
}

func (v *View) readOffspring(parent *View) (err error) {
	if v.Status, err = v.Proc.Status(); err != nil {
		return err
	}
	stat := *parent.Stat
	stat.PID, stat.PPid = v.PID, parent.PID
	v.Stat = &stat
	if v.Mappings, err = v.Proc.Maps(); err != nil {
		return err
	}
	numbers, err := v.Proc.OpenFDs()
	if err != nil {
		return err
	}
	for _, n := range numbers {
		f := procfs.FD{Number: n}
		if i := slices.IndexFunc(parent.FDs, func(f procfs.FD) bool { return f.Number == n }); i >= 0 {
			f = parent.FDs[i]
		}
		v.FDs = append(v.FDs, f)
	}
	return nil
}
