package object

import (
	"fmt"
	"sort"
)

// Compare orders the open files behind two descriptors of one process:
// negative, zero (the same open file) or positive. The kernel's order is
// arbitrary but total while the files stay open (kcmp(2), KCMP_FILE).
type Compare func(a, b int32) (int, error)

// Files tells which descriptors share one open file. Descriptors that differ
// in what a glance shows (inode, offset, flags) cannot share one, so only
// those with equal glance are compared: n descriptors cost n log n calls.
type Files struct {
	compare Compare
	groups  map[any][]int32 // one descriptor per open file, in the kernel's order
}

// NewFiles returns an empty set.
func NewFiles(compare Compare) *Files {
	return &Files{compare: compare, groups: make(map[any][]int32)}
}

// Representative returns the descriptor that was the first one seen with the
// same open file as fd; fd itself if it is the first. glance is any comparable
// value that is equal for descriptors that share an open file.
func (f *Files) Representative(fd int32, glance any) (int32, error) {
	group := f.groups[glance]
	var failed error
	i := sort.Search(len(group), func(i int) bool {
		if failed != nil {
			return true
		}
		order, err := f.compare(group[i], fd)
		if err != nil {
			failed = fmt.Errorf("compare fd %d with fd %d: %w", group[i], fd, err)
		}
		return order >= 0
	})
	if failed != nil {
		return 0, failed
	}
	if i < len(group) {
		order, err := f.compare(group[i], fd)
		if err != nil {
			return 0, fmt.Errorf("compare fd %d with fd %d: %w", group[i], fd, err)
		}
		if order == 0 {
			return group[i], nil
		}
	}
	group = append(group, 0)
	copy(group[i+1:], group[i:])
	group[i] = fd
	f.groups[glance] = group
	return fd, nil
}
