package shim

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/crshim/crshim/core"
	"github.com/crshim/crshim/tracer/procfs"
)

type psReport struct {
	report
	Containers []psEntry `json:"containers"`
}

type psEntry struct {
	containerEntry
	State string `json:"state"` // running, stopped or frozen
}

func newPSCommand() *cobra.Command {
	asJSON := false
	cmd := &cobra.Command{
		Use:   "ps",
		Short: "List the containers that are running",
		Long: `List the containers that this user has started with crshim run --container and that have not ended: name, the process
id of the first process, which stands for the whole, that of the command, state, time since the start, and command line.`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			entries, err := listContainers()
			if err != nil {
				return err
			}
			if asJSON {
				return writeJSON(cmd.OutOrStdout(), psReport{report{schemaVersion}, entries})
			}
			return writePS(cmd.OutOrStdout(), entries)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return cmd
}

func listContainers() ([]psEntry, error) {
	r, err := openRegistry()
	if err != nil {
		return nil, err
	}
	defer r.close()
	all, err := r.all()
	if err != nil {
		return nil, err
	}
	entries := []psEntry{}
	for _, e := range all {
		state, err := stateOf(e)
		if errors.Is(err, procfs.ErrGone) {
			continue // it is just ending
		}
		if err != nil {
			return nil, err
		}
		entries = append(entries, psEntry{e, state})
	}
	return entries, nil
}

func stateOf(e containerEntry) (string, error) {
	frozen, err := core.IsFrozen(procfs.PID(e.PID))
	switch {
	case err != nil:
		return "", err
	case frozen:
		return "frozen", nil
	case isStopped(procfs.PID(e.Command)):
		return "stopped", nil
	}
	return "running", nil
}

func writePS(w io.Writer, entries []psEntry) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "NAME\tPID\tCOMMAND PID\tSTATE\tFOR\tCOMMAND")
	for _, e := range entries {
		fmt.Fprintf(table, "%s\t%d\t%d\t%s\t%s\t%s\n", e.Name, e.PID, e.Command, e.State,
			time.Since(e.Started).Truncate(time.Second), escape(commandLine(e.Args)))
	}
	return table.Flush()
}

// commandLine is what a shell would be told to run the same.
func commandLine(args []string) string {
	words := make([]string, len(args))
	for i, arg := range args {
		if words[i] = arg; arg == "" || strings.ContainsAny(arg, " \t\n'\"\\$`&|;<>()*?[]#~!{}") {
			words[i] = "'" + strings.ReplaceAll(arg, "'", `'\''`) + "'"
		}
	}
	return strings.Join(words, " ")
}

// parseTarget finds the process that an argument names: by its id, or as the first process of a container by the name of that.
func parseTarget(arg string) (int, error) {
	if !nameForm.MatchString(arg) {
		pid, err := strconv.Atoi(arg)
		if err != nil || pid <= 0 {
			return 0, errNotTarget(arg)
		}
		return pid, nil
	}
	entry, err := findContainer(arg)
	if err != nil {
		return 0, err
	}
	return entry.PID, nil
}

// errNotTarget is an argument that cannot name a process.
type errNotTarget string

func (e errNotTarget) Error() string {
	return strconv.Quote(string(e)) + " is not a process id, nor can it be the name of a container"
}

// targetArgument is parseTarget for the argument of a verb.
func targetArgument(cmd *cobra.Command, arg string) (int, error) {
	pid, err := parseTarget(arg)
	var not errNotTarget
	if errors.As(err, &not) {
		return 0, usageError{cmd: cmd, err: err}
	}
	return pid, err
}

// completeTargets completes the name of a container, or a process id.
func completeTargets(cmd *cobra.Command, args []string, prefix string) ([]cobra.Completion, cobra.ShellCompDirective) {
	all, directive := completePIDs(cmd, args, prefix)
	entries, err := listContainers()
	if err != nil || len(args) > 0 {
		return all, directive
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name, prefix) {
			all = append(all, cobra.CompletionWithDesc(e.Name, fmt.Sprintf("%.40s", commandLine(e.Args))))
		}
	}
	return all, directive
}
