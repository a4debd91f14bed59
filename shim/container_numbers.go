package shim

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
)

// The processes of an image get the numbers that they had in the new pid namespace, low ones as a rule. The threads of the stage that
// comes before them must not have these: the number of a thread that has ended becomes free some time after execve(2) has seen it end
// (release_task() in kernel/exit.c), and nobody can tell when. So the stage and its threads count from far above, but for the first
// process itself, and then the namespace from where the image has come to.

// lastPIDFile is the number after which the pid namespace of who writes there counts on (proc_sys_kernel(5)); it is not there in a
// kernel without CONFIG_CHECKPOINT_RESTORE.
const lastPIDFile = "/proc/sys/kernel/ns_last_pid"

// stageNumbers is how many numbers below the highest one are for the stage.
const stageNumbers = 1000

// farNumber is the number after which the stage counts.
func farNumber() (string, error) {
	text, err := os.ReadFile("/proc/sys/kernel/pid_max")
	if err != nil {
		return "", err
	}
	most, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return "", fmt.Errorf("read the highest process id: %w", err)
	}
	return strconv.Itoa(max(most-stageNumbers, most/2)), nil
}

// openLastPID opens the file before the container has a /proc of its own, which may be any.
func openLastPID() (*os.File, error) {
	f, err := os.OpenFile(lastPIDFile, os.O_WRONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return f, err
}

// countFrom has the namespace count on from the last process of the image.
func countFrom(f *os.File, last int) error {
	if f == nil {
		return nil
	}
	if _, err := f.WriteString(strconv.Itoa(last)); err != nil {
		return fmt.Errorf("choose process ids: %w", err)
	}
	return nil
}
