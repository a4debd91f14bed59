package shim

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
)

// restartConfig is what the stages of a restart are told.
type restartConfig struct {
	Image  int        `json:",omitzero"` // descriptor, for __supervise
	Detach bool       `json:",omitzero"`
	PIDs   pidsChoice // of PID and any other
	PID    int        `json:",omitzero"` // of the process when it was saved, for __parent
	Calls  bool       `json:",omitzero"` // the process is to be under the filter
}

// pidsChoice is the value of --pids.
type pidsChoice string

const (
	pidsAuto pidsChoice = "auto"
	pidsKeep pidsChoice = "keep"
	pidsNew  pidsChoice = "new"
)

var pidsChoices = []string{string(pidsAuto), string(pidsKeep), string(pidsNew)}

func newRestartCommand() *cobra.Command {
	var log logConfig
	var r restartConfig
	var pids, pidfile string
	cmd := &cobra.Command{
		Use:     "restart [flags] FILE|-",
		Aliases: []string{"rs"},
		Short:   "Become the process that is in an image",
		Long: `Rebuild the process of an image and be to the shell what it is: signals, stops and the terminal reach it, and the exit status is its own.

FILE may be a pipe; "-" reads standard input. An image is read once, from front to back, and nothing runs before it has been read
and checked as a whole. Files are opened by name with the rights of the user who restarts. A terminal that the process had as standard
input, output or error is replaced by what crshim has in that place.

If the calls checkpoint and restart worked for the process when it was saved, they work again.`,
		Example: `  crshim restart img
  crshim restart --detach --pidfile img.pid img
  ssh host crshim checkpoint --kill 3493 -o - | crshim restart -`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			err := log.check()
			if !slices.Contains(pidsChoices, pids) {
				err = errors.Join(err, fmt.Errorf("--pids: %q is none of %s", pids, strings.Join(pidsChoices, ", ")))
			}
			if err != nil {
				return usageError{cmd: cmd, err: err}
			}
			r.PIDs = pidsChoice(pids)
			status, err := restart(cmd.OutOrStdout(), log, r, args[0], pidfile)
			if err != nil {
				return err
			}
			return endAs(status)
		},
	}
	flags := cmd.Flags()
	flags.BoolVarP(&r.Detach, "detach", "d", false, "return once the process runs, in a session of its own, and print its process id")
	flags.StringVar(&pidfile, "pidfile", "", "write its process id to `FILE`")
	flags.StringVar(&pids, "pids", string(pidsAuto), "its process id: keep that of the image, or fail; auto, that where it is free and permitted; new")
	log.register(flags)
	if err := cmd.RegisterFlagCompletionFunc("pids", cobra.FixedCompletions(pidsChoices, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // a bug: the flag is defined above
	}
	return asJob(cmd)
}

// restart restarts an image and returns how its process ended, or 0 once it runs detached.
func restart(stdout io.Writer, log logConfig, r restartConfig, name, pidfile string) (unix.WaitStatus, error) {
	start := stateAtStart()
	var err error
	if name == toStdout {
		r.Image, err = takeStdin()
		// That the image came in there is no reason for the process to have it there.
		start.Closed |= 1 << unix.Stdin
	} else {
		r.Image, err = unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	}
	if err != nil {
		return 0, &fault.Error{Code: fault.ImageRead, Object: name, Err: err}
	}
	if err := refuseTerminal(r.Image); err != nil {
		return 0, &fault.Error{Code: fault.ImageRead, Object: name, Err: err}
	}
	file, err := createPIDFile(pidfile)
	if err != nil {
		return 0, err
	}
	status, err := launch(&stageConfig{Start: start, Log: log, Restart: &r}, nil, func(f *front, pid int) error {
		if err := file.publish(pid); err != nil {
			return errors.Join(err, f.kill())
		}
		if !r.Detach {
			return nil
		}
		if _, err := fmt.Fprintln(stdout, pid); err != nil {
			return errors.Join(fmt.Errorf("print process id: %w", err), f.kill())
		}
		return errDetached
	})
	if errors.Is(err, errDetached) {
		return 0, nil
	}
	return status, errors.Join(err, file.discard())
}

// takeStdin moves standard input away, and /dev/null into its place.
func takeStdin() (int, error) {
	fd, err := unix.FcntlInt(uintptr(unix.Stdin), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return -1, err
	}
	null, err := unix.Open(os.DevNull, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer func() { _ = unix.Close(null) }()
	return fd, unix.Dup3(null, unix.Stdin, 0)
}

func refuseTerminal(fd int) error {
	if _, err := unix.IoctlGetTermios(fd, unix.TCGETS); err == nil {
		return errors.New("it is a terminal")
	}
	return nil
}

// pidFile is a file that says who a process is. It appears only when it does.
type pidFile struct {
	*os.File
	path string // "" for none
}

// createPIDFile finds out whether there can be such a file before anything is started.
func createPIDFile(path string) (*pidFile, error) {
	if path == "" {
		return &pidFile{}, nil
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return nil, fmt.Errorf("--pidfile: %w", err)
	}
	return &pidFile{f, path}, nil
}

func (p *pidFile) publish(pid int) error {
	if p.path == "" {
		return nil
	}
	_, err := fmt.Fprintln(p, pid)
	if err = errors.Join(err, p.Chmod(0o644), p.Close()); err == nil {
		err = os.Rename(p.Name(), p.path)
	}
	if err != nil {
		return fmt.Errorf("--pidfile: %w", err)
	}
	return nil
}

// discard removes what was not published.
func (p *pidFile) discard() error {
	if p.path == "" {
		return nil
	}
	if err := os.Remove(p.Name()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("--pidfile: %w", err)
	}
	return nil
}
