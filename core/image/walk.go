package image

import (
	"errors"
	"io"
)

// Walk calls fn for every record to the end of the image, in order, with its
// depth in the tree that inspection shows: sections of a task lie below their
// task, records below the one that opens their section. Trailers are read and summed;
// Record.Trailer tells their length, and fn may read one itself by Raw, Addrs
// or Pages. Walk ends with the first error of fn or of the Reader, and with
// nil behind TAIL.
func Walk(r *Reader, fn func(depth int, rec *Record) error) error {
	below := 0 // depth for a record that belongs to the one before it
	for {
		rec, err := r.Next()
		if errors.Is(err, io.EOF) && r.Done() {
			return nil
		}
		if err != nil {
			return err
		}
		depth := below
		if s := rec.Spec; s != nil && s.Section != Anywhere {
			depth = s.depth()
			below = depth + 1
		}
		if err := fn(depth, rec); err != nil {
			return err
		}
	}
}

// depth is that of a record with a place of its own.
func (s *Spec) depth() int {
	switch {
	case s.Section < InTask || s.Section == InTail:
		return 0
	case s.Section == InTask && s.Opens:
		return 0
	case s.Section == InTask || s.Opens:
		return 1
	}
	return 2
}
