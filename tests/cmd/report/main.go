// Report runs `go test` and ends with one line that a person or a machine can read:
//
//	412 passed, 0 failed, 3 skipped
//
// A test that has subtests is not counted beside them. Under CI=true a skip must say what the machine lacks
// ("needs: CAP_SYS_RESOURCE", "needs: kernel 6.7"); any other skip counts as a failure, so that no test
// can fall silent unnoticed. All arguments are those of go test.
package main

import (
	"fmt"
	"os"
	"os/exec"
)

func main() {
	cmd := exec.Command("go", append([]string{"test", "-json"}, os.Args[1:]...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "report: start go test: %v\n", err)
		os.Exit(1)
	}
	t := newTally(os.Stdout, os.Getenv("CI") == "true")
	readErr := t.read(out)
	waitErr := cmd.Wait()
	if readErr != nil {
		fmt.Fprintf(os.Stderr, "report: read go test's output: %v\n", readErr)
	}
	t.finish(waitErr == nil && readErr == nil)
	if t.failed > 0 {
		os.Exit(1)
	}
}
