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
// it of its parent when that is forked again; what others have together, as when
// the parent has left it by unshare(2), no fork can bring about.

// sharing is one kind of that.
type sharing struct {
	kcmp int
	code fault.Code // that refuses it
	bit  uint32     // of image.Process.Shares; 0 if it is always refused
}

const kcmpVM = 1

var sharings = []sharing{
	{kcmpVM, fault.MemoryTasks, 0},
	{kcmpFiles, fault.TableShared, image.SharesFiles},
	{kcmpFS, fault.FSShared, image.SharesFS},
}

// Shares is what a process has together with its parent, as image.Process.Shares
// has it. SurveyRelations comes before it.
func (t *Tree) Shares(v *View) uint32 { return t.shares[v] }

// together finds what processes have together, and refuses what they have not of
// their parents.
func (t *Tree) together() (list fault.List) {
	t.shares = make(map[*View]uint32)
	for _, of := range sharings {
		for _, group := range t.groups(of, &list) {
			for i, v := range group[1:] {
				if of.bit != 0 && slices.Contains(group[:i+1], t.parents[v]) {
					t.shares[v] |= of.bit
					continue
				}
				list = append(list, &fault.Error{Code: of.code, Object: v.Name(), Detail: "with " + group[0].Name()})
			}
		}
	}
	return list
}

// groups are the processes that have one such thing, each in the order of the
// tree.
func (t *Tree) groups(of sharing, list *fault.List) (groups [][]*View) {
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
	for i := 0; i < len(order) && failed == nil; {
		group := []*View{t.views[order[i]]}
		for i++; i < len(order) && compare(order[i-1], order[i]) == 0; i++ {
			group = append(group, t.views[order[i]])
		}
		groups = append(groups, group)
	}
	if failed != nil {
		*list = append(*list, &fault.Error{Code: fault.NoKcmp, Object: t.views[0].Name(), Err: failed})
	}
	return groups
}

// outward refuses what the first process has together with its own parent, who
// is not saved. One that may not be asked about is of another user, and can hardly
// have anything.
func (t *Tree) outward() (list fault.List) {
	root := t.views[0]
	for _, of := range sharings {
		n, err := kcmp(root.PID, root.Stat.PPid, of.kcmp, 0, 0)
		switch {
		case root.Stat.PPid == 0 || errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EPERM):
			return nil
		case err != nil:
			return fault.List{{Code: fault.NoKcmp, Object: root.Name(), Err: err}}
		case n == 0:
			list = append(list, &fault.Error{Code: of.code, Object: root.Name(), Detail: fmt.Sprintf("with its parent, pid %d", root.Stat.PPid)})
		}
	}
	return list
}
