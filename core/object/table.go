package object

import (
	"errors"
	"fmt"
)

// Ref names a shared object within one image. 0 is not a reference.
type Ref uint32

// Class keeps objects of different nature apart, so that a reference to a
// file cannot be used where shared memory is meant.
type Class uint16

// The classes of objects that images hold.
const (
	OpenFile     Class = 1 // struct file: an open file description
	SharedMemory Class = 2 // the object behind MAP_SHARED|MAP_ANONYMOUS
	Inode        Class = 3 // what several open files have in common: a pipe, a memfd
)

// ErrBadRef is returned for a reference that is zero, taken or of another class.
var ErrBadRef = errors.New("bad object reference")

// Saved hands out references while an image is written.
type Saved struct {
	next Ref
	seen map[key]Ref
}

type key struct {
	class Class
	id    any
}

// NewSaved returns an empty table.
func NewSaved() *Saved {
	return &Saved{next: 1, seen: make(map[key]Ref)}
}

// Add returns the reference of the object that id (any comparable value)
// identifies within its class, and whether this is its first sight.
func (s *Saved) Add(class Class, id any) (ref Ref, first bool) {
	k := key{class, id}
	if ref, ok := s.seen[k]; ok {
		return ref, false
	}
	ref = s.next
	s.next++
	s.seen[k] = ref
	return ref, true
}

// Loaded finds what has been rebuilt while an image is read.
type Loaded struct {
	objects map[Ref]entry
	parent  *Loaded // nil without one
}

type entry struct {
	class Class
	value any
}

// NewLoaded returns an empty table.
func NewLoaded() *Loaded {
	return &Loaded{objects: make(map[Ref]entry)}
}

// Child returns a table for who inherits all that l has: it is found there as
// well, and what is added to it is not found in l.
func (l *Loaded) Child() *Loaded {
	child := NewLoaded()
	child.parent = l
	return child
}

func (l *Loaded) find(ref Ref) (entry, bool) {
	for ; l != nil; l = l.parent {
		if e, ok := l.objects[ref]; ok {
			return e, true
		}
	}
	return entry{}, false
}

// Add enters an object under the reference that the image gives it.
func (l *Loaded) Add(class Class, ref Ref, value any) error {
	if ref == 0 {
		return fmt.Errorf("add object 0: %w", ErrBadRef)
	}
	if _, taken := l.find(ref); taken {
		return fmt.Errorf("add object %d: seen before: %w", ref, ErrBadRef)
	}
	l.objects[ref] = entry{class, value}
	return nil
}

// Get returns the object of that reference, and false at its first sight.
// An object of another class is ErrBadRef.
func (l *Loaded) Get(class Class, ref Ref) (any, bool, error) {
	if ref == 0 {
		return nil, false, fmt.Errorf("find object 0: %w", ErrBadRef)
	}
	e, ok := l.find(ref)
	if !ok {
		return nil, false, nil
	}
	if e.class != class {
		return nil, false, fmt.Errorf("find object %d: of another class: %w", ref, ErrBadRef)
	}
	return e.value, true, nil
}
