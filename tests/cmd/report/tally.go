package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
)

// event is one line of `go test -json` (go doc test2json, and go doc cmd/go for the build- actions).
type event struct {
	Action  string
	Package string
	Test    string
	Elapsed float64
	Output  string
}

// namedSkip is what a skip has to say.
var namedSkip = regexp.MustCompile(`needs: \S`)

// result is what is known of one test of one package.
type result struct {
	action  string // "" while it runs, else pass, fail or skip
	elapsed float64
	output  []string
}

// tally counts the results of one run and prints them package by package.
type tally struct {
	w      io.Writer
	strict bool // a skip without its reason is a failure

	packages                map[string]map[string]*result
	passed, failed, skipped int
	reasons                 map[string]int // why tests were skipped, and how many
}

func newTally(w io.Writer, strict bool) *tally {
	return &tally{w: w, strict: strict, packages: map[string]map[string]*result{}, reasons: map[string]int{}}
}

// read takes the whole stream. A line that is no event (go's own words) is passed on.
func (t *tally) read(r io.Reader) error {
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) == nil && e.Action != "" {
				t.add(e)
			} else {
				fmt.Fprintf(t.w, "%s\n", strings.TrimSuffix(string(line), "\n"))
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (t *tally) add(e event) {
	if e.Action == "build-output" {
		fmt.Fprint(t.w, e.Output)
		return
	}
	if e.Package == "" {
		return
	}
	tests := t.packages[e.Package]
	if tests == nil {
		tests = map[string]*result{}
		t.packages[e.Package] = tests
	}
	res := tests[e.Test] // the package's own output has the empty name
	if res == nil {
		res = &result{}
		tests[e.Test] = res
	}
	switch e.Action {
	case "output":
		res.output = append(res.output, e.Output)
	case "pass", "fail", "skip":
		res.action, res.elapsed = e.Action, e.Elapsed
		if e.Test == "" {
			t.closePackage(e, tests)
			delete(t.packages, e.Package)
		}
	}
}

// closePackage counts the tests of a package that has ended.
func (t *tally) closePackage(e event, tests map[string]*result) {
	names := make([]string, 0, len(tests))
	parents := map[string]bool{}
	for name := range tests {
		names = append(names, name)
		for i := range name {
			if name[i] == '/' {
				parents[name[:i]] = true
			}
		}
	}
	slices.Sort(names)
	passed, failed, skipped := 0, 0, 0
	for _, name := range slices.Backward(names) { // children before their parent
		res := tests[name]
		if name == "" || parents[name] && (res.action != "fail" || failedChild(tests, name)) {
			continue
		}
		switch res.action {
		case "pass":
			passed++
			continue
		case "skip":
			skipped++
			if t.skip(e.Package, name, res) {
				continue
			}
			skipped--
		}
		failed++ // also what was still running when the package died
		res.action = "fail"
		fmt.Fprintf(t.w, "FAIL %s %s\n%s", e.Package, name, indent(res.output))
	}
	if e.Action == "fail" && failed == 0 { // it did not build, or ended outside any test
		failed = 1
		fmt.Fprintf(t.w, "FAIL %s\n%s", e.Package, indent(tests[""].output))
	}
	t.passed, t.failed, t.skipped = t.passed+passed, t.failed+failed, t.skipped+skipped
	if passed+failed+skipped > 0 {
		word := "ok  "
		if failed > 0 {
			word = "FAIL"
		}
		fmt.Fprintf(t.w, "%s %-50s %4d passed %3d failed %3d skipped %7.1fs\n", word, e.Package, passed, failed, skipped, e.Elapsed)
	}
	if e.Elapsed >= long {
		t.slowest(tests, names)
	}
}

const (
	long  = 120 // seconds that a package takes to have its slowest tests named
	named = 12  // that many
)

// slowest names the tests at the top that took longest, for who looks for time.
func (t *tally) slowest(tests map[string]*result, names []string) {
	names = slices.DeleteFunc(slices.Clone(names), func(name string) bool { return name == "" || strings.Count(name, "/") > 2 })
	slices.SortFunc(names, func(a, b string) int { return cmp.Compare(tests[b].elapsed, tests[a].elapsed) })
	for _, name := range names[:min(named, len(names))] {
		fmt.Fprintf(t.w, "slow %6.1fs %s\n", tests[name].elapsed, name)
	}
}

// skip notes why a test was skipped; false if it does not say so and has to.
func (t *tally) skip(pkg, name string, res *result) bool {
	for _, line := range res.output {
		if at := namedSkip.FindStringIndex(line); at != nil {
			t.reasons[strings.TrimSpace(line[at[0]:])]++
			return true
		}
	}
	if t.strict {
		fmt.Fprintf(t.w, "%s %s is skipped without saying what it needs\n", pkg, name)
		return false
	}
	t.reasons["no reason given: "+pkg+" "+name]++
	return true
}

func failedChild(tests map[string]*result, parent string) bool {
	for name, res := range tests {
		if strings.HasPrefix(name, parent+"/") && res.action == "fail" {
			return true
		}
	}
	return false
}

// finish prints why tests were skipped, and the count. A package that never ended is a failure, and so
// is a go test that failed for no reason seen here.
func (t *tally) finish(ok bool) {
	for pkg := range t.packages {
		fmt.Fprintf(t.w, "FAIL %s did not end\n", pkg)
		t.failed++
	}
	if !ok && t.failed == 0 {
		t.failed++
	}
	why := make([]string, 0, len(t.reasons))
	for reason := range t.reasons {
		why = append(why, reason)
	}
	slices.Sort(why)
	for _, reason := range why {
		fmt.Fprintf(t.w, "skipped %3d: %s\n", t.reasons[reason], reason)
	}
	fmt.Fprintf(t.w, "%d passed, %d failed", t.passed, t.failed)
	if t.skipped > 0 {
		fmt.Fprintf(t.w, ", %d skipped", t.skipped)
	}
	fmt.Fprintln(t.w)
}

func indent(output []string) string {
	var b strings.Builder
	for _, line := range output {
		b.WriteString("    " + strings.TrimSuffix(line, "\n") + "\n")
	}
	return b.String()
}
