package shim

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
)

// The groups of the help text, in its order.
const (
	groupRun        = "Run"
	groupCheckpoint = "Checkpoint"
	groupLook       = "Look"
	groupHelp       = "Help"
)

var groups = []string{groupRun, groupCheckpoint, groupLook, groupHelp}

// Main runs the program with os.Args and returns its exit status. It returns only in the process that a person has
// started: the stage that `crshim run` re-executes never comes back from it.
func Main() int {
	runStage()
	eagerness()
	return execute(newRootCommand(), os.Args[1:])
}

// eagerness has the garbage of a checkpoint collected when there are tens of megabytes of it. The default, four, costs a
// fifth of the processor time of saving a large tree. Who sets GOGC knows better.
func eagerness() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(800)
	}
}

// execute runs one command line. It is apart from Main so that tests can hold both ends.
func execute(root *cobra.Command, args []string) int {
	began := false // until a verb begins, every error is one of the command line
	root.PersistentPreRun = func(*cobra.Command, []string) { began = true }
	root.SetArgs(args)
	cmd, err := root.ExecuteC()
	if err != nil && !began {
		err = usageError{cmd: cmd, err: err}
	}
	status := exitStatus(cmd, err)
	printError(root.ErrOrStderr(), err)
	return status
}

// newRootCommand builds the whole tree of commands.
func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "crshim",
		Short:         "The system calls checkpoint and restart on an unmodified kernel",
		Long:          "crshim makes the system calls checkpoint(pid, fd, flags) and restart(crid, fd, flags), proposed for Linux in 2009 and never merged, work for any program on an unmodified kernel.",
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{cmd: cmd, err: fmt.Errorf("unknown command %q", args[0])}
			}
			return cmd.Help()
		},
		Args:              cobra.ArbitraryArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	for _, name := range groups {
		root.AddGroup(&cobra.Group{ID: name, Title: name + ":"})
	}
	add := func(group string, cmds ...*cobra.Command) {
		for _, cmd := range cmds {
			cmd.GroupID = group
			root.AddCommand(cmd)
		}
	}
	add(groupRun, newRunCommand(), newPSCommand(), newFreezeCommand(), newThawCommand(), newCCCommand(), newCFlagsCommand())
	add(groupCheckpoint, newCheckpointCommand(), newRestartCommand())
	add(groupLook, newCheckCommand(), newInspectCommand(), newDiffCommand(), newVerifyCommand())
	add(groupHelp, newDoctorCommand(), newExplainCommand(), newVersionCommand(), newManCommand(), newDocsCommand())
	root.SetCompletionCommandGroupID(groupHelp)
	root.SetHelpCommandGroupID(groupHelp)

	usual := root.HelpFunc()
	root.SetHelpFunc(func(cmd *cobra.Command, args []string) {
		if cmd == root {
			fmt.Fprint(cmd.OutOrStdout(), overview(root))
			return
		}
		usual(cmd, args)
	})
	return root
}

// overview is the help of crshim as a whole: a dozen lines, the commands by group.
func overview(root *cobra.Command) string {
	var b strings.Builder
	b.WriteString("crshim makes checkpoint(pid, fd, flags) and restart(crid, fd, flags) work on this kernel.\n\n")
	for _, group := range groups {
		var names []string
		for _, cmd := range root.Commands() {
			if cmd.GroupID == group && !cmd.Hidden {
				names = append(names, cmd.Name())
			}
		}
		if len(names) > 0 {
			fmt.Fprintf(&b, "  %-11s %s\n", group, strings.Join(names, ", "))
		}
	}
	b.WriteString(`
  crshim run ./self > self.image       start a program that may call checkpoint()
  crshim checkpoint 3493 -o img        save any process, and let it run on
  crshim restart img                   become the process that is in an image

crshim COMMAND --help explains a command; crshim doctor says what works here.
`)
	return b.String()
}

// usageError is a wrong command line.
type usageError struct {
	cmd *cobra.Command
	err error
}

func (e usageError) Error() string {
	hint := "see `" + e.cmd.CommandPath() + " --help`"
	return e.err.Error() + "; " + hint
}

func (e usageError) Unwrap() error { return e.err }

func isUsage(err error) bool {
	var usage usageError
	return errors.As(err, &usage)
}
