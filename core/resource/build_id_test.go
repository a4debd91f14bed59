package resource

import (
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

func TestBuildIDOfARealProgram(t *testing.T) {
	dir := t.TempDir()
	source, program := filepath.Join(dir, "p.c"), filepath.Join(dir, "p")
	if err := os.WriteFile(source, []byte("int main(void) { return 0; }\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for flag, length := range map[string]int{"-Wl,--build-id=sha1": 20, "-Wl,--build-id=md5": 16, "-Wl,--build-id=none": 0} {
		if out, err := exec.Command("cc", flag, "-o", program, source).CombinedOutput(); err != nil {
			t.Fatalf("cc: %v\n%s", err, out)
		}
		raw, err := os.ReadFile(program)
		if err != nil {
			t.Fatal(err)
		}
		got := buildID(raw[:4096])
		if len(got) != length {
			t.Errorf("%s: %d bytes", flag, len(got))
		}
		f, err := elf.Open(program)
		if err != nil {
			t.Fatal(err)
		}
		if section := f.Section(".note.gnu.build-id"); section != nil {
			data, err := section.Data()
			if err != nil {
				t.Fatal(err)
			}
			if want := string(data[16:]); string(got) != want {
				t.Errorf("%s: %x, want %x", flag, got, want)
			}
		}
		f.Close()
	}
}

// The page comes from the memory of a program, which may have written to it.
func FuzzBuildID(f *testing.F) {
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(self[:4096])
	f.Fuzz(func(t *testing.T, page []byte) {
		if len(page) > 4096 {
			return
		}
		if id := buildID(page); len(id) > len(page) {
			t.Errorf("%d bytes out of %d", len(id), len(page))
		}
	})
}
