package core

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/crshim/crshim/tracer/procfs"
)

// executer always has a child that is about to execute a program, or to end.
const executer = `
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>
int main(int argc, char **argv)
{
	if (argc == 1)
		return 0;
	fclose(fopen(argv[1], "w"));
	for (;;) {
		if (!fork()) {
			execl(argv[0], argv[0], (char *)0);
			_exit(1);
		}
		while (wait(0) > 0)
			;
	}
}
`

// TestCheckpointAmidExec: a process that is seized while it executes a program
// stops in the middle of the call first.
func TestCheckpointAmidExec(t *testing.T) {
	ready := filepath.Join(t.TempDir(), "ready")
	pid := start(t, build(t, executer, "-static"), ready)
	for !exists(ready) {
		time.Sleep(time.Millisecond)
	}
	var engine Engine
	image := filepath.Join(t.TempDir(), "image")
	for range 100 {
		save(t, &engine, pid, image)
	}
}

// save checkpoints a process.
func save(t *testing.T, engine *Engine, pid procfs.PID, image string) {
	t.Helper()
	img, err := os.Create(image)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := engine.Checkpoint(CheckpointRequest{Target: pid, PID: pid, Out: img, OutFD: -1}); err != nil {
		t.Fatal(err)
	}
	if err := img.Close(); err != nil {
		t.Fatal(err)
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
