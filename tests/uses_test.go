package tests

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// usesPrograms builds samples/uses/*.c as `make uses` does, and returns where they are.
var usesPrograms = sync.OnceValues(func() (string, error) {
	dir := filepath.Join(work, "bin", "uses")
	bin, err := crshimBinary()
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	sources, err := filepath.Glob(filepath.Join(repository(), "samples", "uses", "*.c"))
	for _, source := range sources {
		out := filepath.Join(dir, strings.TrimSuffix(filepath.Base(source), ".c"))
		if err := command(".", bin, "cc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", out, source, "-lm"); err != nil {
			return "", err
		}
	}
	return dir, err
})

// uses are what the readme of 2009 says checkpoints are good for. Each script
// judges itself, and ends with status 0 only if what it claims was seen.
var uses = []string{
	"failure-recovery", "response-time", "utilisation", "fault-resilience", "load-balancing", "maintenance", "time-travel",
}

func TestUses(t *testing.T) {
	t.Parallel()
	// One after the other: they compute for the better part of their time.
	for _, use := range uses {
		for _, u := range users() {
			t.Run(use+"/"+u.name, func(t *testing.T) {
				programs, err := usesPrograms()
				if err != nil {
					t.Fatal(err)
				}
				e := newEnv(t, u)
				e.deadline = e.deadline.Add(timeLimit) // it is work for one processor, and others want that, too
				// To where every user can read them.
				for _, name := range []string{use + ".sh", "common.sh", "hosts.sh"} {
					text, err := os.ReadFile(filepath.Join(repository(), "samples", "uses", name))
					if err != nil {
						t.Fatal(err)
					}
					e.write(e.path(name), string(text))
				}
				j := e.start(streams{}, "sh", e.path(use+".sh"), e.crshim, programs)
				if status := j.end(); status == "exit status 77" {
					t.Skip(lastLine(j.output()))
				} else if status != "exit status 0" {
					t.Errorf("%s: %s", use, status)
				}
				if !strings.Contains(j.output(), "\nShown: ") {
					t.Error("it does not say what it has shown")
				}
			})
		}
	}
}

// TestUsesAreAll: what `make uses` runs is what is tested here.
func TestUsesAreAll(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(repository(), "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	if want := "\nUSES := " + strings.Join(uses, " ") + "\n"; !strings.Contains(string(text), want) {
		t.Errorf("Makefile lacks the line%s", want)
	}
}

func lastLine(text string) string {
	text = strings.TrimSuffix(text, "\n")
	return text[strings.LastIndexByte(text, '\n')+1:]
}
