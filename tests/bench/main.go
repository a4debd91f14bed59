// Command bench measures crshim. Every figure is a ratio to something that
// ran beside it in the same call, rounds alternating, and the table shows
// medians; absolute times are there to judge the noise by.
//
//	go run ./tests/bench [-rounds N] [-sizes 64,512,2048] [-dirs /tmp,/dev/shm]
//
// A peer that is not installed, or does not work here, is left out by name.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"
)

// bench is one run.
type bench struct {
	context.Context
	crshim  string // the binary that is measured
	program string // bench.c, built
	dir     string
	rounds  int
	rows    *tabwriter.Writer
}

func main() {
	crshim := flag.String("crshim", "bin/crshim", "the `binary` to measure")
	rounds := flag.Int("rounds", 5, "`rounds` of each measurement, at least 5 for a median worth the name")
	sizes := flag.String("sizes", "64,512,2048", "`sizes` of memory to save, in MiB")
	dirs := flag.String("dirs", os.TempDir()+",/dev/shm", "`directories` to write images to")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	if err := run(ctx, *crshim, *rounds, *sizes, *dirs); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, crshim string, rounds int, sizes, dirs string) (err error) {
	b := &bench{Context: ctx, rounds: rounds, rows: tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)}
	if b.crshim, err = filepath.Abs(crshim); err != nil {
		return err
	}
	if b.dir, err = os.MkdirTemp("", "crshim-bench."); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	// What we have inherited is not for the programs that are saved.
	if err := unix.CloseRange(3, ^uint(0), unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return err
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	limit.Cur = limit.Max
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	b.program = filepath.Join(b.dir, "bench")
	// Processes that crshim or criu detaches become our children.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return err
	}
	if out, err := exec.Command("cc", "-O2", "-pthread", "-o", b.program, "tests/callers/bench.c").CombinedOutput(); err != nil {
		return fmt.Errorf("cc: %w\n%s", err, out)
	}

	fmt.Fprintln(b.rows, "what\tmedian\tbeside it\tmedian\tratio\tgoal")
	steps := []func() error{b.ordinaryCall, b.tiny}
	for _, dir := range strings.Split(dirs, ",") {
		for _, size := range strings.Split(sizes, ",") {
			steps = append(steps, func() error { return b.file(dir, size) })
		}
	}
	for _, size := range strings.Split(sizes, ",") {
		steps = append(steps, func() error { return b.pipe(size) })
	}
	steps = append(steps, func() error { return b.linear("maps", "mappings", 10000) }, func() error { return b.linear("fds", "descriptors", 10000) },
		func() error { return b.linear("threads", "threads", 500) }, func() error { return b.linear("processes", "processes", 200) })
	for _, step := range steps {
		if err := step(); err != nil {
			return errors.Join(err, b.rows.Flush())
		}
		fmt.Fprint(os.Stderr, ".")
	}
	fmt.Fprintln(os.Stderr)
	return b.rows.Flush()
}

// row compares two series; the ratio is of their medians.
func (b *bench) row(what string, a []float64, beside string, c []float64, faster bool, goal string) {
	ratio := median(a) / median(c)
	if faster { // how many times as fast, not as long
		ratio = 1 / ratio
	}
	fmt.Fprintf(b.rows, "%s\t%s\t%s\t%s\t%.2f\t%s\n", what, duration(median(a)), beside, duration(median(c)), ratio, goal)
}

// note is a row without a peer.
func (b *bench) note(what string, a []float64, beside, goal string) {
	fmt.Fprintf(b.rows, "%s\t%s\t%s\t\t\t%s\n", what, duration(median(a)), beside, goal)
}

func median(series []float64) float64 {
	s := slices.Sorted(slices.Values(series))
	if len(s) == 0 {
		return 0
	}
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}

func duration(ns float64) string {
	d := time.Duration(ns)
	switch {
	case d < 10*time.Microsecond:
		return fmt.Sprintf("%.1f ns", ns)
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.2f ms", ns/1e6)
	}
	return fmt.Sprintf("%.1f ms", ns/1e6)
}

// output runs a command to its end. Its output goes to files: a program with a
// pipe cannot be saved.
func (b *bench) output(name string, args ...string) (string, error) {
	stdout, err := os.Create(filepath.Join(b.dir, "stdout"))
	if err != nil {
		return "", err
	}
	defer stdout.Close()
	stderr, err := os.Create(filepath.Join(b.dir, "stderr"))
	if err != nil {
		return "", err
	}
	defer stderr.Close()
	cmd := exec.CommandContext(b, name, args...)
	cmd.Dir = b.dir
	cmd.Stdout, cmd.Stderr = stdout, stderr
	if err := cmd.Run(); err != nil {
		said, _ := os.ReadFile(stderr.Name())
		return "", fmt.Errorf("%s %s: %w\n%s", filepath.Base(name), strings.Join(args, " "), err, said)
	}
	out, err := os.ReadFile(stdout.Name())
	return string(out), err
}

// timed is how long a command takes as a whole.
func (b *bench) timed(name string, args ...string) (float64, error) {
	start := time.Now()
	_, err := b.output(name, args...)
	return float64(time.Since(start)), err
}

// held is a process that keeps something and sleeps.
type held struct {
	cmd *exec.Cmd
	pid int
}

// hold starts bench.c and waits until it sleeps, with everything in place.
func (b *bench) hold(args ...string) (*held, error) {
	cmd := exec.CommandContext(b, b.program, args...)
	cmd.Dir = b.dir
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	h := &held{cmd, cmd.Process.Pid}
	for {
		call, err := os.ReadFile(fmt.Sprintf("/proc/%d/syscall", h.pid))
		if err != nil {
			return nil, errors.Join(err, h.end())
		}
		if strings.HasPrefix(string(call), fmt.Sprintf("%d ", unix.SYS_PAUSE)) {
			return h, nil
		}
		if b.Err() != nil {
			return nil, errors.Join(b.Err(), h.end())
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (h *held) end() error {
	if err := h.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	var exit *exec.ExitError
	if err := h.cmd.Wait(); err != nil && !errors.As(err, &exit) {
		return err
	}
	return nil
}

// times reads what bench.c has written to a file, and removes it.
func (b *bench) times(name string) (map[string][]float64, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	all := map[string][]float64{}
	for line := range strings.Lines(string(text)) {
		what, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		ns, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return nil, err
		}
		all[what] = append(all[what], ns)
	}
	return all, os.Remove(name)
}

// devNull is where a pipe's other end reads to.
func devNull(cmd *exec.Cmd) error {
	cat := exec.Command("cat")
	cat.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	read, write, err := os.Pipe()
	if err != nil {
		return err
	}
	cat.Stdin, cat.Stdout, cmd.Stdout = read, null, write
	var stderr strings.Builder
	cmd.Stderr = &stderr
	err = errors.Join(cat.Start(), cmd.Start(), read.Close(), write.Close())
	if err != nil {
		return err
	}
	if err := errors.Join(cmd.Wait(), cat.Wait()); err != nil {
		return fmt.Errorf("%v: %w\n%s", cmd.Args, err, stderr.String())
	}
	return nil
}
