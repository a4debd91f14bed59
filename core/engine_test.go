package core

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// counter counts into the file that it is given, one line every few
// milliseconds, and computes with the floating point unit as it goes.
const counter = `
#include <stdio.h>
#include <unistd.h>
#include <time.h>
int main(int argc, char **argv)
{
	FILE *f = fopen(argv[1], "w");
	double a = 1.5;
	for (long i = 0; ; i++) {
		struct timespec t = { 0, 5000000 };
		a = a * 1.0000001 + i / 3.0;
		fprintf(f, "%ld %.6f\n", i, a);
		fflush(f);
		nanosleep(&t, &t);
	}
}
`

// Descriptors that this test was started with by chance must not be in the
// programs that it saves.
func TestMain(m *testing.M) {
	if err := unix.CloseRange(3, 1<<31-1, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

func build(t *testing.T, source string, flags ...string) string {
	t.Helper()
	dir := t.TempDir()
	c, out := filepath.Join(dir, "program.c"), filepath.Join(dir, "program")
	if err := os.WriteFile(c, []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	if text, err := exec.Command("cc", append([]string{"-O1", "-o", out, c}, flags...)...).CombinedOutput(); err != nil {
		t.Fatalf("cc: %v\n%s", err, text)
	}
	return out
}

// start runs a program without stdio of ours.
func start(t *testing.T, argv ...string) procfs.PID {
	t.Helper()
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	p, err := os.StartProcess(argv[0], argv, &os.ProcAttr{Files: []*os.File{null, null, null}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Kill(p.Pid, unix.SIGKILL); _, _ = unix.Wait4(p.Pid, nil, 0, nil) })
	return procfs.PID(p.Pid)
}

func end(t *testing.T, pid procfs.PID) {
	t.Helper()
	if err := unix.Kill(int(pid), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Wait4(int(pid), nil, 0, nil); err != nil {
		t.Fatal(err)
	}
}

func lines(t *testing.T, path string) []string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(b)), "\n")
}

func waitLines(t *testing.T, path string, n int) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if b, err := os.ReadFile(path); err == nil && strings.Count(string(b), "\n") >= n {
			return
		}
	}
	t.Fatalf("%s has not reached %d lines", path, n)
}

func checkSequence(t *testing.T, path string) {
	t.Helper()
	a := 1.5
	for i, line := range lines(t, path) {
		a = a*1.0000001 + float64(i)/3.0
		if want := fmt.Sprintf("%d %.6f", i, a); line != want {
			t.Fatalf("line %d is %q, want %q", i, line, want)
		}
	}
}

func TestExternalCheckpointAndRestart(t *testing.T) {
	for _, flags := range [][]string{nil, {"-static"}} {
		t.Run(strings.Join(append(flags, "program"), " "), func(t *testing.T) {
			program := build(t, counter, flags...)
			out := filepath.Join(t.TempDir(), "out")
			pid := start(t, program, out)
			waitLines(t, out, 10)
			var engine Engine
			for cycle := range 3 {
				img, err := os.Create(filepath.Join(t.TempDir(), "image"))
				if err != nil {
					t.Fatal(err)
				}
				done, err := engine.Checkpoint(CheckpointRequest{Target: pid, PID: pid, Out: img, OutFD: -1})
				if err != nil {
					t.Fatal(err)
				}
				t.Logf("cycle %d: %d bytes, %v", cycle, done.Bytes, done.Timing)
				waitLines(t, out, len(lines(t, out))+5)
				end(t, pid)
				if _, err := img.Seek(0, 0); err != nil {
					t.Fatal(err)
				}
				opened, err := engine.Open(img)
				if err != nil {
					t.Fatal(err)
				}
				back, err := opened.Into(func(tr *tracer.Tracer) (*tracer.Tracee, error) { return tr.Blank(tracer.BlankOptions{}) })
				if err != nil {
					t.Fatal(err)
				}
				t.Logf("cycle %d: back as %d, %v", cycle, back.PID, back.Timing)
				pid = back.PID
				waitLines(t, out, len(lines(t, out))+20)
				checkSequence(t, out)
			}
			end(t, pid)
		})
	}
}
