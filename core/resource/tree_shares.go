package resource

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
)

// What processes can have together by clone(2) without being threads. A child gets
// it of who makes it. That is its parent, or, if the parent has left it by unshare(2)
// or has ended, a sibling that has it: clone(2) makes children of one's own parent as
// well (CLONE_PARENT), which tell that one of their end by the signal of their maker.

// sharing is one kind of that.
type sharing struct {
	kcmp int
	code fault.Code // that refuses it
	bit  uint32     // of image.Process.Shares
}

var sharings = []sharing{
	{kcmpVM, fault.MemoryTasks, image.SharesVM},
	{kcmpSighand, fault.MemoryTasks, image.SharesSighand},
	{kcmpFiles, fault.TableShared, image.SharesFiles},
	{kcmpFS, fault.FSShared, image.SharesFS},
}

// Shares is what a process has together with its maker, as image.Process.Shares
// has it.
func (t *Tree) Shares(v *View) uint32 { return t.shares[v] }

// Maker is the place of who makes the i-th process anew: of its parent, or of a
// sibling before it that has what it shares. It is -1 for the root.
func (t *Tree) Maker(i int) int { return t.makers[i] }

// findMakers finds what processes have together, and who makes each, and names what
// nobody can make them have.
func (t *Tree) findMakers(parent func(i int) int) {
	t.makers = []int{-1}
	t.shares = make(map[*View]uint32)
	if len(t.views) == 1 {
		return
	}
	before := make([]map[int][]int, len(sharings)) // of each kind
	for k, of := range sharings {
		before[k] = t.groups(of)
	}
	for i := 1; i < len(t.views); i++ {
		maker := t.findMaker(i, parent, func(by int) bool {
			return !slices.ContainsFunc(before, func(with map[int][]int) bool { return len(with[i]) > 0 && !slices.Contains(with[i], by) })
		})
		t.makers = append(t.makers, maker)
		for k, of := range sharings {
			with := before[k][i]
			switch {
			case len(with) == 0:
			case !slices.Contains(with, maker):
				t.apart = append(t.apart, &fault.Error{Code: of.code, Object: t.views[i].Name(), Detail: "with " + t.views[with[0]].Name()})
			default:
				t.shares[t.views[i]] |= of.bit
			}
		}
	}
}

// findMaker returns the first of those who can be that and have what it takes; the
// parent if nobody has.
func (t *Tree) findMaker(i int, parent func(i int) int, able func(by int) bool) int {
	own := parent(i)
	if able(own) {
		return own
	}
	for by := 1; by < i; by++ {
		if parent(by) == own && t.views[by].Stat.ExitSignal == t.views[i].Stat.ExitSignal && t.depth(by) == t.depth(own) && t.depth(i) == t.depth(own) && able(by) {
			return by
		}
	}
	return own
}

// depth is in how many pid namespaces a process is.
func (t *Tree) depth(i int) int { return len(t.views[i].Status.NStgid) }

// groups tells who has such a thing together: by the place of each, the places of
// those before it.
func (t *Tree) groups(of sharing) map[int][]int {
	order := make([]int, len(t.views))
	for i := range order {
		order[i] = i
	}
	var failed error
	compare := func(a, b int) int {
		n, err := kcmp(t.views[a].PID, t.views[b].PID, of.kcmp, 0, 0)
		failed = errors.Join(failed, err)
		return n
	}
	slices.SortStableFunc(order, compare)
	before := make(map[int][]int)
	for i := 0; i < len(order) && failed == nil; {
		first := i
		for i++; i < len(order) && compare(order[i-1], order[i]) == 0; i++ {
			before[order[i]] = order[first:i]
		}
	}
	if failed != nil {
		t.apart = append(t.apart, &fault.Error{Code: fault.NoKcmp, Object: t.views[0].Name(), Err: failed})
		return nil
	}
	return before
}

// outward refuses what the first process has together with its own parent, who
// is not saved. One that may not be asked about is of another user, and can hardly
// have anything.
func (t *Tree) outward() (list fault.List) {
	root := t.views[0]
	for _, pid := range root.Children { // of who saves itself alone: they would write on
		if n, err := kcmp(root.PID, pid, kcmpVM, 0, 0); err == nil && n == 0 && !root.inside(pid) {
			list = append(list, &fault.Error{Code: fault.MemoryTasks, Object: root.Name(), Detail: fmt.Sprintf("with its child, pid %d, which is not saved", pid)})
		}
	}
	for _, of := range sharings {
		n, err := kcmp(root.PID, root.Stat.PPid, of.kcmp, 0, 0)
		switch {
		case root.Stat.PPid == 0 || errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EPERM):
			return list
		case err != nil:
			return fault.List{{Code: fault.NoKcmp, Object: root.Name(), Err: err}}
		case n == 0:
			list = append(list, &fault.Error{Code: of.code, Object: root.Name(), Detail: fmt.Sprintf("with its parent, pid %d", root.Stat.PPid)})
		}
	}
	return list
}
