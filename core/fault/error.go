package fault

import (
	"errors"
	"strings"

	"golang.org/x/sys/unix"
)

// Error is one failure: a row of the table, about one object.
type Error struct {
	Code   Code
	Object string // what it is about, such as "fd 7 of pid 421 (redis-server)"; may be empty
	Detail string // one fact more, printed in parentheses; may be empty
	Err    error  // the cause; may be nil
}

var _ error = (*Error)(nil)

// Error returns "CR1203 cannot save OBJECT: io_uring instance (DETAIL): CAUSE".
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Code.String())
	b.WriteByte(' ')
	b.WriteString(e.Message())
	return b.String()
}

// Message is Error without the code.
func (e *Error) Message() string {
	var b strings.Builder
	row, ok := Lookup(e.Code)
	if !ok {
		row.Text = "{an unlisted failure}"
	}
	b.WriteString(row.about(e.Object))
	if e.Detail != "" {
		b.WriteString(" (" + e.Detail + ")")
	}
	if e.Err != nil {
		b.WriteString(": " + e.Err.Error())
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is reports whether target is the code of e, or an *Error of the same code.
func (e *Error) Is(target error) bool {
	switch t := target.(type) {
	case Code:
		return t == e.Code
	case *Error:
		return t.Code == e.Code
	}
	return false
}

// List is a refusal that names every blocker at once, the weightiest first.
type List []*Error

var _ error = List(nil)

// Error returns one line for each blocker.
func (l List) Error() string {
	lines := make([]string, len(l))
	for i, e := range l {
		lines[i] = e.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap lets errors.Is and errors.As look at each blocker in turn.
func (l List) Unwrap() []error {
	errs := make([]error, len(l))
	for i, e := range l {
		errs[i] = e
	}
	return errs
}

// Err returns l as an error, or nil if l is empty: a List that is put into an
// error variable directly is never nil.
func (l List) Err() error {
	if len(l) == 0 {
		return nil
	}
	return l
}

// Errno returns the errno that a program is given for err: that of the row of
// the first *Error in the chain, where the row names one; else the first
// errno in the cause; else EIO. It is 0 only for nil.
func Errno(err error) unix.Errno {
	if err == nil {
		return 0
	}
	var f *Error
	if errors.As(err, &f) {
		if row, _ := Lookup(f.Code); row.Errno != 0 {
			return row.Errno
		}
		if f.Err != nil {
			return Errno(f.Err)
		}
		return unix.EIO
	}
	var errno unix.Errno
	if errors.As(err, &errno) && errno != 0 {
		return errno
	}
	return unix.EIO
}

// Codes returns the codes of every *Error in err's tree, in the order in
// which they are printed; none for an error that is not of this package.
func Codes(err error) []Code {
	var codes []Code
	for _, e := range Flatten(err) {
		codes = append(codes, e.Code)
	}
	return codes
}

// Flatten returns the outermost *Errors of err: err itself, or the blockers
// of a List, wherever in the chain they are. It is how a front end prints why
// and try for each.
func Flatten(err error) []*Error {
	var list List
	if errors.As(err, &list) {
		return list
	}
	var one *Error
	if errors.As(err, &one) {
		return []*Error{one}
	}
	return nil
}
