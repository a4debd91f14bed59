package shim

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/crshim/crshim/core/fault"
)

type explainReport struct {
	report
	Errors []explainedError `json:"errors"`
}

type explainedError struct {
	Code    string `json:"code"`
	Errno   string `json:"errno,omitempty"` // absent if that of the cause is passed on
	Summary string `json:"summary"`
	Why     string `json:"why"`
	Try     string `json:"try"`
}

func newExplainCommand() *cobra.Command {
	asJSON := false
	cmd := &cobra.Command{
		Use:   "explain [CODE...]",
		Short: "Explain an error code, or list them all",
		Long: `Print what an error code such as CR1203 means: the errno that the emulated system call returns, the reason, and what
to try. Without a code, print one line for each that there is.`,
		Example: "  crshim explain CR1203\n  crshim explain",
		ValidArgsFunction: func(_ *cobra.Command, _ []string, prefix string) ([]cobra.Completion, cobra.ShellCompDirective) {
			var codes []cobra.Completion
			for _, e := range fault.All() {
				if strings.HasPrefix(e.Code.String(), strings.ToUpper(prefix)) {
					codes = append(codes, cobra.CompletionWithDesc(e.Code.String(), e.Summary()))
				}
			}
			return codes, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			rows := fault.All()
			if len(args) > 0 {
				rows = nil
				for _, arg := range args {
					code, err := fault.ParseCode(arg)
					if err != nil {
						return usageError{cmd: cmd, err: err}
					}
					row, _ := fault.Lookup(code)
					rows = append(rows, row)
				}
			}
			out := cmd.OutOrStdout()
			switch {
			case asJSON:
				return writeJSON(out, explainJSON(rows))
			case len(args) == 0:
				return listErrors(out, rows)
			}
			for i, row := range rows {
				if i > 0 {
					fmt.Fprintln(out)
				}
				if err := fault.Explain(out, row.Code); err != nil {
					return err
				}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return cmd
}

func explainJSON(rows []fault.Entry) explainReport {
	r := explainReport{report: report{schemaVersion}}
	for _, row := range rows {
		e := explainedError{Code: row.Code.String(), Summary: row.Summary(), Why: row.Why, Try: row.Try}
		if row.Errno != 0 {
			e.Errno = fault.ErrnoName(row.Errno)
		}
		r.Errors = append(r.Errors, e)
	}
	return r
}

func listErrors(w io.Writer, rows []fault.Entry) error {
	for _, row := range rows {
		errno := "-"
		if row.Errno != 0 {
			errno = fault.ErrnoName(row.Errno)
		}
		if _, err := fmt.Fprintf(w, "%-7v %-11s %s\n", row.Code, errno, row.Summary()); err != nil {
			return err
		}
	}
	return nil
}
