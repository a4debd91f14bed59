package resource

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/object"
	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// Tree is what the processes have in common that are saved into one image. A
// process grows again as a child of its parent and inherits what that has by
// then, or of a sibling (Maker). So everything that two of them share is saved with one from which all
// others descend; what the root lacks of that, it has for the time of the
// checkpoint, and has again while the tree grows.
type Tree struct {
	Objects *object.Saved

	views   []*View         // the root first, each before its children
	makers  []int           // the places of those of whom they are made anew
	parents map[*View]*View // those again
	files   *object.Files[holder]
	same    map[holder]holder // the first descriptor with the same open file
	shared  map[inodeID]*sharedObject
	held    map[*View][]heldMemory // for descendants; once the relations have been looked at
	shares  map[*View]uint32       // with its maker, image.SharesMask
	apart   fault.List             // what they share and nobody can make them share again

	ours     map[string]uint64 // our own namespaces, as far as they were asked for
	supposed map[inodeID]bool  // files that the root would have been given
	savers   map[*View]*Saver

	stats    map[rootedName]unix.Stat_t // of mapped files
	buildIDs map[inodeID][]byte         // of those, nil for none
	online   onlineCPUs

	indexing sync.WaitGroup // reads page maps
	closed   atomic.Bool    // it need not any more
	page     []byte         // room for one
}

// NewTree returns that of processes of which each comes before its children;
// parent tells the place of its parent, -1 for the first.
func NewTree(views []*View, parent func(i int) int) *Tree {
	t := &Tree{
		Objects:  object.NewSaved(),
		views:    views,
		parents:  make(map[*View]*View),
		same:     make(map[holder]holder),
		shared:   make(map[inodeID]*sharedObject),
		savers:   make(map[*View]*Saver),
		stats:    make(map[rootedName]unix.Stat_t),
		buildIDs: make(map[inodeID][]byte),
		ours:     make(map[string]uint64),
		page:     make([]byte, procfs.PageSize),
	}
	t.files = object.NewFiles(func(a, b holder) (int, error) { return kcmp(a.pid, b.pid, kcmpFile, a.fd, b.fd) })
	t.findMakers(parent)
	for i, v := range views {
		v.tree = t
		if i > 0 {
			t.parents[v] = views[t.makers[i]]
		}
	}
	t.findMemory()
	return t
}

// inside tells whether a process is saved along with this one.
func (v *View) inside(pid procfs.PID) bool {
	return v.tree != nil && slices.ContainsFunc(v.tree.views, func(o *View) bool { return o.PID == pid }) || pid == v.PID
}

// together are the processes that are saved with this one, and itself.
func (v *View) together() []*View {
	if v.tree == nil {
		return []*View{v}
	}
	return v.tree.views
}

// descends tells whether v is from, or one of its descendants.
func (t *Tree) descends(v, from *View) bool {
	for ; v != nil; v = t.parents[v] {
		if v == from {
			return true
		}
	}
	return false
}

// sameFile returns the first descriptor of the tree that has the same open file.
func (t *Tree) sameFile(v *View, f *procfs.FD) (holder, error) {
	own := holder{v.PID, f.Number}
	if first, known := t.same[own]; known {
		return first, nil
	}
	first, err := t.files.Representative(own, glance{f.Dev, f.Ino, f.Flags &^ unix.O_CLOEXEC, f.Pos, f.Target})
	if err != nil {
		return own, &fault.Error{Code: fault.NoKcmp, Object: v.FDName(f.Number), Err: err}
	}
	t.same[own] = first
	return first, nil
}

// glance is equal for descriptors that may share an open file.
type glance struct {
	dev, ino uint64
	flags    uint32
	pos      int64
	target   string
}

// Gather gives the root, which is borrowed, descriptors of all that the others
// share without it, or that relates to what others have: the ends of pipes,
// sockets, terminals. They are taken back by Return, or by undoing.
func (t *Tree) Gather(r *tracer.Remote) error {
	return t.hand(func(v *View, f *procfs.FD) error { return t.lend(r, v, f) })
}

// Suppose is Gather for processes that run: nothing is handed to anybody. What
// would be is left out of a survey, and so is what the root has of the same pipe
// or, as their peers are not known, any socket: only the root could tell.
func (t *Tree) Suppose() error {
	t.supposed = make(map[inodeID]bool)
	sockets := false
	err := t.hand(func(_ *View, f *procfs.FD) error {
		t.supposed[idOf(f)] = true
		sockets = sockets || f.Type() == unix.S_IFSOCK
		return nil
	})
	root := t.views[0]
	for i := range root.FDs {
		f := &root.FDs[i]
		if t.supposed[idOf(f)] || sockets && f.Type() == unix.S_IFSOCK {
			root.cover(f.Number)
		}
	}
	return err
}

// hand finds what the root has to be given.
func (t *Tree) hand(give func(v *View, f *procfs.FD) error) error {
	if len(t.views) == 1 {
		return nil
	}
	if err := t.nameTerminals(); err != nil {
		return err
	}
	root := t.views[0]
	first := make(map[any]*View) // who had it first
	lend := make(map[any]bool)
	for _, v := range t.views {
		for i := range v.FDs {
			same, err := t.sameFile(v, &v.FDs[i])
			if err != nil {
				return err
			}
			t.note(first, lend, v, kinship(&v.FDs[i], same))
			if relates(&v.FDs[i]) {
				lend[kinship(&v.FDs[i], same)] = true
			}
		}
		for i := range v.Mappings {
			if m := &v.Mappings[i]; inodeKindOf(m) != nil {
				t.note(first, lend, v, mappedID(m))
			}
		}
	}
	has := make(map[holder]bool)
	for i := range root.FDs {
		has[t.same[holder{root.PID, root.FDs[i].Number}]] = true
	}
	for _, v := range t.views[1:] {
		for i := range v.FDs {
			f := &v.FDs[i]
			same := t.same[holder{v.PID, f.Number}]
			switch {
			case same.pid != v.PID || has[same]:
				v.cover(f.Number)
			case lend[kinship(f, same)]:
				if err := give(v, f); err != nil {
					return fmt.Errorf("hand %s to %s: %w", v.FDName(f.Number), root.Name(), err)
				}
				has[same] = true
				v.cover(f.Number)
			}
		}
	}
	return nil
}

// note enters who has something, and that the root must have it if it does not
// come down from the first who has.
func (t *Tree) note(first map[any]*View, lend map[any]bool, v *View, what any) {
	if first[what] == nil {
		first[what] = v
	}
	if !t.descends(v, first[what]) {
		lend[what] = true
	}
}

// kinship is what must be in one hand: the open file, or, where no name leads
// to the file, the file.
func kinship(f *procfs.FD, same holder) any {
	if f.Nlink == 0 {
		return idOf(f)
	}
	return same
}

// relates tells whether what is saved of an open file depends on others.
func relates(f *procfs.FD) bool {
	switch f.Type() {
	case unix.S_IFIFO, unix.S_IFSOCK:
		return true
	}
	return ptyIndex(f) >= 0
}

// cover notes a descriptor whose open file is the matter of another one.
func (v *View) cover(fd int32) {
	if v.covered == nil {
		v.covered = make(map[int32]bool)
	}
	v.covered[fd] = true
}

// lend gives the root a descriptor of an open file of another process.
func (t *Tree) lend(r *tracer.Remote, v *View, f *procfs.FD) error {
	if err := t.findable(v, f); err != nil {
		return err
	}
	own, err := v.duplicate(f.Number)
	if err != nil {
		return err
	}
	file := os.NewFile(uintptr(own), f.Target)
	defer file.Close()
	root := t.views[0]
	number, err := root.lend(r, file)
	if errors.Is(err, unix.EMFILE) || errors.Is(err, tracer.ErrFull) {
		return &fault.Error{Code: fault.TreeFiles, Object: root.Name(), Err: err}
	}
	if err != nil {
		return err
	}
	if root.lent == nil {
		root.lent = make(map[int32]bool)
	}
	root.lent[number] = true
	if maybeExternal(f) {
		if root.standards == nil {
			root.standards = make(map[int32]int32)
		}
		root.standards[number] = standardOf(v, f)
	}
	root.FDs[len(root.FDs)-1].Rdev = f.Rdev // as nameTerminals has found it
	t.same[holder{root.PID, number}] = t.same[holder{v.PID, f.Number}]
	return nil
}

// Return takes back what Gather has lent.
func (t *Tree) Return(r *tracer.Remote) error {
	root := t.views[0]
	if len(root.lent) == 0 {
		return nil
	}
	p := r.Program()
	for fd := range root.lent {
		p.Close(tracer.FD(fd))
	}
	return p.Run()
}

// Survey returns all that stands in the way of saving any of them.
func (t *Tree) Survey() fault.List {
	return append(slices.Concat(t.SurveyEach()...), t.SurveyRelations()...)
}

// SurveyEach returns what stands in the way of saving each.
func (t *Tree) SurveyEach() []fault.List {
	lists := make([]fault.List, len(t.views))
	for i, v := range t.views {
		lists[i] = v.Survey()
	}
	return lists
}

// SurveyRelations returns what stands between them.
func (t *Tree) SurveyRelations() fault.List {
	list := append(t.outward(), t.sharedUndo()...)
	if len(t.views) == 1 {
		return list
	}
	return slices.Concat(list, t.apart, t.refuseSharers(), t.sharedMemory())
}
