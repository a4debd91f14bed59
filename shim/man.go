package shim

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// newManCommand writes the man pages. They come from the tree of commands, as help and completion do, so the three
// cannot disagree.
func newManCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "man DIR",
		Short: "Write the man pages into a directory",
		Long:  "Write one man page for crshim and one for each of its commands into DIR, which is created if it is not there.",
		Args:  cobra.ExactArgs(1),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return nil, cobra.ShellCompDirectiveFilterDirs
		},
		Example: "  crshim man man1 && man ./man1/crshim-run.1",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return err
			}
			return walkCommands(cmd.Root(), func(c *cobra.Command) error {
				var page strings.Builder
				writeManPage(&page, c)
				return os.WriteFile(filepath.Join(args[0], manName(c)+".1"), []byte(page.String()), 0o644)
			})
		},
	}
}

// walkCommands visits cmd and every command below it that is not hidden.
func walkCommands(cmd *cobra.Command, visit func(*cobra.Command) error) error {
	if err := visit(cmd); err != nil {
		return err
	}
	for _, c := range cmd.Commands() {
		if c.Hidden || c.Name() == "help" {
			continue
		}
		if err := walkCommands(c, visit); err != nil {
			return err
		}
	}
	return nil
}

func manName(cmd *cobra.Command) string {
	return strings.ReplaceAll(cmd.CommandPath(), " ", "-")
}

// writeManPage prints the page in the man macros of man(7). The page has no date, so that the same tree gives the
// same bytes.
func writeManPage(w io.Writer, cmd *cobra.Command) {
	section := func(name string) { fmt.Fprintf(w, ".SH %s\n", name) }
	fmt.Fprintf(w, ".TH %s 1 \"\" \"crshim %s\" \"crshim\"\n", strings.ToUpper(roff(manName(cmd))), roff(buildVersion()))
	section("NAME")
	fmt.Fprintf(w, "%s \\- %s\n", roff(manName(cmd)), roff(strings.ToLower(cmd.Short[:1])+cmd.Short[1:]))
	section("SYNOPSIS")
	fmt.Fprintf(w, ".B %s\n", roff(cmd.CommandPath()))
	_, args, _ := strings.Cut(cmd.Use, " ")
	if cmd.HasAvailableSubCommands() && args == "" {
		args = "COMMAND"
	}
	if cmd.HasAvailableFlags() && !strings.Contains(args, "[flags]") {
		args = strings.TrimSpace("[flags] " + args)
	}
	fmt.Fprintln(w, roff(args))
	section("DESCRIPTION")
	text := cmd.Long
	if text == "" {
		text = cmd.Short + "."
	}
	writeRoffText(w, text)
	if cmd.HasAvailableFlags() {
		section("OPTIONS")
		print := func(f *pflag.Flag) {
			if f.Hidden {
				return
			}
			name := "--" + f.Name
			if f.Shorthand != "" {
				name = "-" + f.Shorthand + ", " + name
			}
			kind, usage := pflag.UnquoteUsage(f)
			if kind != "" {
				name += " " + kind
			}
			fmt.Fprintf(w, ".TP\n.B %s\n%s\n", roff(name), roff(usage))
		}
		cmd.InitDefaultHelpFlag()
		cmd.NonInheritedFlags().VisitAll(print)
		cmd.InheritedFlags().VisitAll(print)
	}
	if cmd.HasAvailableSubCommands() {
		section("COMMANDS")
		for _, c := range cmd.Commands() {
			if !c.Hidden && c.Name() != "help" {
				fmt.Fprintf(w, ".TP\n.BR %s (1)\n%s\n", roff(manName(c)), roff(c.Short))
			}
		}
	}
	if cmd.Example != "" {
		section("EXAMPLES")
		fmt.Fprintf(w, ".nf\n%s\n.fi\n", roff(strings.Trim(cmd.Example, "\n")))
	}
	section("EXIT STATUS")
	writeRoffText(w, exitStatusText(cmd))
	section("SEE ALSO")
	if cmd.HasParent() {
		fmt.Fprintf(w, ".BR %s (1)\n", roff(manName(cmd.Parent())))
	} else {
		fmt.Fprintln(w, ".BR ptrace (2),\n.BR seccomp_unotify (2)")
	}
}

// writeRoffText prints prose: a blank line starts a paragraph, lines that begin with a space or a tab are kept as they are.
func writeRoffText(w io.Writer, text string) {
	verbatim := false
	for line := range strings.Lines(strings.TrimSpace(text) + "\n") {
		line = strings.TrimRight(line, "\n")
		indented := strings.HasPrefix(line, " ") || strings.HasPrefix(line, "\t")
		if indented != verbatim && line != "" {
			verbatim = indented
			fmt.Fprintln(w, map[bool]string{true: ".nf", false: ".fi"}[verbatim])
		}
		if line == "" {
			fmt.Fprintln(w, ".PP")
			continue
		}
		fmt.Fprintln(w, roff(line))
	}
	if verbatim {
		fmt.Fprintln(w, ".fi")
	}
}

// roff escapes text for troff: backslashes, hyphens (so that options can be copied), and a leading dot or quote.
func roff(s string) string {
	s = strings.NewReplacer(`\`, `\e`, `-`, `\-`).Replace(s)
	lines := strings.Split(s, "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
			lines[i] = `\&` + line
		}
	}
	return strings.Join(lines, "\n")
}
