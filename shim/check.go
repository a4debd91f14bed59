package shim

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/crshim/crshim/core"
	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/tracer/procfs"
)

type checkReport struct {
	report
	PID       int       `json:"pid"`
	Process   string    `json:"process,omitempty"`
	Processes int       `json:"processes,omitempty"` // it and those that descend from it
	OK        bool      `json:"ok"`                  // nothing was found
	Blockers  []blocker `json:"blockers"`
}

// blocker is one thing that cannot be saved.
type blocker struct {
	PID     int    `json:"pid"` // of the process whose it is
	Code    string `json:"code"`
	Object  string `json:"object"`
	Message string `json:"message"`
	Errno   string `json:"errno"` // what checkpoint() would return for it
	Why     string `json:"why"`
	Try     string `json:"try"`
}

func newCheckCommand() *cobra.Command {
	var asJSON, external bool
	cmd := &cobra.Command{
		Use:   "check [flags] PID|NAME",
		Short: "Say what keeps a running process from being saved",
		Long: `List everything about the process PID and those that descend from it that cannot be saved, each with its reason and a
remedy, as a checkpoint would refuse it. They are not disturbed: nothing is stopped, /proc is read. What only stopped processes can tell is
not found here.

The exit status is 0 if nothing was found.`,
		Example: "  crshim check 3493 && crshim checkpoint 3493 -o img",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			pid, err := targetArgument(cmd, args[0])
			if err != nil {
				return err
			}
			r, err := check(pid, external)
			if err != nil {
				return err
			}
			if asJSON {
				err = writeJSON(cmd.OutOrStdout(), r)
			} else {
				err = r.write(cmd.OutOrStdout())
			}
			if err == nil && !r.OK {
				err = endWith(statusNo)
			}
			return err
		},
		ValidArgsFunction: completeTargets,
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	cmd.Flags().BoolVar(&external, "external", false, "as for crshim checkpoint --external: leave out what leads to other processes and devices")
	return cmd
}

func check(pid int, external bool) (*checkReport, error) {
	r := &checkReport{report: report{schemaVersion}, PID: pid, Blockers: []blocker{}}
	target, err := core.Resolve(procfs.PID(os.Getpid()), pid)
	var checked *core.Checked
	if err == nil {
		checked, err = newEngine(func(string, ...any) {}).Check(target, external)
	}
	faults := fault.Flatten(err)
	if err != nil && (len(faults) == 0 || errors.Is(err, fault.NoSuchProcess) || errors.Is(err, fault.CallProcess)) {
		return nil, err
	}
	var blockers []core.Blocker
	for _, f := range faults {
		blockers = append(blockers, core.Blocker{PID: core.PID(pid), Fault: f})
	}
	if checked != nil {
		r.Process, r.Processes, blockers = checked.Name, checked.Processes, checked.Blockers
	}
	for _, b := range blockers {
		f := b.Fault
		row, _ := fault.Lookup(f.Code)
		r.Blockers = append(r.Blockers, blocker{
			PID: int(b.PID), Code: f.Code.String(), Object: f.Object, Message: f.Message(),
			Errno: fault.ErrnoName(fault.Errno(f)), Why: row.Why, Try: row.Try,
		})
	}
	r.OK = len(r.Blockers) == 0
	return r, nil
}

func (r *checkReport) write(w io.Writer) error {
	if r.OK {
		others := ""
		if r.Processes > 1 {
			others = fmt.Sprintf(" and the %d that descend from it", r.Processes-1)
		}
		_, err := fmt.Fprintf(w, "nothing keeps %s%s from being saved\n", escape(r.Process), others)
		return err
	}
	for i, b := range r.Blockers {
		if _, err := fmt.Fprintf(w, "%s %s\n", b.Code, escape(b.Message)); err != nil {
			return err
		}
		if i+1 < len(r.Blockers) && r.Blockers[i+1].Code == b.Code {
			continue
		}
		if _, err := fmt.Fprintf(w, "  why: %s\n  try: %s\n", b.Why, b.Try); err != nil {
			return err
		}
	}
	return nil
}
