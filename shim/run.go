package shim

import (
	"errors"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

func newRunCommand() *cobra.Command {
	var log logConfig
	var flags containerFlags
	cmd := &cobra.Command{
		Use:   "run [flags] [--] COMMAND [ARGUMENTS]",
		Short: "Run a program whose checkpoint and restart calls work",
		Long: `Run COMMAND with the system calls checkpoint and restart, for itself and everything that it starts. All else is as without crshim:
standard input and output, the terminal, job control, signals, and the exit status.

The calls keep working for background tasks that outlive COMMAND.

With --container COMMAND runs in pid, mount, IPC and UTS namespaces of its own, below a small init. Whoever is not root gets a user
namespace too, in which he is. All that is left of it ends with COMMAND. crshim ps lists the containers that run; freeze, thaw and
checkpoint take their names. What its programs mount in it shows nowhere else, and comes back with it: crshim restart mounts it again,
a tmpfs with all that was in it.`,
		Example: `  crshim run ./self > self.image
  crshim run --trace sh -c './ckpt 3493 > ckpt.image'
  crshim run bash
  crshim run --container --name db --net loopback ./server
  crshim run --container --rootfs ./root --bind "$PWD:/work" -- /bin/sh`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			container, err := flags.container(args)
			if err := errors.Join(log.check(), err); err != nil {
				return usageError{cmd: cmd, err: err}
			}
			status, err := runCommand(log, container, args)
			if err != nil {
				return err
			}
			return endAs(status)
		},
	}
	cmd.Flags().SetInterspersed(false)
	flags.register(cmd)
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
