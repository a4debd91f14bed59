package tests

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// view is what /proc shows others of a process, as lines that a restart must
// not change. The scenarios compare the same from inside.
type view struct {
	Comm, Cmdline, Environ string
	Auxv                   []byte
	Cwd, Root, Exe         string
	Maps                   []string
	Status                 []string
	FDs                    []string
}

var statusFields = []string{
	"Name", "Umask", "Uid", "Gid", "Groups", "Threads", "SigPnd", "ShdPnd", "SigBlk", "SigIgn", "SigCgt",
	"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "THP_enabled",
}

// deletedMapping is one of a file that has no name: a restart makes another.
var deletedMapping = regexp.MustCompile(` \d+ +(/.* \(deleted\))$`)

// nameless is a pipe, a socket or a pseudo terminal: a restart makes another.
var nameless = regexp.MustCompile(`^(pipe:|socket:|/dev/pts/)\[?\d+\]?$`)

// withoutName cuts what a restart cannot give back: the number of a pipe,
// socket or terminal, the name of a deleted file.
func withoutName(target string) string {
	if strings.HasSuffix(target, " (deleted)") && !exists(target) && !strings.HasPrefix(target, "/memfd:") {
		return filepath.Dir(target) + "/(deleted)"
	}
	return nameless.ReplaceAllString(target, "$1")
}

func viewOf(t testing.TB, pid int) *view {
	t.Helper()
	proc := fmt.Sprintf("/proc/%d/", pid)
	read := func(name string) string {
		text, err := os.ReadFile(proc + name)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	link := func(name string) string {
		target, err := os.Readlink(proc + name)
		if err != nil {
			t.Fatal(err)
		}
		return target
	}
	v := &view{
		Comm: strings.TrimSuffix(read("comm"), "\n"), Cmdline: read("cmdline"), Environ: read("environ"), Auxv: []byte(read("auxv")),
		Cwd: link("cwd"), Root: link("root"), Exe: withoutName(link("exe")),
	}
	for _, line := range strings.Split(read("maps"), "\n") {
		if m := deletedMapping.FindStringSubmatchIndex(line); m != nil && !exists(line[m[2]:]) {
			line = line[:m[0]] + " " + withoutName(line[m[2]:])
		}
		v.Maps = append(v.Maps, line)
	}
	for _, line := range strings.Split(read("status"), "\n") {
		if name, _, _ := strings.Cut(line, ":"); slices.Contains(statusFields, name) {
			v.Status = append(v.Status, line)
		}
	}
	fds, err := os.ReadDir(proc + "fd")
	if err != nil {
		t.Fatal(err)
	}
	// What it has open about itself is so whatever its number is.
	own := strings.NewReplacer(fmt.Sprintf("%stask/%d/", proc, pid), "/proc/thread-self/", proc, "/proc/self/")
	for _, fd := range fds {
		info := strings.Split(read(filepath.Join("fdinfo", fd.Name())), "\n")
		v.FDs = append(v.FDs, fmt.Sprintf("%s -> %s, %s, %s", fd.Name(), withoutName(own.Replace(link(filepath.Join("fd", fd.Name())))), info[0], info[1]))
	}
	return v
}

// sameView fails if a process looks different from before. Only privilege can
// set what /proc/PID/exe shows (PR_SET_MM_MAP in prctl(2)).
func sameView(t testing.TB, u user, before, after *view) {
	t.Helper()
	if u.id != 0 {
		before.Exe = after.Exe
	}
	if d := cmp.Diff(before, after); d != "" {
		t.Fatalf("the restored process looks different (-before +after):\n%s", d)
	}
}
