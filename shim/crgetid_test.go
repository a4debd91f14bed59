package shim

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestCrgetid runs the sample of docs/adding-a-syscall.md: without crshim, and with it before and after a checkpoint.
func TestCrgetid(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	dir := t.TempDir()
	program := filepath.Join(dir, "crgetid")
	if out, err := crshim("cc", "-Wall", "-Wextra", "-Werror", "-o", program, "../samples/crgetid.c").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if out, err := exec.Command(program).CombinedOutput(); err == nil || string(out) != "crgetid: Function not implemented\n" {
		t.Errorf("without crshim: %v, %q", err, out)
	}
	if out, err := crshim("run", program).CombinedOutput(); err != nil || string(out) != "crid 0\n" {
		t.Errorf("under crshim: %v, %q", err, out)
	}
	// A file: what is in a pipe cannot be saved.
	file, err := os.Create(filepath.Join(dir, "output"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	cmd := crshim("run", program, filepath.Join(dir, "image"))
	cmd.Stdout, cmd.Stderr = file, file
	err = cmd.Run()
	out, _ := os.ReadFile(file.Name())
	if want := "crid 0\nsaved as crid 1, crid 1\n"; err != nil || string(out) != want {
		t.Errorf("with a checkpoint: %v, %q, want %q", err, out, want)
	}
}
