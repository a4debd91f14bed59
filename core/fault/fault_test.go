package fault

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestTableIsComplete(t *testing.T) {
	seen := map[string]Code{}
	last := Code(0)
	for _, e := range All() {
		if e.Code <= last {
			t.Errorf("%v follows %v: codes must be unique and ascending", e.Code, last)
		}
		last = e.Code
		if e.Code < 1000 || e.Code > 5999 {
			t.Errorf("%v is outside of the ranges of doc.go", e.Code)
		}
		if !strings.HasPrefix(e.Text, "cannot ") {
			t.Errorf("%v: text %q does not begin with what cannot be done", e.Code, e.Text)
		}
		if strings.Count(e.Text, "{") != 1 || strings.Count(e.Text, "}") != 1 || strings.Contains(e.Text, "{}") {
			t.Errorf("%v: text %q must name its object once, in braces", e.Code, e.Text)
		}
		if other, ok := seen[e.Text]; ok {
			t.Errorf("%v and %v share the text %q", e.Code, other, e.Text)
		}
		seen[e.Text] = e.Code
		for what, s := range map[string]string{"why": e.Why, "try": e.Try} {
			if len(s) < 15 || !strings.HasSuffix(s, ".") || s[:1] != strings.ToUpper(s[:1]) && !strings.HasPrefix(s, "crshim ") {
				t.Errorf("%v: %s %q is not a sentence", e.Code, what, s)
			}
		}
		if strings.HasSuffix(e.Text, ".") || strings.Contains(e.Text, "\n") {
			t.Errorf("%v: text %q is not one plain line", e.Code, e.Text)
		}
	}
	if len(seen) < 100 {
		t.Errorf("table holds %d rows; a group seems to be missing", len(seen))
	}
}

func TestLookup(t *testing.T) {
	for _, e := range All() {
		got, ok := Lookup(e.Code)
		if !ok || got != e {
			t.Errorf("Lookup(%v) = %v, %v", e.Code, got, ok)
		}
	}
	for _, c := range []Code{0, -1, 1000, 1099, 9999} {
		if got, ok := Lookup(c); ok {
			t.Errorf("Lookup(%v) = %v, want none", c, got)
		}
	}
	all := All()
	all[0].Text = "changed"
	if All()[0].Text == "changed" {
		t.Error("All gives the table itself away")
	}
}

// The numbers are part of the interface: scripts and documents name them.
func TestCodesKeepTheirNumbers(t *testing.T) {
	for _, tt := range []struct {
		code  Code
		want  int
		errno unix.Errno
	}{
		{NoSuchProcess, 1001, unix.ESRCH},
		{NotPermitted, 1002, unix.EPERM},
		{TracedByOther, 1003, unix.EBUSY},
		{Zombie, 1007, unix.EAGAIN},
		{NestedNamespace, 1009, unix.EINVAL},
		{MemoryShared, 1101, unix.EOPNOTSUPP},
		{MemoryHugetlb, 1102, unix.ENOSYS},
		{MemoryDevice, 1103, unix.ENOSYS},
		{MemoryUnreachable, 1105, unix.EBADF},
		{Pipe, 1201, unix.EBADF},
		{Socket, 1202, unix.EBADF},
		{IOUring, 1203, unix.EOPNOTSUPP},
		{Terminal, 1214, unix.EBADF},
		{Device, 1215, unix.EBADF},
		{ImageWrite, 1501, 0},
		{ImageNotWritable, 1503, unix.EBADF},
		{ImageFormat, 2001, unix.EINVAL},
		{ImageEnded, 2002, unix.EPIPE},
		{ImageSum, 2003, unix.EINVAL},
		{ImageArch, 2005, unix.ENOEXEC},
		{ImageXsave, 2006, unix.ENOEXEC},
		{ImagePageSize, 2007, unix.ENOEXEC},
		{ImageVdso, 2008, unix.ENOEXEC},
		{FileOpen, 2101, 0},
		{PIDTaken, 2201, unix.EEXIST},
		{PIDNotPermitted, 2202, unix.EPERM},
		{Identity, 2301, unix.EPERM},
		{StageMemory, 2601, unix.ENOMEM},
		{CallFlags, 3001, unix.EINVAL},
		{CallDescriptor, 3002, unix.EBADF},
		{CallProcess, 3003, unix.ESRCH},
		{CallCRID, 3005, unix.EINVAL},
		{ListenerTaken, 4003, unix.EBUSY},
	} {
		e, ok := Lookup(tt.code)
		if int(tt.code) != tt.want || !ok || e.Errno != tt.errno {
			t.Errorf("%v: want %d with %v, have %+v", tt.code, tt.want, tt.errno, e)
		}
	}
}

func TestErrorText(t *testing.T) {
	for _, tt := range []struct {
		err  *Error
		want string
	}{
		{&Error{Code: IOUring, Object: "fd 7 of pid 421 (redis-server)"},
			"CR1203 cannot save fd 7 of pid 421 (redis-server): io_uring instance"},
		{&Error{Code: IOUring}, "CR1203 cannot save a descriptor: io_uring instance"},
		{&Error{Code: ImageWrite, Object: "/tmp/x", Err: unix.ENOSPC}, "CR1501 cannot write /tmp/x: no space left on device"},
		{&Error{Code: FileOpen, Object: "/tmp/{a}", Detail: "for fd 3", Err: unix.ENOENT},
			"CR2101 cannot open /tmp/{a} of the image (for fd 3): no such file or directory"},
		{&Error{Code: 9999, Object: "x"}, "CR9999 x"},
	} {
		if got := tt.err.Error(); got != tt.want {
			t.Errorf("got  %q\nwant %q", got, tt.want)
		}
	}
}

func TestErrno(t *testing.T) {
	for _, tt := range []struct {
		name string
		err  error
		want unix.Errno
	}{
		{"nil", nil, 0},
		{"unknown", errors.New("odd"), unix.EIO},
		{"plain errno", unix.ENOSPC, unix.ENOSPC},
		{"errno 0 is no errno", fmt.Errorf("x: %w", unix.Errno(0)), unix.EIO},
		{"wrapped errno", fmt.Errorf("write x: %w", unix.ENOSPC), unix.ENOSPC},
		{"path error", &fs.PathError{Op: "open", Path: "x", Err: unix.EACCES}, unix.EACCES},
		{"syscall error", os.NewSyscallError("open", unix.EACCES), unix.EACCES},
		{"row", &Error{Code: Pipe}, unix.EBADF},
		{"row beats cause", &Error{Code: Pipe, Err: unix.ENOSPC}, unix.EBADF},
		{"row deep in the chain", fmt.Errorf("a: %w", fmt.Errorf("b: %w", &Error{Code: Zombie})), unix.EAGAIN},
		{"row beats errno before it", errors.Join(unix.ENOSPC, &Error{Code: Pipe}), unix.EBADF},
		{"passed on", &Error{Code: ImageWrite, Err: fmt.Errorf("write: %w", unix.ENOSPC)}, unix.ENOSPC},
		{"passed on from a row", &Error{Code: FileOpen, Err: &Error{Code: NotPermitted}}, unix.EPERM},
		{"nothing to pass on", &Error{Code: ImageWrite}, unix.EIO},
		{"unlisted code", &Error{Code: 9999, Err: unix.EMFILE}, unix.EMFILE},
		{"list", List{{Code: MemoryHugetlb}, {Code: Pipe}}, unix.ENOSYS},
		{"wrapped list", fmt.Errorf("x: %w", List{{Code: Pipe}}.Err()), unix.EBADF},
		{"empty list", List{}.Err(), 0},
		{"nil list", List(nil).Err(), 0},
	} {
		if got := Errno(tt.err); got != tt.want {
			t.Errorf("%s: Errno(%v) = %v, want %v", tt.name, tt.err, got, tt.want)
		}
	}
}

func TestIs(t *testing.T) {
	err := fmt.Errorf("checkpoint: %w", List{
		{Code: Pipe, Object: "fd 1"},
		{Code: ImageWrite, Err: unix.ENOSPC},
	}.Err())
	for _, target := range []error{Pipe, ImageWrite, &Error{Code: Pipe}, unix.ENOSPC} {
		if !errors.Is(err, target) {
			t.Errorf("errors.Is(%v, %v) = false", err, target)
		}
	}
	for _, target := range []error{Socket, &Error{Code: Socket}, unix.EBADF} {
		if errors.Is(err, target) {
			t.Errorf("errors.Is(%v, %v) = true", err, target)
		}
	}
	if got := Codes(err); len(got) != 2 || got[0] != Pipe || got[1] != ImageWrite {
		t.Errorf("Codes = %v", got)
	}
	if got := Flatten(fmt.Errorf("x: %w", &Error{Code: Pipe})); len(got) != 1 || got[0].Code != Pipe {
		t.Errorf("Flatten of one error = %v", got)
	}
	if got := Codes(unix.EIO); got != nil {
		t.Errorf("Codes of a plain errno = %v", got)
	}
}

func TestListNamesEveryBlocker(t *testing.T) {
	err := List{{Code: Pipe, Object: "fd 1"}, {Code: Socket, Object: "fd 2"}}.Err()
	want := "CR1201 cannot save fd 1: pipe to another process\nCR1202 cannot save fd 2: socket"
	if err.Error() != want {
		t.Errorf("got %q, want %q", err.Error(), want)
	}
}

func TestParseCode(t *testing.T) {
	for _, s := range []string{"CR1203", "cr1203", "1203", "Cr1203"} {
		if c, err := ParseCode(s); err != nil || c != IOUring {
			t.Errorf("ParseCode(%q) = %v, %v", s, c, err)
		}
	}
	for _, s := range []string{"", "CR", "CR9999", "-1203", "CR 1203", "12031203", "CRCR1203"} {
		if c, err := ParseCode(s); err == nil {
			t.Errorf("ParseCode(%q) = %v, want an error", s, c)
		}
	}
}

func TestExplain(t *testing.T) {
	for _, e := range All() {
		var b strings.Builder
		if err := Explain(&b, e.Code); err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{e.Code.String(), e.Summary(), e.Why, e.Try, e.ErrnoText()} {
			if !strings.Contains(b.String(), want) {
				t.Errorf("Explain(%v) lacks %q:\n%s", e.Code, want, &b)
			}
		}
		if strings.ContainsAny(b.String(), "{}") {
			t.Errorf("Explain(%v) shows braces:\n%s", e.Code, &b)
		}
	}
	if err := Explain(&strings.Builder{}, 9999); err == nil {
		t.Error("Explain of an unknown code gives no error")
	}
	if err := Explain(failing{}, Pipe); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("Explain into a full disk = %v", err)
	}
}

func TestErrnoName(t *testing.T) {
	for errno, want := range map[unix.Errno]string{unix.EBADF: "EBADF", unix.EOPNOTSUPP: "EOPNOTSUPP", unix.EAGAIN: "EAGAIN", 9999: ""} {
		if got := ErrnoName(errno); got != want {
			t.Errorf("ErrnoName(%d) = %q, want %q", errno, got, want)
		}
	}
}

func TestWriteDoc(t *testing.T) {
	var b strings.Builder
	if err := WriteDoc(&b); err != nil {
		t.Fatal(err)
	}
	for _, e := range All() {
		if n := strings.Count(b.String(), "\n## "+e.Code.String()+"\n"); n != 1 {
			t.Errorf("%v has %d sections", e.Code, n)
		}
	}
	if err := WriteDoc(failing{}); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("WriteDoc into a full disk = %v", err)
	}
}

// failing is a writer on a full disk.
type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, unix.ENOSPC }
