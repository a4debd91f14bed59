package shim

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/crshim/crshim/core"
	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/tracer/procfs"
)

func newFreezeCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "freeze PID|NAME|DIR",
		Short: "Keep a process or a container from running until it is thawed",
		Long: `Keep a process with all its descendants, a container with all that is in it, or a control group by its directory, from running
until crshim thaw.

A process is frozen by a control group of its own, of version 2 or else version 1, which it does not see. Where none can be had, which
takes root or a group that was delegated, every process is stopped as by SIGSTOP. Frozen processes can be checkpointed, and can be killed;
those in a group of version 1 end only when they are thawed.`,
		Example: `  crshim freeze db && crshim checkpoint db -o img && crshim thaw db`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if isGroup(args[0]) {
				return core.FreezeGroup(args[0], true)
			}
			pid, err := targetArgument(cmd, args[0])
			if err != nil {
				return err
			}
			return freeze(procfs.PID(pid), core.Freeze)
		},
		ValidArgsFunction: completeTargets,
	}
}

func newThawCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "thaw PID|NAME|DIR",
		Short: "Let a frozen process or container run again",
		Long: `Let run again what crshim freeze has frozen, or a process that some other control group keeps from running, or one that was
stopped. What was stopped by a signal before crshim freeze stays so.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if isGroup(args[0]) {
				return core.FreezeGroup(args[0], false)
			}
			pid, err := targetArgument(cmd, args[0])
			if err != nil {
				return err
			}
			return thaw(procfs.PID(pid))
		},
		ValidArgsFunction: completeTargets,
	}
}

// isGroup tells whether an argument is meant as the directory of a control group.
func isGroup(arg string) bool { return strings.Contains(arg, "/") }

// freeze notes who was stopped by a signal: a thaw must not continue those who were before.
func freeze(pid procfs.PID, by func(procfs.PID) (*core.Frozen, error)) error {
	r, err := openRegistry()
	if err != nil {
		return err
	}
	defer r.close()
	r.dropStopped()
	frozen, err := by(pid)
	if err != nil || len(frozen.Stopped) == 0 {
		return err
	}
	earlier, err := r.stopped(pid)
	if err == nil {
		all := append(earlier, frozen.Stopped...)
		var text []byte
		if text, err = json.Marshal(all); err == nil {
			err = os.WriteFile(r.stoppedPath(pid), text, 0o600)
		}
	}
	if err != nil {
		return errors.Join(&fault.Error{Code: fault.RuntimeDirectory, Object: r.stoppedPath(pid), Err: err}, core.Thaw(pid, frozen.Stopped))
	}
	return nil
}

func thaw(pid procfs.PID) error {
	r, err := openRegistry()
	if err != nil {
		return err
	}
	defer r.close()
	stopped, err := r.stopped(pid)
	if err != nil {
		return &fault.Error{Code: fault.RuntimeDirectory, Object: r.stoppedPath(pid), Err: err}
	}
	if err := core.Thaw(pid, stopped); err != nil {
		return err
	}
	if err := os.Remove(r.stoppedPath(pid)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return &fault.Error{Code: fault.RuntimeDirectory, Object: r.stoppedPath(pid), Err: err}
	}
	return nil
}

func (r *registry) stoppedPath(pid procfs.PID) string {
	return filepath.Join(r.dir.Name(), fmt.Sprintf("%d.stopped", pid))
}

// stopped reads who was stopped when a process was frozen, nobody if that was not by signals. The processes are checked against
// their start times when they are continued, so a list that was left by another one of that number does no harm.
func (r *registry) stopped(pid procfs.PID) (list []core.Stopped, err error) {
	text, err := os.ReadFile(r.stoppedPath(pid))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return list, json.Unmarshal(text, &list)
}

// suspended reads it for a checkpoint. Where there can be no list nobody has made one.
func suspended(pid procfs.PID) ([]core.Stopped, error) {
	r, err := openRegistry()
	if err != nil {
		return nil, nil
	}
	defer r.close()
	return r.stopped(pid)
}

// dropStopped removes the lists of processes that have ended while they were stopped.
func (r *registry) dropStopped() {
	paths, _ := filepath.Glob(filepath.Join(r.dir.Name(), "*.stopped"))
	for _, path := range paths {
		pid, err := strconv.Atoi(strings.TrimSuffix(filepath.Base(path), ".stopped"))
		if err == nil && hasEnded(procfs.PID(pid)) {
			_ = os.Remove(path) // it does no harm
		}
	}
}
