package syscalls

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/tracer/procfs"
)

// TestTable holds every row to what the dispatcher, the filter and the documents rely on.
func TestTable(t *testing.T) {
	if !slices.IsSortedFunc(Table, func(a, b Call) int { return a.Number - b.Number }) {
		t.Error("rows are not ascending by number")
	}
	seen := map[int]bool{}
	for _, call := range Table {
		if call.Number < First || call.Number > Last {
			t.Errorf("%s: number %d is outside of %d..%d", call.Name, call.Number, First, Last)
		}
		if seen[call.Number] {
			t.Errorf("%s: number %d is taken", call.Name, call.Number)
		}
		seen[call.Number] = true
		if call.Name == "" || call.Handle == nil || len(call.Args) > 6 {
			t.Errorf("row %d is incomplete: %+v", call.Number, call)
		}
		if call.Support != Full && call.Note == "" {
			t.Errorf("%s: a %s call needs a note on what it lacks", call.Name, call.Support)
		}
		if got, ok := Lookup(call.Number); !ok || got.Name != call.Name {
			t.Errorf("Lookup(%d) = %v, %v", call.Number, got, ok)
		}
	}
	if len(Numbers()) != len(Table) {
		t.Errorf("Numbers has %d of %d rows", len(Numbers()), len(Table))
	}
}

// TestHeader compares the numbers of the C header with the table, both ways.
func TestHeader(t *testing.T) {
	text, err := os.ReadFile("../shim/include/crshim/unistd.h")
	if err != nil {
		t.Fatal(err)
	}
	header := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^#define __NR_(\w+)\s+(\d+)$`).FindAllStringSubmatch(string(text), -1) {
		header[m[1]] = m[2]
	}
	for _, call := range Table {
		if header[call.Name] != strconv.Itoa(call.Number) {
			t.Errorf("__NR_%s is %q in the header and %d in the table", call.Name, header[call.Name], call.Number)
		}
		delete(header, call.Name)
	}
	if len(header) != 0 {
		t.Errorf("the header has numbers that the table has not: %v", header)
	}
}

func TestArguments(t *testing.T) {
	for _, test := range []struct {
		arch  Arch
		arg   uint64
		asInt int
		ulong uint64
	}{
		{X8664, 7, 7, 7},
		{X8664, 0xffffffff, -1, 0xffffffff},
		{X8664, 0xffffffffffffffff, -1, 0xffffffffffffffff},
		{X8664, 0xdeadbeef00000003, 3, 0xdeadbeef00000003},
		{I386, 0xdeadbeef00000003, 3, 3},
		{I386, 0xffffffffffffffff, -1, 0xffffffff},
	} {
		c := &Context{Request: Request{Arch: test.arch, Args: [6]uint64{2: test.arg}}}
		if got := c.Int(2); got != test.asInt {
			t.Errorf("%s: Int of %#x = %d, want %d", test.arch, test.arg, got, test.asInt)
		}
		if got := c.Ulong(2); got != test.ulong {
			t.Errorf("%s: Ulong of %#x = %#x, want %#x", test.arch, test.arg, got, test.ulong)
		}
	}
}

// served is what one Serve did.
type served struct {
	outcomes []Outcome
	traced   []string
	warned   []error
}

// serveWith runs one request through a handler. gone is what answering fails with.
func serveWith(handle Handler, gone error) served {
	var s served
	d := Dispatcher{
		Trace: func(line string) { s.traced = append(s.traced, line) },
		Warn:  func(_ *Context, _ string, err error) { s.warned = append(s.warned, err) },
	}
	call := &Call{Number: NRCheckpoint, Name: "checkpoint", Args: []Arg{{"pid", PID}, {"fd", Int}, {"flags", Ulong}}, Handle: handle}
	d.serve(call, Request{
		TID:  3493,
		NR:   NRCheckpoint,
		Args: [6]uint64{3493, 0xffffffff, 0},
		Answer: func(o Outcome) error {
			s.outcomes = append(s.outcomes, o)
			return gone
		},
		Valid: func() error { return nil },
	})
	return s
}

func TestServe(t *testing.T) {
	vanished := fmt.Errorf("answer: %w", unix.ENOENT)
	for name, test := range map[string]struct {
		handle Handler
		gone   error
		want   Outcome
		trace  string
		warns  int
	}{
		"value": {
			handle: func(*Context) (int64, error) { return 1, nil },
			want:   Return(1), trace: "= 1 <",
		},
		"errno": {
			handle: func(*Context) (int64, error) { return 0, fmt.Errorf("look up descriptor: %w", unix.EBADF) },
			want:   Fail(unix.EBADF), trace: "= -1 EBADF (Bad file descriptor) <", warns: 1,
		},
		"fault": {
			handle: func(*Context) (int64, error) { return 0, &fault.Error{Code: fault.CallFlags} },
			want:   Fail(unix.EINVAL), trace: "= -1 EINVAL (Invalid argument) <", warns: 1,
		},
		"answered by the handler, failed later": {
			handle: func(c *Context) (int64, error) {
				if err := c.Answer(unix.EINTR); err != nil {
					return 0, err
				}
				if err := c.Answer(unix.EPERM); !errors.Is(err, ErrAnswered) || !c.Answered() {
					return 0, fmt.Errorf("second answer: %w", err)
				}
				return 0, unix.ENOSPC
			},
			want: Fail(unix.EINTR), trace: "= -1 ENOSPC (No space left on device) <", warns: 1,
		},
		"made again": {
			handle: func(c *Context) (int64, error) { return 5, c.Answer(errRestartNoIntr) },
			want:   Fail(errRestartNoIntr), trace: "= 5 <",
		},
		"panic": {
			handle: func(*Context) (int64, error) { panic("of the handler") },
			want:   Fail(unix.ENOSYS), trace: "= -1 ENOSYS (Function not implemented) <", warns: 1,
		},
		"caller gone": {
			handle: func(*Context) (int64, error) { return 3, nil },
			gone:   vanished, want: Return(3), trace: "= ? <",
		},
		"caller gone while it was served": {
			handle: func(*Context) (int64, error) { return 0, unix.ESRCH },
			gone:   vanished, want: Fail(unix.ESRCH), trace: "= ? <",
		},
		"broken listener": {
			handle: func(*Context) (int64, error) { return 3, nil },
			gone:   unix.EIO, want: Return(3), trace: "= 3 <", warns: 1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := serveWith(test.handle, test.gone)
			if !slices.Equal(got.outcomes, []Outcome{test.want}) {
				t.Errorf("the caller was given %v, want once %v", got.outcomes, test.want)
			}
			if len(got.traced) != 1 || !strings.HasPrefix(got.traced[0], "[pid 3493] checkpoint(3493, -1, 0) "+test.trace) {
				t.Errorf("traced %q, want %q", got.traced, test.trace)
			}
			if len(got.warned) != test.warns {
				t.Errorf("warnings: %v, want %d", got.warned, test.warns)
			}
		})
	}
}

func TestUnknownNumber(t *testing.T) {
	var got Outcome
	var d Dispatcher // without Trace and Warn
	d.Serve(Request{NR: Last, Answer: func(o Outcome) error { got = o; return nil }})
	if got != Fail(unix.ENOSYS) {
		t.Errorf("outcome %v, want ENOSYS", got)
	}
}

// TestLastCRID asks for this process, by two of its threads, and for one that is gone.
func TestLastCRID(t *testing.T) {
	var s crids
	self, thread := procfs.PID(os.Getpid()), procfs.PID(unix.Gettid())
	if crid, err := s.last(self); crid != 0 || err != nil {
		t.Errorf("before the first: %d, %v", crid, err)
	}
	for _, crid := range []int{4, 9} {
		if err := s.remember(thread, crid); err != nil {
			t.Fatal(err)
		}
		if got, err := s.last(self); got != crid || err != nil {
			t.Errorf("last crid is %d, %v; want %d", got, err, crid)
		}
	}
	if crid, err := s.last(1); crid != 0 || err != nil {
		t.Errorf("another process has %d, %v", crid, err)
	}
	if _, err := s.last(-1); !errors.Is(err, unix.ESRCH) {
		t.Errorf("no process: %v, want ESRCH", err)
	}
}

// TestTurns has a task call again while the handler of its first call, which it has the answer of, is still busy. Another task
// is served meanwhile.
func TestTurns(t *testing.T) {
	var d Dispatcher
	answered, finish := make(chan struct{}), make(chan struct{})
	var order []string // of the calls of task 7
	request := func(tid procfs.PID, answer func()) Request {
		return Request{TID: tid, Answer: func(Outcome) error { answer(); return nil }, Valid: func() error { return nil }}
	}
	first := &Call{Name: "first", Handle: func(c *Context) (int64, error) {
		err := c.Answer(unix.EINTR)
		<-finish
		order = append(order, "first")
		return 0, err
	}}
	second := &Call{Name: "second", Handle: func(*Context) (int64, error) {
		order = append(order, "second")
		return 0, nil
	}}
	other := &Call{Name: "other", Handle: func(*Context) (int64, error) { return 0, nil }}

	var calls sync.WaitGroup
	calls.Go(func() { d.serve(first, request(7, func() { close(answered) })) })
	<-answered
	calls.Go(func() { d.serve(second, request(7, func() {})) })
	d.serve(other, request(8, func() {}))
	close(finish)
	calls.Wait()
	if !slices.Equal(order, []string{"first", "second"}) {
		t.Errorf("order %v", order)
	}
	if len(d.turns.last) != 0 {
		t.Errorf("remembers ended calls: %v", d.turns.last)
	}
}
