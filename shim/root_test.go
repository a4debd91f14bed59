package shim

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
)

// cli runs one command line in this process, with its streams in memory.
func cli(args ...string) (status int, stdout, stderr string) {
	var out, errs bytes.Buffer
	root := newRootCommand()
	root.SetOut(&out)
	root.SetErr(&errs)
	status = execute(root, args)
	return status, out.String(), errs.String()
}

func TestOverviewIsADozenLines(t *testing.T) {
	status, out, errs := cli()
	if status != 0 || errs != "" {
		t.Fatalf("status %d, stderr %q", status, errs)
	}
	if n := strings.Count(out, "\n"); n > 12 {
		t.Errorf("%d lines:\n%s", n, out)
	}
	for _, cmd := range newRootCommand().Commands() {
		if !cmd.Hidden && !strings.Contains(out, cmd.Name()) {
			t.Errorf("%s is missing from the overview", cmd.Name())
		}
		if cmd.GroupID == "" {
			t.Errorf("%s is in no group", cmd.Name())
		}
	}
}

func TestUsageErrors(t *testing.T) {
	for _, args := range [][]string{{"frobnicate"}, {"--frobnicate"}, {"explain", "CR1"}, {"explain", "--nope"}, {"man"}, {"version", "7"}, {"doctor", "x"}} {
		status, out, errs := cli(args...)
		if status != statusUsage || out != "" {
			t.Errorf("%q: status %d, stdout %q", args, status, out)
		}
		if !strings.HasPrefix(errs, "crshim: ") || !strings.Contains(errs, "--help`") || strings.Count(errs, "\n") != 1 {
			t.Errorf("%q: stderr %q", args, errs)
		}
	}
}

func TestExitStatus(t *testing.T) {
	verb, job, comparison := &cobra.Command{}, asJob(&cobra.Command{}), asComparison(&cobra.Command{})
	notFound := &fault.Error{Code: fault.CommandNotFound, Object: "nosuch", Err: unix.ENOENT}
	for _, test := range []struct {
		cmd  *cobra.Command
		err  error
		want int
	}{
		{verb, nil, 0},
		{verb, errors.New("no"), 1},
		{verb, fault.List{{Code: fault.Code(1203)}}, 1},
		{verb, usageError{verb, errors.New("what?")}, 2},
		{verb, endWith(1), 1},
		{comparison, endWith(1), 1},
		{comparison, errors.New("no"), 2},
		{comparison, usageError{comparison, errors.New("what?")}, 2},
		{job, nil, 0},
		{job, endWith(7), 7},
		{job, errors.New("no"), 125},
		{job, usageError{job, errors.New("what?")}, 125},
		{job, fmt.Errorf("run: %w", notFound), 127},
		{job, &fault.Error{Code: fault.CommandNotExec}, 126},
	} {
		if got := exitStatus(test.cmd, test.err); got != test.want {
			t.Errorf("exitStatus(job %v, %v) = %d, want %d", isJob(test.cmd), test.err, got, test.want)
		}
	}
}

func TestPrintError(t *testing.T) {
	show := func(err error) string {
		var b strings.Builder
		printError(&b, err)
		return b.String()
	}
	if got := show(errors.New("open img: no such file")); got != "crshim: open img: no such file\n" {
		t.Errorf("plain error: %q", got)
	}
	if got := show(endWith(3)); got != "" {
		t.Errorf("a status alone prints %q", got)
	}
	if got := show(nil); got != "" {
		t.Errorf("nil prints %q", got)
	}
	forged := &fault.Error{Code: fault.FileOpen, Object: "a\ncrshim: all is well\x1b[2J"}
	if got := show(forged); strings.Count(got, "\n") != 3 || strings.ContainsRune(got, 0x1b) {
		t.Errorf("a name forges output: %q", got)
	}
	refusal := fault.List{
		{Code: fault.Code(1202), Object: "fd 3 of pid 421 (redis)"},
		{Code: fault.Code(1202), Object: "fd 4 of pid 421 (redis)"},
		{Code: fault.Code(1203), Object: "fd 7 of pid 421 (redis)"},
	}
	lines := strings.Split(strings.TrimSpace(show(fmt.Errorf("checkpoint: %w", refusal.Err()))), "\n")
	var heads []string
	for _, line := range lines {
		head, _, _ := strings.Cut(line, " cannot")
		head, _, _ = strings.Cut(head, ": CR") // keep the word only
		heads = append(heads, strings.SplitN(head, ":", 2)[0])
	}
	if got, want := strings.Join(heads, " "), "crshim crshim why try crshim why try"; got != want {
		t.Errorf("shape %q, want %q:\n%s", got, want, strings.Join(lines, "\n"))
	}
	if !strings.HasPrefix(lines[4], "crshim: CR1203 cannot save fd 7 of pid 421 (redis): ") {
		t.Errorf("third blocker: %q", lines[4])
	}
}

func TestExplain(t *testing.T) {
	status, out, _ := cli("explain")
	if status != 0 || strings.Count(out, "\n") != len(fault.All()) {
		t.Errorf("status %d, %d lines for %d codes", status, strings.Count(out, "\n"), len(fault.All()))
	}
	_, out, _ = cli("explain", "cr1203", "1001")
	for _, want := range []string{"CR1203 ", "CR1001 ", "why:", "try:", "ESRCH"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing from:\n%s", want, out)
		}
	}
	_, out, _ = cli("explain", "--json", "CR1001")
	var r explainReport
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatal(err)
	}
	if r.SchemaVersion != schemaVersion || len(r.Errors) != 1 || r.Errors[0].Errno != "ESRCH" || r.Errors[0].Why == "" {
		t.Errorf("%+v", r)
	}
}

func TestVersion(t *testing.T) {
	_, out, _ := cli("version", "--json")
	var r versionReport
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatal(err)
	}
	if r.SchemaVersion != schemaVersion || r.Version == "" || r.Platform != "linux/amd64" {
		t.Errorf("%+v", r)
	}
	if _, out, _ = cli("version"); !strings.HasPrefix(out, "crshim "+r.Version+" (go") {
		t.Errorf("%q", out)
	}
}

func TestCompletion(t *testing.T) {
	_, out, _ := cli("__complete", "explain", "cr12")
	if !strings.Contains(out, "CR1203\tcannot save") || strings.Contains(out, "CR1101") {
		t.Errorf("completion of cr12:\n%s", out)
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if status, out, _ := cli("completion", shell); status != 0 || !strings.Contains(out, "crshim") {
			t.Errorf("completion %s: status %d", shell, status)
		}
	}
}

// TestManPages holds every page to the shape that man(7) asks for, and the tree of commands to having one each.
func TestManPages(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "man1")
	if status, _, errs := cli("man", dir); status != 0 {
		t.Fatal(errs)
	}
	root := newRootCommand()
	root.InitDefaultCompletionCmd() // execute does it, once the streams are known
	pages := 0
	if err := walkCommands(root, func(cmd *cobra.Command) error {
		pages++
		text, err := os.ReadFile(filepath.Join(dir, manName(cmd)+".1"))
		if err != nil {
			return err
		}
		page := string(text)
		at := -1
		for _, want := range []string{".TH ", ".SH NAME\n", ".SH SYNOPSIS\n", ".SH DESCRIPTION\n", ".SH EXIT STATUS\n", ".SH SEE ALSO\n"} {
			next := strings.Index(page, want)
			if next <= at {
				t.Errorf("%s: %q is missing or out of place", manName(cmd), want)
			}
			at = next
		}
		if strings.Count(page, "\n.nf") != strings.Count(page, "\n.fi") {
			t.Errorf("%s: .nf without .fi", manName(cmd))
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != pages {
		t.Errorf("%d files for %d commands (%v)", len(files), pages, err)
	}
}

func TestRoff(t *testing.T) {
	var b strings.Builder
	writeRoffText(&b, "One.\n\n  $ ls -l\n  .hidden\n\nTwo \\ three.\n'quoted'")
	want := "One.\n.PP\n.nf\n  $ ls \\-l\n  .hidden\n.PP\n.fi\nTwo \\e three.\n\\&'quoted'\n"
	if b.String() != want {
		t.Errorf("got  %q\nwant %q", b.String(), want)
	}
}
