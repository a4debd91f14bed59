package shim

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// completePIDs completes the id of a process that the user may save, with its name beside it. It is a
// cobra.CompletionFunc for a command that takes one pid.
func completePIDs(_ *cobra.Command, args []string, prefix string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	uid := unix.Geteuid()
	var pids []cobra.Completion
	for _, entry := range entries {
		name := entry.Name()
		if _, err := strconv.Atoi(name); err != nil || !strings.HasPrefix(name, prefix) {
			continue
		}
		var st unix.Stat_t
		dir := filepath.Join("/proc", name)
		if unix.Stat(dir, &st) != nil || uid != 0 && int(st.Uid) != uid {
			continue // it has ended meanwhile, or is another user's
		}
		// A kernel thread has no executable; it cannot be saved.
		if _, err := os.Readlink(filepath.Join(dir, "exe")); err != nil {
			continue
		}
		comm, err := os.ReadFile(filepath.Join(dir, "comm"))
		if err != nil {
			continue
		}
		pids = append(pids, cobra.CompletionWithDesc(name, fmt.Sprintf("%.15s", strings.TrimSpace(string(comm)))))
	}
	return pids, cobra.ShellCompDirectiveNoFileComp
}
