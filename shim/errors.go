package shim

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/crshim/crshim/core/fault"
)

// Exit statuses. The last three are those of env(1), nohup(1) and the container engines.
const (
	statusOK           = 0
	statusNo           = 1 // failed, differs, not restorable
	statusUsage        = 2
	statusSelf         = 125 // crshim itself failed, where any lower status may be the target's
	statusCannotInvoke = 126
	statusNotFound     = 127
)

// endWith is the error of a verb that has said all there is to say and wants its status to be this one.
type endWith int

func (s endWith) Error() string { return "exit status " + strconv.Itoa(int(s)) }

// jobAnnotation marks a command that ends as its target ends (run, restart): a failure of crshim is then 125.
const jobAnnotation = "crshim-job"

// asJob marks cmd as such a command.
func asJob(cmd *cobra.Command) *cobra.Command {
	if cmd.Annotations == nil {
		cmd.Annotations = map[string]string{}
	}
	cmd.Annotations[jobAnnotation] = "true"
	return cmd
}

func isJob(cmd *cobra.Command) bool { return cmd != nil && cmd.Annotations[jobAnnotation] != "" }

// comparisonAnnotation marks a command that ends as diff(1) ends: 1 says that there is a difference, and a failure is 2.
const comparisonAnnotation = "crshim-comparison"

// asComparison marks cmd as such a command.
func asComparison(cmd *cobra.Command) *cobra.Command {
	if cmd.Annotations == nil {
		cmd.Annotations = map[string]string{}
	}
	cmd.Annotations[comparisonAnnotation] = "true"
	return cmd
}

func isComparison(cmd *cobra.Command) bool {
	return cmd != nil && cmd.Annotations[comparisonAnnotation] != ""
}

// exitStatus maps what a verb returned to the status of the process.
func exitStatus(cmd *cobra.Command, err error) int {
	var end endWith
	switch {
	case err == nil:
		return statusOK
	case errors.As(err, &end):
		return int(end)
	case errors.Is(err, fault.CommandNotFound):
		return statusNotFound
	case errors.Is(err, fault.CommandNotExec):
		return statusCannotInvoke
	case isJob(cmd):
		return statusSelf
	case isUsage(err), isComparison(cmd):
		return statusUsage
	}
	return statusNo
}

// exitStatusText is the EXIT STATUS section of cmd's man page.
func exitStatusText(cmd *cobra.Command) string {
	if isJob(cmd) {
		return "That of the target: its own status, or death by the signal that killed it. 125 if crshim itself failed, 126 if the command cannot be invoked, 127 if it is not found."
	}
	if isComparison(cmd) {
		return "0 if there is no difference, 1 if there is one, 2 for trouble."
	}
	return "0 for ok or yes, 1 for failed or no, 2 for a wrong command line."
}

// printError shows err once, each blocker of a refusal on a line of its own. The reason and the remedy follow the last
// line of the same kind, so that twenty sockets do not repeat them twenty times.
func printError(w io.Writer, err error) {
	var end endWith
	if err == nil || errors.As(err, &end) {
		return
	}
	faults := fault.Flatten(err)
	if len(faults) == 0 {
		fmt.Fprintf(w, "crshim: %s\n", escape(err.Error()))
		return
	}
	for i, f := range faults {
		fmt.Fprintf(w, "crshim: %s\n", escape(f.Error()))
		if i+1 < len(faults) && faults[i+1].Code == f.Code {
			continue
		}
		if row, ok := fault.Lookup(f.Code); ok {
			fmt.Fprintf(w, "why: %s\ntry: %s\n", row.Why, row.Try)
		}
	}
}

// escape keeps names out of an image or out of /proc from steering the terminal or forging a line.
func escape(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return '?'
		}
		return r
	}, s)
}
