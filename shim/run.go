package shim

import (
	"errors"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

func newRunCommand() *cobra.Command {
	var log logConfig
	cmd := &cobra.Command{
		Use:   "run [flags] [--] COMMAND [ARGUMENTS]",
		Short: "Run a program whose checkpoint and restart calls work",
		Long: `Run COMMAND with the system calls checkpoint and restart, for itself and everything that it starts. All else is as without crshim:
standard input and output, the terminal, job control, signals, and the exit status.

The calls keep working for background tasks that outlive COMMAND.`,
		Example: `  crshim run ./self > self.image
  crshim run --trace sh -c './ckpt 3493 > ckpt.image'
  crshim run bash`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := log.check(); err != nil {
				return usageError{cmd: cmd, err: err}
			}
			status, err := runCommand(log, args)
			if err != nil {
				return err
			}
			return endAs(status)
		},
	}
	cmd.Flags().SetInterspersed(false)
	log.register(cmd.Flags())
	return asJob(cmd)
}

// endAs ends this process as the one whose wait status it is: by the same exit status, or by the same signal.
func endAs(status unix.WaitStatus) error {
	if !status.Signaled() {
		return endWith(status.ExitStatus())
	}
	return errors.Join(dieBy(status.Signal()), endWith(128+int(status.Signal())))
}
