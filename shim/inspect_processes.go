package shim

import (
	"fmt"
	"io"
	"text/tabwriter"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/image"
)

// processRow is a process of the tree in an image, in the reports of inspect and verify.
type processRow struct {
	PID     int32  `json:"pid"`
	Parent  int32  `json:"parent"` // 0 of the first
	Group   int32  `json:"group"`
	Session int32  `json:"session"`
	Ended   bool   `json:"ended"`            // a zombie
	Status  int32  `json:"status,omitempty"` // of one that has ended, as wait(2) gives it
	Name    string `json:"name"`
}

// addProcess takes note of what the image says of its processes: first a record of each, then the name of each that
// lives, in the same order.
func (v *inspection) addProcess(value any) {
	switch value := value.(type) {
	case *image.Process:
		v.Processes = append(v.Processes, processRow{
			PID: value.VPID, Parent: value.VPPID, Group: value.VPgrp, Session: value.VSession,
			Ended: value.State == image.ProcessEnded, Status: value.ExitCode, Name: unix.ByteSliceToString(value.Name[:]),
		})
	case *image.Task:
		v.awaitsName = true
		return
	case *image.Str:
		if v.awaitsName && v.named < len(v.Processes) && !v.Processes[v.named].Ended {
			v.Processes[v.named].Name = value.Text
			v.named++
		}
	}
	v.awaitsName = false
}

// writeProcesses prints the tree, if the image says that it is one.
func (v *inspection) writeProcesses(w io.Writer) error {
	if len(v.Processes) == 0 {
		return nil
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "processes:\n  PID\tPARENT\tGROUP\tSESSION\tSTATE\tNAME")
	for _, p := range v.Processes {
		fmt.Fprintf(table, "  %d\t%d\t%d\t%d\t%s\t%s\n", p.PID, p.Parent, p.Group, p.Session, p.state(), escape(p.Name))
	}
	return table.Flush()
}

func (p processRow) state() string {
	status := unix.WaitStatus(p.Status)
	switch {
	case !p.Ended:
		return "lives"
	case status.Signaled():
		return fmt.Sprintf("ended by %s", unix.SignalName(status.Signal()))
	}
	return fmt.Sprintf("ended with %d", status.ExitStatus())
}
