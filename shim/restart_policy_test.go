package shim

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"

	"github.com/crshim/crshim/core/resource"
)

// policyOf reads the flags of a command line.
func policyOf(t *testing.T, args ...string) (resource.Policy, error) {
	t.Helper()
	var p policyFlags
	cmd := &cobra.Command{Use: "restart"}
	p.register(cmd)
	if err := cmd.ParseFlags(args); err != nil {
		t.Fatal(err)
	}
	return p.policy()
}

func TestPolicyFlags(t *testing.T) {
	t.Chdir(t.TempDir())
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		args []string
		want resource.Policy
	}{
		{nil, resource.Policy{}},
		{[]string{"--tcp", "keep"}, resource.Policy{TCP: resource.KeepTCP}},
		{[]string{"--files", "rollback"}, resource.Policy{Files: resource.RollbackFiles}},
		{[]string{"--files", "truncate"}, resource.Policy{Files: resource.TruncateFiles}},
		{[]string{"--files", "ignore"}, resource.Policy{Files: resource.IgnoreFiles}},
		{
			[]string{"--fd", "0=null", "--fd=7=inherit", "--fd", "9=close", "--fd", "8=hangup", "--fd", "3=log", "--fd", "4=/a=b", "--fd", "5=./null"},
			resource.Policy{Descriptors: map[int32]string{
				0: resource.NullFD, 7: resource.InheritFD, 8: resource.HangupFD, 9: resource.CloseFD,
				3: filepath.Join(here, "log"), 4: "/a=b", 5: filepath.Join(here, "null"),
			}},
		},
	} {
		got, err := policyOf(t, test.args...)
		if diff := cmp.Diff(test.want, got); err != nil || diff != "" {
			t.Errorf("%q: %v (-want +got):\n%s", test.args, err, diff)
		}
	}
	for want, args := range map[string][]string{
		"given twice":                       {"--fd", "3=null", "--fd", "3=close"},
		"not of the form":                   {"--fd", "3"},
		"not of the form N":                 {"--fd", "3="},
		`"x" is not a descriptor number`:    {"--fd", "x=null"},
		`"-1" is not a descriptor number`:   {"--fd", "-1=null"},
		`is not a descriptor number`:        {"--fd", "2147483648=null"},
		`--files: "keep" is none of verify`: {"--files", "keep"},
		`--tcp: "drop" is none of reset, k`: {"--tcp", "drop"},
	} {
		if _, err := policyOf(t, args...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", args, err, want)
		}
	}
}

func TestCompleteFD(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.WriteFile("notes", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for prefix, want := range map[string][]string{
		"":     nil,
		"x=":   nil,
		"3":    {"3="},
		"3=":   {"3=inherit", "3=null", "3=hangup", "3=close", "3=notes"},
		"12=n": {"12=null", "12=notes"},
	} {
		if got, _ := completeFD(nil, nil, prefix); !slices.Equal(got, want) {
			t.Errorf("completes %q with %q, want %q", prefix, got, want)
		}
	}
}
