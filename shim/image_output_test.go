package shim

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestImageOutput: an image is under its name as a whole or not at all, and nothing
// else is ever beside it where the file system has files without names.
func TestImageOutput(t *testing.T) {
	dir := t.TempDir()
	names := func(want ...string) {
		t.Helper()
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		if len(entries) != len(want) {
			t.Fatalf("the directory has %v, want %v", entries, want)
		}
		for i, entry := range entries {
			if entry.Name() != want[i] {
				t.Fatalf("the directory has %v, want %v", entries, want)
			}
		}
	}
	probe, err := os.OpenFile(dir, os.O_RDWR|unix.O_TMPFILE, 0o600)
	nameless := err == nil
	if nameless {
		_ = probe.Close() // nothing was written
	} else if !errors.Is(err, unix.EOPNOTSUPP) {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "img")
	write := func(text string) *imageOutput {
		t.Helper()
		o, err := createOutput(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = o.Close() })
		if _, err := o.WriteString(text); err != nil {
			t.Fatal(err)
		}
		return o
	}
	lost := write("lost")
	if nameless {
		names()
	}
	if err := lost.discard(); err != nil {
		t.Fatal(err)
	}
	names()
	for _, text := range []string{"first", "second"} {
		o := write(text)
		if err := errors.Join(o.publish(), o.discard()); err != nil {
			t.Fatal(err)
		}
		names("img")
		got, err := os.ReadFile(path)
		if err != nil || string(got) != text {
			t.Errorf("the image is %q, %v, want %q", got, err, text)
		}
		if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
			t.Errorf("the image is %v, %v", info.Mode(), err)
		}
	}
	if err := os.Mkdir(path+"s", 0o700); err != nil {
		t.Fatal(err)
	}
	path += "s"
	o := write("no file") // to be a directory
	if err := o.publish(); err == nil {
		t.Error("an image has taken the place of a directory")
	}
	if err := o.discard(); err != nil {
		t.Fatal(err)
	}
	names("img", "imgs")
}
