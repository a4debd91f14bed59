package shim

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

func TestCompletePIDs(t *testing.T) {
	sleep := exec.Command("sleep", "60")
	if err := sleep.Start(); err != nil {
		t.Fatal(err)
	}
	defer sleep.Wait()
	defer sleep.Process.Kill()

	pid := strconv.Itoa(sleep.Process.Pid)
	got, directive := completePIDs(nil, nil, pid)
	if len(got) == 0 || got[0] != cobra.CompletionWithDesc(pid, "sleep") || directive != cobra.ShellCompDirectiveNoFileComp {
		t.Errorf("completion of %s: %q, %v", pid, got, directive)
	}
	all, _ := completePIDs(nil, nil, "")
	found := false
	for _, c := range all {
		head, _, _ := strings.Cut(c, "\t")
		found = found || head == strconv.Itoa(os.Getpid())
		if _, err := strconv.Atoi(head); err != nil {
			t.Errorf("%q is no pid", c)
		}
	}
	if !found {
		t.Error("this process is missing")
	}
	if more, _ := completePIDs(nil, []string{"1"}, ""); more != nil {
		t.Errorf("a second pid is offered: %q", more)
	}
}
