package fault

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Code numbers one way of failing. A Code is an error itself, so that
// errors.Is(err, fault.IOUring) asks whether err is of that kind.
type Code int

// String returns the form that people see, such as CR1203.
func (c Code) String() string { return "CR" + strconv.Itoa(int(c)) }

// Error makes Code a target for errors.Is.
func (c Code) Error() string { return c.String() }

// ParseCode reads CR1203, cr1203 or 1203. It fails for a code that the table
// does not hold.
func ParseCode(s string) (Code, error) {
	digits := s
	if len(s) > 2 && strings.EqualFold(s[:2], "CR") {
		digits = s[2:]
	}
	n, err := strconv.ParseUint(digits, 10, 16)
	if err != nil {
		return 0, fmt.Errorf("parse error code %q: want a form like CR1203", s)
	}
	if _, ok := Lookup(Code(n)); !ok {
		return 0, fmt.Errorf("parse error code %q: no such code", s)
	}
	return Code(n), nil
}

// Entry is the row of one Code.
type Entry struct {
	Code Code

	// Errno is what the emulated call returns. Zero passes on the errno of
	// the cause.
	Errno unix.Errno

	// Text is the line that people see. The words in braces stand for the
	// object and are what it is called when nothing better is known:
	// "cannot save {a descriptor}: io_uring instance".
	Text string

	Why string // the reason, as whole sentences
	Try string // the remedy, as whole sentences
}

// Summary returns Text about no object in particular.
func (e Entry) Summary() string { return e.about("") }

// about returns Text with the object put in its place.
func (e Entry) about(object string) string {
	before, rest, ok := strings.Cut(e.Text, "{")
	if !ok {
		return e.Text
	}
	name, after, _ := strings.Cut(rest, "}")
	if object != "" {
		name = object
	}
	return before + name + after
}

// table holds the rows of all files of this package, ascending by code.
var table = sorted(tasks, memory, descriptors, state, files, output, images, restarts, together, unixSockets, sockets, calls, containers, host, launch)

func sorted(groups ...[]Entry) []Entry {
	all := slices.Concat(groups...)
	slices.SortFunc(all, func(a, b Entry) int { return int(a.Code - b.Code) })
	return all
}

// Lookup returns the row of c; ok is false if there is none.
func Lookup(c Code) (e Entry, ok bool) {
	i, ok := slices.BinarySearchFunc(table, c, func(e Entry, c Code) int { return int(e.Code - c) })
	if !ok {
		return Entry{}, false
	}
	return table[i], true
}

// All returns every row, ascending by code. The slice is the caller's own.
func All() []Entry { return slices.Clone(table) }
