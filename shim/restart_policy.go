package shim

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/crshim/crshim/core/resource"
)

// policyFlags are the flags that say what a restart does about things that the image cannot bring back by itself.
type policyFlags struct {
	fds    []string
	files  string
	tcp    string
	ids    string
	limits string

	stopped bool
}

var (
	filesChoices = []string{"verify", "rollback", "truncate", "ignore"} // by resource.FilesPolicy
	tcpChoices   = []string{"reset", "keep"}                            // by resource.TCPPolicy
	idsChoices   = []string{"image", "caller"}                          // by resource.IDsPolicy
	limitChoices = []string{"image", "caller"}                          // by resource.LimitsPolicy
)

// fdChoices are the words that --fd knows; everything else is a path.
var fdChoices = []string{resource.InheritFD, resource.NullFD, resource.HangupFD, resource.CloseFD}

func (p *policyFlags) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringArrayVar(&p.fds, "fd", nil, "put something else behind a descriptor, by `N=WHAT`: inherit (crshim's own descriptor N), null (/dev/null), hangup (a pipe, socket or terminal whose other end is gone), close, or a path; may be repeated")
	flags.StringVar(&p.files, "files", filesChoices[resource.VerifyFiles], "regular files that have changed: verify, refuse one that is shorter than it was; rollback, give back what checkpoint --save-files saved; truncate, cut off what was written since; ignore")
	flags.StringVar(&p.tcp, "tcp", tcpChoices[resource.ResetTCP], "connections to other hosts and processes: reset, as by a fault of the network, or keep, where the kernel allows")
	flags.StringVar(&p.ids, "ids", idsChoices[resource.ImageIDs], "user and group ids and capabilities: those of the image, or fail; caller, those of whoever restarts")
	flags.StringVar(&p.limits, "limits", limitChoices[resource.ImageLimits], "resource limits, scheduling and priorities: those of the image, or fail; caller, those of whoever restarts")
	flags.BoolVar(&p.stopped, "stopped", false, "leave the process stopped, as by SIGSTOP: kill -CONT lets it go on")
	for flag, complete := range map[string]cobra.CompletionFunc{
		"fd":     completeFD,
		"files":  cobra.FixedCompletions(filesChoices, cobra.ShellCompDirectiveNoFileComp),
		"ids":    cobra.FixedCompletions(idsChoices, cobra.ShellCompDirectiveNoFileComp),
		"limits": cobra.FixedCompletions(limitChoices, cobra.ShellCompDirectiveNoFileComp),
		"tcp":    cobra.FixedCompletions(tcpChoices, cobra.ShellCompDirectiveNoFileComp),
	} {
		if err := cmd.RegisterFlagCompletionFunc(flag, complete); err != nil {
			panic(err) // a bug: the flag is defined above
		}
	}
}

// policy checks the values and says what they mean.
func (p *policyFlags) policy() (resource.Policy, error) {
	policy := resource.Policy{Stopped: p.stopped}
	var errs []error
	files := slices.Index(filesChoices, p.files)
	if files < 0 {
		errs = append(errs, fmt.Errorf("--files: %q is none of %s", p.files, strings.Join(filesChoices, ", ")))
	}
	policy.Files = resource.FilesPolicy(files)
	tcp := slices.Index(tcpChoices, p.tcp)
	if tcp < 0 {
		errs = append(errs, fmt.Errorf("--tcp: %q is none of %s", p.tcp, strings.Join(tcpChoices, ", ")))
	}
	policy.TCP = resource.TCPPolicy(tcp)
	ids := slices.Index(idsChoices, p.ids)
	if ids < 0 {
		errs = append(errs, fmt.Errorf("--ids: %q is none of %s", p.ids, strings.Join(idsChoices, ", ")))
	}
	policy.IDs = resource.IDsPolicy(ids)
	limits := slices.Index(limitChoices, p.limits)
	if limits < 0 {
		errs = append(errs, fmt.Errorf("--limits: %q is none of %s", p.limits, strings.Join(limitChoices, ", ")))
	}
	policy.Limits = resource.LimitsPolicy(limits)
	for _, value := range p.fds {
		fd, what, err := parseFD(value)
		if err == nil && policy.Descriptors[fd] != "" {
			err = errors.New("given twice")
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("--fd %s: %w", value, err))
			continue
		}
		if policy.Descriptors == nil {
			policy.Descriptors = make(map[int32]string)
		}
		policy.Descriptors[fd] = what
	}
	return policy, errors.Join(errs...)
}

// parseFD takes N=WHAT apart. A path is one of the directory in which the command line was typed.
func parseFD(value string) (fd int32, what string, err error) {
	number, what, ok := strings.Cut(value, "=")
	n, err := strconv.ParseUint(number, 10, 31)
	switch {
	case !ok || what == "":
		return 0, "", errors.New("not of the form N=inherit, N=null, N=hangup, N=close or N=PATH")
	case err != nil:
		return 0, "", fmt.Errorf("%q is not a descriptor number", number)
	case slices.Contains(fdChoices, what):
		return int32(n), what, nil
	}
	what, err = filepath.Abs(what)
	return int32(n), what, err
}

// completeFD completes the words, and paths where it is none of them.
func completeFD(_ *cobra.Command, _ []string, prefix string) ([]cobra.Completion, cobra.ShellCompDirective) {
	number, word, ok := strings.Cut(prefix, "=")
	if _, err := strconv.ParseUint(number, 10, 31); err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	if !ok {
		return []cobra.Completion{number + "="}, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
	}
	var words []cobra.Completion
	for _, choice := range fdChoices {
		if strings.HasPrefix(choice, word) {
			words = append(words, number+"="+choice)
		}
	}
	matches, err := filepath.Glob(word + "*")
	if err != nil {
		return words, cobra.ShellCompDirectiveNoFileComp // no pattern, no paths
	}
	for _, match := range matches {
		words = append(words, number+"="+match)
	}
	return words, cobra.ShellCompDirectiveNoFileComp
}
