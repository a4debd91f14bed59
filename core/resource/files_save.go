package resource

import (
	"fmt"
	"os"
	"strconv"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/core/object"
	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// filesSave saves the descriptor table.
type filesSave struct {
	rights []rightToRead
}

func (r *filesSave) Ask(s *Saver, p *tracer.Program) { r.rights = s.askRightToRead(p) }

func (r *filesSave) Answered(s *Saver) error {
	for _, q := range r.rights {
		if err := q.row.Err(); err != nil {
			code := fault.FileUnlinked
			if !isDeleted(q.f) {
				code = fault.FileUnreadable
			}
			return &fault.Error{Code: code, Object: s.FDName(q.f.Number), Detail: "what is in it, the process may not read", Err: err}
		}
	}
	if err := lookAtPtys(s); err != nil {
		return err
	}
	return lookAtUnix(s)
}

func (*filesSave) Survey(v *View) fault.List {
	if v.Running {
		return nil
	}
	var list fault.List
	for i := range v.FDs {
		if v.covered[v.FDs[i].Number] {
			continue
		}
		kind := kindOf(v, &v.FDs[i])
		refusal := kind.Refuse(v, &v.FDs[i])
		if refusal == nil && kind != &external {
			refusal = refuseAttached(v, &v.FDs[i])
		}
		if refusal != nil && v.hasOpen(&v.FDs[i]) {
			refusal.Object = v.FDName(v.FDs[i].Number)
			list = append(list, refusal)
		}
	}
	return list
}

// hasOpen tells whether a descriptor still is what it was: a running process
// may have closed it while we looked.
func (v *View) hasOpen(f *procfs.FD) bool {
	now, err := os.Readlink(procPath(v.PID, "fd", strconv.Itoa(int(f.Number))))
	return err == nil && now == f.Target
}

func (*filesSave) Dump(s *Saver) error {
	if s.tree.Shares(s.View)&image.SharesFiles != 0 {
		return s.W.Put(s.vpid(), new(image.Files)) // its parent has written them
	}
	if err := s.W.Put(s.vpid(), &image.Files{NFDs: uint32(len(s.FDs) - len(s.unix.extra))}); err != nil {
		return err
	}
	locked := make(map[object.Ref]bool)
	for i := range s.FDs {
		f := &s.FDs[i]
		if s.unix.extra[f.Number] {
			continue
		}
		ref, dump, err := s.openFile(f)
		if err != nil {
			return err
		}
		entry := image.FDEntry{ObjRef: uint32(ref), FD: f.Number}
		switch {
		case s.lent[f.Number]:
			entry.CloseOnExec = heldForTree
		case f.CloseOnExec():
			entry.CloseOnExec = 1
		}
		if err := s.W.Put(0, &entry); err != nil {
			return err
		}
		if err := dump(); err != nil {
			return fmt.Errorf("save %s: %w", s.FDName(f.Number), err)
		}
		if s.covered[f.Number] && !locked[ref] {
			locked[ref] = true
			if err := dumpOwnAttached(s, f, ref); err != nil {
				return fmt.Errorf("save what %s has of it: %w", s.FDName(f.Number), err)
			}
		}
	}
	if err := dumpUnixQueues(s); err != nil {
		return err
	}
	return returnLent(s)
}

// openFile returns the reference of the open file behind a descriptor, and what
// writes its records: nothing but at the first sight.
func (s *Saver) openFile(f *procfs.FD) (object.Ref, func() error, error) {
	same, err := s.tree.sameFile(s.View, f)
	if err != nil {
		return 0, nil, err
	}
	ref, first := s.Objects.Add(object.OpenFile, same)
	if !first {
		return ref, func() error { return nil }, nil
	}
	return ref, func() error { return dumpFile(s, f, ref) }, nil
}

// dumpFile writes an open file with what is attached to it. What leads outside
// is not the program's own, and neither is who gets signals about it.
func dumpFile(s *Saver, f *procfs.FD, ref object.Ref) error {
	kind := kindOf(s.View, f)
	if err := kind.Dump(s, f, ref); err != nil || kind == &external {
		return err
	}
	return dumpAttached(s, f, ref)
}
