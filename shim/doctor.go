package shim

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// answer is what a probe has found. A probe that could not be carried out says so: that is neither yes nor no.
type answer string

const (
	yes     answer = "yes"
	no      answer = "no"
	unknown answer = "could not tell"
)

// finding is an answer with one fact beside it, which may be empty.
type finding struct {
	answer answer
	detail string
}

// probe is one row of what crshim needs or makes use of.
type probe struct {
	name   string
	needed bool   // false: something works less well or not for everybody without it
	since  string // the first kernel that has it; "" if no version decides
	serves string // what it is for
	try    string // the remedy for a no
	ask    func() finding
}

type doctorReport struct {
	report
	OK     bool          `json:"ok"` // all that is needed is there
	Kernel string        `json:"kernel"`
	UID    int           `json:"uid"`
	Probes []probeReport `json:"probes"`
}

type probeReport struct {
	Name   string `json:"name"`
	Answer answer `json:"answer"`
	Needed bool   `json:"needed"`
	Since  string `json:"since,omitempty"`
	Detail string `json:"detail,omitempty"`
	Serves string `json:"serves"`
	Try    string `json:"try,omitempty"` // only beside an answer that is not yes
}

func newDoctorCommand() *cobra.Command {
	asJSON := false
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Say what this kernel and these privileges allow",
		Long: `Try everything that crshim needs or makes use of, as the user who asks, and print for each: yes, no or could not tell,
the first kernel that has it, and the remedy. Nothing is guessed from version numbers where it can be tried. Processes
that a trial needs are ended before the answer is printed.

The exit status is 0 if all that is needed is there.`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r := examine(probes())
			var err error
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
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return cmd
}

// examine asks every probe in turn.
func examine(probes []probe) doctorReport {
	r := doctorReport{report: report{schemaVersion}, OK: true, Kernel: kernelRelease(), UID: unix.Geteuid()}
	for _, p := range probes {
		f := p.ask()
		row := probeReport{Name: p.name, Answer: f.answer, Needed: p.needed, Since: p.since, Detail: f.detail, Serves: p.serves}
		if f.answer != yes {
			row.Try = p.try
			r.OK = r.OK && !p.needed
		}
		r.Probes = append(r.Probes, row)
	}
	return r
}

func (r doctorReport) write(w io.Writer) error {
	fmt.Fprintf(w, "Linux %s, uid %d\n", r.Kernel, r.UID)
	for _, needed := range []bool{true, false} {
		fmt.Fprintf(w, "\n%s\n", map[bool]string{true: "Needed", false: "Useful"}[needed])
		for _, p := range r.Probes {
			if p.Needed != needed {
				continue
			}
			name := p.Name
			if p.Since != "" {
				name += " (Linux " + p.Since + ")"
			}
			fmt.Fprintf(w, "  %-15s %-48s %s\n", p.Answer, name, p.Detail)
			if p.Answer != yes {
				fmt.Fprintf(w, "  %-15s for: %s\n  %-15s try: %s\n", "", p.Serves, "", p.Try)
			}
		}
	}
	verdict := "All that is needed is here."
	if !r.OK {
		verdict = "Something that is needed is missing."
	}
	_, err := fmt.Fprintf(w, "\n%s\n", verdict)
	return err
}
