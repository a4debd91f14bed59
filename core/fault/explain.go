package fault

import (
	"fmt"
	"io"
	"strings"

	"golang.org/x/sys/unix"
)

// Explain writes what is known about c: the summary, the errno, why, and what
// to try. It fails for a code that the table does not hold.
func Explain(w io.Writer, c Code) error {
	e, ok := Lookup(c)
	if !ok {
		return fmt.Errorf("explain %v: no such code", c)
	}
	_, err := fmt.Fprintf(w, "%v %s\nerrno: %s\nwhy:   %s\ntry:   %s\n", c, e.Summary(), e.ErrnoText(), e.Why, e.Try)
	if err != nil {
		return fmt.Errorf("explain %v: %w", c, err)
	}
	return nil
}

// ErrnoText names the errno of e as a manual page does.
func (e Entry) ErrnoText() string {
	if e.Errno == 0 {
		return "that of the cause"
	}
	return fmt.Sprintf("%s (%v)", ErrnoName(e.Errno), e.Errno)
}

// ErrnoName returns the name of an errno, such as EBADF, or "". Of two names
// for one number it gives the one that manual pages of system calls use.
func ErrnoName(errno unix.Errno) string {
	if errno == unix.EOPNOTSUPP { // also ENOTSUP
		return "EOPNOTSUPP"
	}
	return unix.ErrnoName(errno)
}

// WriteDoc writes the table as Markdown, one section for each code. It is
// the source of docs/errors.md.
func WriteDoc(w io.Writer) error {
	var b strings.Builder
	b.WriteString("# Errors\n\n")
	b.WriteString("Every failure that crshim reports has a code. `crshim explain CODE` prints the same text.\n")
	b.WriteString("The errno is what the emulated system call returns; a dash passes on the errno of the cause.\n\n")
	b.WriteString("| code | errno | summary |\n|---|---|---|\n")
	for _, e := range table {
		name := "-"
		if e.Errno != 0 {
			name = ErrnoName(e.Errno)
		}
		fmt.Fprintf(&b, "| [%v](#%s) | %s | %s |\n", e.Code, strings.ToLower(e.Code.String()), name, e.Summary())
	}
	for _, e := range table {
		fmt.Fprintf(&b, "\n## %v\n\n%s\n\n- why: %s\n- try: %s\n", e.Code, e.Summary(), e.Why, e.Try)
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("write error table: %w", err)
	}
	return nil
}
