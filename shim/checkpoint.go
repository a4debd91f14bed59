package shim

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/crshim/crshim/core"
	"github.com/crshim/crshim/tracer/procfs"
)

// toStdout is the name of an image that goes to standard output, or comes from standard input.
const toStdout = "-"

func newCheckpointCommand() *cobra.Command {
	var output string
	var leave, stop, kill, external, saveFiles bool
	cmd := &cobra.Command{
		Use:     "checkpoint [flags] -o FILE PID|NAME",
		Aliases: []string{"ck"},
		Short:   "Save a process to an image",
		Long: `Save the process PID, and all that descend from it, to FILE. They are stopped for the time that this takes, and then go on as they were. The NAME of a
container (crshim ps) stands for its first process.

An image appears under its name only when it is complete and on disk. With "-o -" it goes to standard output, which must not be a terminal.

A pipe, fifo or socket to another process, a terminal that is not standard input, output or error, or a device cannot be saved, and so the
process is not. With --external the image notes that it was there, and a restart has to say what takes its place.

Regular files are opened by name at restart, and their contents are what they are by then. With --save-files the image holds what was in
those that are open for writing, and crshim restart --files rollback puts that back.`,
		Example: `  crshim checkpoint 3493 -o img
  crshim checkpoint --kill 3493 -o - | ssh host crshim restart -`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			pid, err := targetArgument(cmd, args[0])
			if err != nil {
				return err
			}
			then := core.LeaveRunning
			switch {
			case stop:
				then = core.LeaveStopped
			case kill:
				then = core.KillTarget
			}
			return checkpoint(cmd.ErrOrStderr(), output, core.CheckpointRequest{PID: core.PID(pid), Then: then, External: external, SaveFiles: saveFiles})
		},
		ValidArgsFunction: completeTargets,
	}
	flags := cmd.Flags()
	flags.StringVarP(&output, "output", "o", "", "write the image to `FILE`, or to standard output with -")
	flags.BoolVar(&leave, "leave-running", false, "let the process go on (the default)")
	flags.BoolVar(&stop, "stop", false, "leave the process stopped, as by SIGSTOP")
	flags.BoolVar(&kill, "kill", false, "kill the process once the image is complete")
	flags.BoolVar(&external, "external", false, "save what leads to other processes and devices as a place that crshim restart --fd fills")
	flags.BoolVar(&saveFiles, "save-files", false, "save the contents of regular files that are open for writing, for crshim restart --files rollback")
	cmd.MarkFlagsMutuallyExclusive("leave-running", "stop", "kill")
	if err := cmd.MarkFlagRequired("output"); err != nil {
		panic(err) // a bug: the flag is defined above
	}
	return cmd
}

// checkpoint saves a process and says so on stderr, in the words of ckpt.c.
func checkpoint(stderr io.Writer, output string, req core.CheckpointRequest) (err error) {
	if req.Target, err = core.Resolve(procfs.PID(os.Getpid()), int(req.PID)); err != nil {
		return err
	}
	if req.Suspended, err = suspended(req.Target); err != nil {
		return err
	}
	out, err := createOutput(output)
	if err != nil {
		return err
	}
	// The target goes on only when its image is safe.
	engine := newEngine(func(format string, args ...any) { fmt.Fprintf(stderr, "crshim: "+format+"\n", args...) })
	req.Out, req.OutFD, req.Saved = out.File, -1, out.publish
	done, err := engine.Checkpoint(req)
	if err != nil {
		return errors.Join(err, out.discard())
	}
	if _, err := fmt.Fprintf(stderr, "checkpoint id %d\n", done.CRID); err != nil {
		return err
	}
	return nil
}
