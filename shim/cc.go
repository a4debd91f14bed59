package shim

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/crshim/crshim/core/fault"
)

func newCCCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "cc ARGUMENTS",
		Short: "Compile a C program that makes the calls",
		Long: `Run the C compiler (CC, else cc) so that <sys/syscall.h> has __NR_checkpoint and __NR_restart, and <crshim.h> is found.
All arguments go to the compiler.`,
		Example: `  crshim cc -o self self.c -lm
  CC=musl-gcc crshim cc -static -o self self.c -lm`,
		DisableFlagParsing: true,
		RunE:               func(_ *cobra.Command, args []string) error { return compile(args) },
	}
}

func newCFlagsCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "cflags",
		Short:             "Print the flags that crshim cc adds",
		Example:           `  gcc $(crshim cflags) -o self self.c -lm`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := cachedInclude()
			if err != nil {
				return &fault.Error{Code: fault.HeaderUnwritable, Object: "the header", Err: err}
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), includeFlag(dir))
			return err
		},
	}
}

// includeFlag puts dir before the directories of the C library, for the wrapper of <sys/syscall.h> to be found first.
// -isystem would not do: musl-gcc names its own directory by it.
func includeFlag(dir string) string { return "-I" + dir }

// compile becomes the compiler. Where no cache directory can be written the header lies in a temporary directory,
// and crshim stays to remove it.
func compile(args []string) error {
	compiler := strings.Fields(os.Getenv("CC")) // may hold flags, as for make
	if len(compiler) == 0 {
		compiler = []string{"cc"}
	}
	path, err := exec.LookPath(compiler[0])
	if err != nil {
		return &fault.Error{Code: fault.CompilerNotFound, Object: compiler[0]}
	}
	dir, cacheErr := cachedInclude()
	if cacheErr == nil {
		command := append(append(compiler, includeFlag(dir)), args...)
		if err := stateAtStart().restore(); err != nil {
			return err
		}
		return fmt.Errorf("execute %s: %w", path, syscall.Exec(path, command, os.Environ()))
	}
	dir, err = os.MkdirTemp("", "crshim-include-")
	if err != nil {
		return &fault.Error{Code: fault.HeaderUnwritable, Err: errors.Join(cacheErr, err)}
	}
	err = writeInclude(dir)
	if err == nil {
		cmd := exec.Command(path, append(append(compiler[1:], includeFlag(dir)), args...)...)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		err = cmd.Run()
	}
	if removeErr := os.RemoveAll(dir); removeErr != nil {
		err = errors.Join(err, fmt.Errorf("remove header: %w", removeErr))
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		status := exit.Sys().(syscall.WaitStatus)
		if status.Signaled() {
			return endWith(128 + int(status.Signal()))
		}
		return endWith(status.ExitStatus())
	}
	return err
}
