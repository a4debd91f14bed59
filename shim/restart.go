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
	"github.com/crshim/crshim/core/resource"
)

// restartConfig is what the stages of a restart are told.
type restartConfig struct {
	Hold   socket // from the process that becomes CMD to the front
	Adopt  socket `json:",omitzero"` // from __parent to the front, for a container
	Detach bool   `json:",omitzero"`
	Calls  bool   `json:",omitzero"` // CMD is to be under the filter
	PIDs   pidsChoice
	PID    int // of the process when it was saved
	// LastPID is the highest of those of the tree.
	LastPID int
	InJob   bool `json:",omitzero"` // CMD may lead a group of a job that somebody watches over

	// The matter of the front alone.
	policy resource.Policy
	frozen bool
}

// release closes what only the process that becomes CMD, and __parent, hold on to: the front must see their end.
func (r *restartConfig) release() {
	if r != nil {
		r.Hold.close()
		r.Adopt.close()
	}
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
	var policies policyFlags
	var pids, pidfile string
	var frozen, thaw bool
	var named containerConfig
	var binds []string
	cmd := &cobra.Command{
		Use:     "restart [flags] FILE|-",
		Aliases: []string{"rs"},
		Short:   "Become the process that is in an image",
		Long: `Rebuild the process of an image and be to the shell what it is: signals, stops and the terminal reach it, and the exit status is its own.

FILE may be a pipe; "-" reads standard input. An image is read once, from front to back, and nothing runs before it has been read
and checked as a whole. Files are opened by name with the rights of the user who restarts. A terminal that the process had as standard
input, output or error is replaced by what crshim has in that place, and so is a pipe or socket to another process. With --fd anything
can be put in the place of any descriptor; descriptors that share one open file follow the lowest of them.

Regular files are expected to be there as they were, or longer; one that is shorter makes the restart fail. With --files rollback those
that the process was writing get back the contents that crshim checkpoint --save-files saved, with --files truncate what was written
since is cut off, and with --files ignore they are taken as they are.

In the foreground of a terminal the process has that as it had its own: with its settings, and with its jobs if it is a shell.

The process runs, also if it was stopped when it was saved; with --stopped it waits for SIGCONT. Those that descend from it come back
with it, as they were: running, stopped, or ended and not waited for. Either all get the process ids that they had, or all get new
ones; with --pids keep the restart fails if they cannot be had.

It runs at once, or with --frozen only after crshim thaw: that is how the documents of 2009 have it for a container, and lets one look
at it, move it or attach to it first. By default it runs, as the command line waits for its end.

A container comes back as one, with namespaces and process ids of its own; --pids is not about it. Its process id is that of its first
process. What was mounted in it is mounted again, a tmpfs with what was in it. With --rootfs another directory is its root, and with
--bind something else appears in it; files are looked up there. A directory that is missing is an error before anything is made.

If the calls checkpoint and restart worked for the process when it was saved, they work again.`,
		Example: `  crshim restart img
  crshim restart --detach --pidfile img.pid img
  ssh host crshim checkpoint --kill 3493 -o - | crshim restart -
  crshim restart --rootfs ./other --bind "$PWD/data:/data" img`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			err := log.check()
			policy, policyErr := policies.policy()
			err = errors.Join(err, policyErr)
			if !slices.Contains(pidsChoices, pids) {
				err = errors.Join(err, fmt.Errorf("--pids: %q is none of %s", pids, strings.Join(pidsChoices, ", ")))
			}
			if cmd.Flags().Changed("name") {
				err = errors.Join(err, checkName(named.Name))
			}
			if err = errors.Join(err, checkHostname(named.Hostname), named.place(binds)); err != nil {
				return usageError{cmd: cmd, err: err}
			}
			r.PIDs, r.policy = pidsChoice(pids), policy
			r.frozen = frozen
			status, err := restartImage(cmd.OutOrStdout(), log, &r, args[0], pidfile, named)
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
	flags.StringVar(&named.Name, "name", "", "of a container: call it `NAME`")
	flags.StringVar(&named.Hostname, "hostname", "", "of a container: its host name, instead of the one that it had")
	flags.BoolVar(&frozen, "frozen", false, "leave it frozen, as by crshim freeze: crshim thaw lets it run")
	flags.BoolVar(&thaw, "thaw", false, "let it run at once, which is the default")
	cmd.MarkFlagsMutuallyExclusive("frozen", "thaw")
	flags.StringVar(&named.Rootfs, "rootfs", "", "of a container: its root is the directory `DIR`, instead of the one that it was")
	flags.StringArrayVar(&binds, "bind", nil, "of a container: `SRC:DST[:ro]`, what is at SRC appears at DST, also instead of what did")
	policies.register(cmd)
	log.register(flags)
	if err := cmd.RegisterFlagCompletionFunc("pids", cobra.FixedCompletions(pidsChoices, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // a bug: the flag is defined above
	}
	return asJob(cmd)
}

// restartImage restarts an image and returns how its process ended, or 0 once it runs detached.
func restartImage(stdout io.Writer, log logConfig, config *restartConfig, name, pidfile string, named containerConfig) (unix.WaitStatus, error) {
	start := stateAtStart()
	image, err := openImage(name)
	if err != nil {
		return 0, &fault.Error{Code: fault.ImageRead, Object: name, Err: err}
	}
	defer func() { _ = image.Close() }()
	if name == toStdout {
		// That the image came in there is no reason for the process to have it there.
		start.Closed |= 1 << unix.Stdin
	}
	warnings, err := newLog(log)
	if err != nil {
		return 0, err
	}
	r := &restart{config: config, image: image, stdout: stdout, frozen: config.frozen, done: make(chan outcome, 1)}
	if err := r.open(newEngine(warnings.Warnf)); err != nil {
		return 0, err
	}
	if r.pidfile, err = createPIDFile(pidfile); err != nil {
		r.opened.Close()
		return 0, err
	}
	if r.hold, config.Hold, err = socketPair(); err != nil {
		r.opened.Close()
		return 0, errors.Join(err, r.pidfile.discard())
	}
	container, err := r.container(named, name)
	if err != nil {
		r.opened.Close()
		return 0, errors.Join(err, r.pidfile.discard())
	}
	if !config.Detach {
		if r.terminal, err = openTerminal(); err != nil {
			r.opened.Close()
			return 0, errors.Join(err, r.pidfile.discard())
		}
	}
	if r.terminal != nil {
		r.terminal.late = config.policy.Stopped
		r.opened.OnTerminal, config.InJob = r.terminal.give, inJob()
	}
	status, err := launch(&stageConfig{Start: start, Log: log, Restart: config, Container: container}, nil, r)
	return status, errors.Join(err, r.terminal.retake(), r.terminal.share(status), r.pidfile.discard())
}

// openImage opens the image that a command line names. The process is to read from it by itself, and must not be told to come again
// later: the descriptor blocks.
func openImage(name string) (*os.File, error) {
	var fd int
	var err error
	if name == toStdout {
		fd, err = takeStdin()
	} else {
		fd, err = unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	}
	if err != nil {
		return nil, err
	}
	if _, err := unix.IoctlGetTermios(fd, unix.TCGETS); err == nil {
		return nil, errors.Join(errors.New("it is a terminal"), unix.Close(fd))
	}
	if err := unix.SetNonblock(fd, false); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), name), nil
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
	f, err := os.CreateTemp(filepath.Dir(path), pattern(path))
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
