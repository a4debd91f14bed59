// Package object is the table of shared objects: things that more than one
// owner may refer to, such as an open file that several descriptors share.
//
// While saving, the first sight of an object gives it a reference and the
// caller writes its state; every later sight yields the same reference and
// nothing is written again. While restoring, the state that comes first is
// built and entered under its reference, and later references find it.
//
// References count up from 1; 0 is never a valid reference. The table only
// grows and lives as long as one checkpoint or restart. It is not safe for
// concurrent use: one operation runs on one thread.
package object
