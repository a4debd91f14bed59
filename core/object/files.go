package object

import (
	"fmt"
	"sort"
)

// Compare orders the open files behind two descriptors: negative, zero (the
// same open file) or positive. The kernel's order is arbitrary but total while
// the files stay open (kcmp(2), KCMP_FILE).
type Compare[D any] func(a, b D) (int, error)

// Files tells which descriptors share one open file. Descriptors that differ
// in what a glance shows (inode, offset, flags) cannot share one, so only
// those with equal glance are compared: n descriptors cost n log n calls.
type Files[D any] struct {
	compare Compare[D]
	groups  map[any][]D // one descriptor per open file, in the kernel's order
}

// NewFiles returns an empty set. D says how a descriptor is named.
func NewFiles[D any](compare Compare[D]) *Files[D] {
	return &Files[D]{compare: compare, groups: make(map[any][]D)}
}

// Representative returns the descriptor that was the first one seen with the
// same open file as fd; fd itself if it is the first. glance is any comparable
// value that is equal for descriptors that share an open file.
func (f *Files[D]) Representative(fd D, glance any) (D, error) {
	var none D
	group := f.groups[glance]
	var failed error
	i := sort.Search(len(group), func(i int) bool {
		if failed != nil {
			return true
		}
		order, err := f.compare(group[i], fd)
		if err != nil {
			failed = fmt.Errorf("compare fd %v with fd %v: %w", group[i], fd, err)
		}
		return order >= 0
	})
	if failed != nil {
		return none, failed
	}
	if i < len(group) {
		order, err := f.compare(group[i], fd)
		if err != nil {
			return none, fmt.Errorf("compare fd %v with fd %v: %w", group[i], fd, err)
		}
		if order == 0 {
			return group[i], nil
		}
	}
	group = append(group, none)
	copy(group[i+1:], group[i:])
	group[i] = fd
	f.groups[glance] = group
	return fd, nil
}
