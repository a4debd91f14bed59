package main

import (
	"strings"
	"testing"
)

func TestTally(t *testing.T) {
	const p = `"Package":"p"`
	for _, test := range []struct {
		name     string
		strict   bool
		goTestOK bool
		events   []string
		last     string // last line
		contains string
	}{
		{
			name: "subtests count, their parent does not", goTestOK: true,
			events: []string{
				`{"Action":"run",` + p + `,"Test":"A"}`, `{"Action":"run",` + p + `,"Test":"A/x"}`, `{"Action":"run",` + p + `,"Test":"A/y"}`,
				`{"Action":"pass",` + p + `,"Test":"A/x"}`, `{"Action":"pass",` + p + `,"Test":"A/y"}`, `{"Action":"pass",` + p + `,"Test":"A"}`,
				`{"Action":"run",` + p + `,"Test":"AB"}`, `{"Action":"pass",` + p + `,"Test":"AB"}`, `{"Action":"pass",` + p + `}`,
			},
			last: "3 passed, 0 failed",
		},
		{
			name: "a failing subtest is one failure and shows its output",
			events: []string{
				`{"Action":"run",` + p + `,"Test":"A"}`, `{"Action":"run",` + p + `,"Test":"A/x"}`,
				`{"Action":"output",` + p + `,"Test":"A/x","Output":"  x_test.go:1: wrong colour\n"}`,
				`{"Action":"fail",` + p + `,"Test":"A/x"}`, `{"Action":"fail",` + p + `,"Test":"A"}`, `{"Action":"fail",` + p + `}`,
			},
			last: "0 passed, 1 failed", contains: "wrong colour",
		},
		{
			name: "a parent that fails by itself counts",
			events: []string{
				`{"Action":"run",` + p + `,"Test":"A"}`, `{"Action":"run",` + p + `,"Test":"A/x"}`,
				`{"Action":"pass",` + p + `,"Test":"A/x"}`, `{"Action":"fail",` + p + `,"Test":"A"}`, `{"Action":"fail",` + p + `}`,
			},
			last: "1 passed, 1 failed",
		},
		{
			name: "a test cut off by a panic elsewhere counts as failed",
			events: []string{
				`{"Action":"run",` + p + `,"Test":"A"}`, `{"Action":"output",` + p + `,"Output":"panic: test timed out\n"}`, `{"Action":"fail",` + p + `}`,
			},
			last: "0 passed, 1 failed",
		},
		{
			name: "a package that does not build is one failure",
			events: []string{
				`{"ImportPath":"p","Action":"build-output","Output":"p/x.go:1:1: no such thing\n"}`, `{"ImportPath":"p","Action":"build-fail"}`,
				`{"Action":"start",` + p + `}`, `{"Action":"output",` + p + `,"Output":"FAIL p [build failed]\n"}`, `{"Action":"fail",` + p + `,"FailedBuild":"p"}`,
			},
			last: "0 passed, 1 failed", contains: "no such thing",
		},
		{
			name: "a named skip is a skip, in CI too", strict: true, goTestOK: true,
			events: []string{
				`{"Action":"output",` + p + `,"Test":"A","Output":"    a_test.go:3: needs: kernel 6.7\n"}`,
				`{"Action":"skip",` + p + `,"Test":"A"}`, `{"Action":"pass",` + p + `}`,
			},
			last: "0 passed, 0 failed, 1 skipped", contains: "skipped   1: needs: kernel 6.7",
		},
		{
			name: "an unnamed skip fails in CI", strict: true, goTestOK: true,
			events: []string{
				`{"Action":"output",` + p + `,"Test":"A","Output":"    a_test.go:3: not today\n"}`,
				`{"Action":"skip",` + p + `,"Test":"A"}`, `{"Action":"pass",` + p + `}`,
			},
			last: "0 passed, 1 failed", contains: "without saying what it needs",
		},
		{
			name: "a package that takes long says what takes its time", goTestOK: true,
			events: []string{
				`{"Action":"pass",` + p + `,"Test":"A","Elapsed":1}`, `{"Action":"pass",` + p + `,"Test":"B","Elapsed":150.25}`, `{"Action":"pass",` + p + `,"Elapsed":151}`,
			},
			last: "2 passed, 0 failed", contains: "slow  150.2s B\nslow    1.0s A\n",
		},
		{name: "a go test that fails before any package is a failure", last: "0 passed, 1 failed"},
		{name: "a package that never ends is a failure", goTestOK: true, events: []string{`{"Action":"start",` + p + `}`}, last: "0 passed, 1 failed"},
		{name: "words that are no events are passed on", events: []string{"go: cannot find main module"}, last: "0 passed, 1 failed", contains: "cannot find main module"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var out strings.Builder
			tally := newTally(&out, test.strict)
			if err := tally.read(strings.NewReader(strings.Join(test.events, "\n"))); err != nil {
				t.Fatal(err)
			}
			tally.finish(test.goTestOK)
			lines := strings.Split(strings.TrimSpace(out.String()), "\n")
			if got := lines[len(lines)-1]; got != test.last {
				t.Errorf("last line is %q, want %q", got, test.last)
			}
			if !strings.Contains(out.String(), test.contains) {
				t.Errorf("output lacks %q:\n%s", test.contains, out.String())
			}
		})
	}
}
