package shim

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// program2009 is in the style of the samples of 2009: nothing but <sys/syscall.h>.
const program2009 = `#include <stdio.h>
#include <unistd.h>
#include <sys/syscall.h>

int main(void)
{
	pid_t pid = getpid();

	printf("%ld %d %d\n", (long)syscall(__NR_checkpoint, pid, -1, 0), SYS_checkpoint, SYS_restart);
	return __NR_restart - 1001;
}
`

// programHeader uses all of <crshim.h>, in C and in C++.
const programHeader = `#include <crshim.h>
#include <errno.h>

int main(void)
{
	int (*by_pointer)(pid_t, int, unsigned long) = checkpoint;

	if (by_pointer(0, -1, 0) != -1 || errno != ENOSYS)
		return 1;
	errno = 0;
	if (restart(0, -1, 0) != -1 || errno != ENOSYS)
		return 2;
	return crgetid() != -1;
}
`

// TestCC compiles with every compiler that the header is meant for, and runs the result without crshim.
func TestCC(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("XDG_CACHE_HOME", filepath.Join(dir, "cache"))
	for _, test := range []struct {
		cc, source, ext string
		flags           []string
	}{
		{"", program2009, "c", nil},
		{"gcc", program2009, "c", []string{"-static", "-O2"}},
		{"gcc -m32", program2009, "c", nil},
		{"musl-gcc", program2009, "c", []string{"-static"}},
		{"g++", program2009, "cc", nil},
		{"gcc", programHeader, "c", []string{"-std=c99", "-pedantic", "-Wextra"}},
		{"gcc", programHeader, "c", []string{"-std=c90", "-pedantic", "-Wredundant-decls"}},
		{"gcc -m32", programHeader, "c", []string{"-O2"}},
		{"musl-gcc", programHeader, "c", []string{"-pedantic"}},
		{"g++", programHeader, "cc", []string{"-std=c++11", "-pedantic", "-Wextra"}},
		{"g++", programHeader, "cc", []string{"-std=c++20", "-O2"}},
	} {
		name := strings.Join(append([]string{test.cc, test.ext}, test.flags...), " ")
		t.Run(name, func(t *testing.T) {
			if test.cc != "" {
				if _, err := exec.LookPath(strings.Fields(test.cc)[0]); err != nil {
					t.Skipf("needs: %s", test.cc)
				}
			}
			dir := t.TempDir()
			source := filepath.Join(dir, "program."+test.ext)
			if err := os.WriteFile(source, []byte(test.source), 0o600); err != nil {
				t.Fatal(err)
			}
			args := append([]string{"cc", "-Wall", "-Werror", "-o", filepath.Join(dir, "program"), source}, test.flags...)
			cmd := crshim(args...)
			cmd.Env = append(cmd.Env, "CC="+test.cc)
			if out, err := cmd.CombinedOutput(); err != nil {
				if strings.Contains(test.cc, "-m32") && strings.Contains(string(out), "bits/libc-header-start.h: No such file") {
					t.Skip("needs: 32-bit C library")
				}
				t.Fatalf("%v: %v\n%s", args, err, out)
			} else if len(out) > 0 {
				t.Errorf("%v wrote %s", args, out)
			}
			out, err := exec.Command(filepath.Join(dir, "program")).CombinedOutput()
			if want := "-1 1000 1001\n"; err != nil || test.source == program2009 && string(out) != want {
				t.Errorf("the program: %v, %q", err, out)
			}
		})
	}
}

// TestCCStatus checks that the compiler's status is passed on, with a cache directory and without.
func TestCCStatus(t *testing.T) {
	for name, env := range map[string][]string{
		"cached":    {"XDG_CACHE_HOME=" + t.TempDir()},
		"temporary": {"XDG_CACHE_HOME=/dev/null/nowhere", "TMPDIR=" + t.TempDir()},
	} {
		t.Run(name, func(t *testing.T) {
			for command, want := range map[string]int{"true": 0, "false": 1, "a script": 9} {
				cmd := crshim("cc", "--version")
				cmd.Env = append(cmd.Env, append([]string{"CC=" + command}, env...)...)
				if want == 9 {
					// It ends so only if it was given the header and the argument.
					script := filepath.Join(t.TempDir(), "cc")
					if err := os.WriteFile(script, []byte("#!/bin/sh\n[ -e \"${1#-I}/crshim.h\" ] && [ \"$2\" = --version ] && exit 9\n"), 0o755); err != nil {
						t.Fatal(err)
					}
					cmd.Env = append(cmd.Env, "CC="+script)
				}
				_ = cmd.Run()
				if got := cmd.ProcessState.ExitCode(); got != want {
					t.Errorf("CC=%s: status %d, want %d", command, got, want)
				}
			}
		})
	}
	left, err := os.ReadDir("/tmp")
	if err != nil {
		t.Fatal(err)
	}
	if slices.ContainsFunc(left, func(e os.DirEntry) bool { return strings.HasPrefix(e.Name(), "crshim-include-") }) {
		t.Error("a temporary header is left")
	}
}

func TestCCNotFound(t *testing.T) {
	cmd := crshim("cc", "x.c")
	cmd.Env = append(cmd.Env, "CC=no-such-compiler")
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "CR5006 cannot run no-such-compiler") {
		t.Errorf("%v: %s; want CR5006", err, out)
	}
}

// TestCFlags compiles with what it prints, and finds the header put right again after it was damaged.
func TestCFlags(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("XDG_CACHE_HOME", dir)
	out, err := crshim("cflags").Output()
	if err != nil {
		t.Fatal(err)
	}
	include, ok := strings.CutPrefix(strings.TrimSpace(string(out)), "-I")
	if !ok || !strings.HasPrefix(include, dir) {
		t.Fatalf("printed %q", out)
	}
	header := filepath.Join(include, "crshim.h")
	want, err := os.ReadFile(header)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(header, want[:10], 0o644); err != nil {
		t.Fatal(err)
	}
	if err := crshim("cflags").Run(); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(header); err != nil || string(got) != string(want) {
		t.Errorf("the header was not put right: %v", err)
	}
}
