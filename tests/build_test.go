package tests

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

var binaryFlag = flag.String("crshim", "", "test this `binary` and build none")

// crshimBinary builds bin/crshim once.
var crshimBinary = sync.OnceValues(func() (string, error) {
	if *binaryFlag != "" {
		return *binaryFlag, nil
	}
	out := filepath.Join(work, "bin", "crshim")
	return out, command(repository(), "go", "build", "-o", out, "./shim/cmd/crshim")
})

// libc is a C library and a way to link against it.
type libc struct {
	name string
	cc   []string
}

var libcs = []libc{
	{"glibc", []string{"cc"}},
	{"glibc-static", []string{"cc", "-static"}},
	{"musl", []string{"musl-gcc"}},
	{"musl-static", []string{"musl-gcc", "-static"}},
}

var glibc = libcs[0]

// missing says what the machine lacks for this library, or "".
func (l libc) missing() string {
	if _, err := exec.LookPath(l.cc[0]); err != nil {
		return l.cc[0]
	}
	return ""
}

var built sync.Map // path of a program -> func() error

// program compiles tests/DIR/NAME.c once and returns its path.
func program(t *testing.T, l libc, dir, name string) string {
	t.Helper()
	if m := l.missing(); m != "" {
		t.Skip("needs:", m)
	}
	out, build := executable(l, dir, name)
	if err := build(); err != nil {
		t.Fatal(err)
	}
	return out
}

// executable is where such a program is, and what builds it once.
func executable(l libc, dir, name string) (out string, build func() error) {
	out = filepath.Join(work, "bin", l.name, name)
	once, _ := built.LoadOrStore(out, sync.OnceValue(func() error {
		if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
			return err
		}
		args := append(l.cc[1:len(l.cc):len(l.cc)], "-O1", "-g", "-std=gnu11", "-pthread", "-Wall", "-Wextra", "-Werror",
			"-o", out, filepath.Join(dir, name+".c"))
		return command(".", l.cc[0], args...)
	}))
	return out, once.(func() error)
}

// samples are the programs by which one sees the calls: ours, or the four of 2009.
type samples struct {
	dir      string
	original bool
}

func (s samples) path(name string) string { return filepath.Join(s.dir, name) }

// ourSamples builds samples/*.c as `make samples` does.
var ourSamples = sync.OnceValues(func() (samples, error) {
	s := samples{dir: filepath.Join(work, "bin", "samples")}
	bin, err := crshimBinary()
	if err != nil {
		return s, err
	}
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return s, err
	}
	for _, name := range []string{"ckpt", "rstr", "self", "test", "mktree"} {
		source := filepath.Join(repository(), "samples", name+".c")
		if err := command(".", bin, "cc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", s.path(name), source, "-lm"); err != nil {
			return s, err
		}
	}
	return s, nil
})

// seedMail is a saved copy of the mail with the programs of 2009, or "".
func seedMail() string {
	dir := filepath.Join(repository(), "..", "shared", "seed")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return ""
	}
	for _, e := range entries {
		name := filepath.Join(dir, e.Name())
		if text, err := os.ReadFile(name); err == nil && strings.Contains(string(text), "+++ b/Documentation/checkpoint/rstr.c") {
			return name
		}
	}
	return ""
}

// originalSamples builds the programs of 2009, unchanged, from seedMail.
var originalSamples = sync.OnceValues(func() (samples, error) {
	s := samples{dir: filepath.Join(work, "bin", "originals"), original: true}
	bin, err := crshimBinary()
	if err != nil {
		return s, err
	}
	mail := seedMail()
	if mail == "" {
		return s, fmt.Errorf("no saved copy of the mail of 2009")
	}
	return s, command(repository(), "sh", "samples/originals.sh", mail, s.dir, bin)
})

func mustSamples(t *testing.T) samples {
	t.Helper()
	s, err := ourSamples()
	if err != nil {
		t.Fatal(err)
	}
	return s
}
