package shim

import (
	"encoding/json"
	"os"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core"
	"github.com/crshim/crshim/tracer/procfs"
)

// dieAfterEnv names a step of the engine after which the process kills itself. Tests use it to prove that nobody suffers.
const dieAfterEnv = "CRSHIM_DIE_AFTER"

// newEngine makes the engine of this process.
func newEngine(warn func(format string, args ...any)) *core.Engine {
	engine := &core.Engine{Filters: filtersOf, Launcher: launchedBy, Warn: warn}
	if last, ok := os.LookupEnv(dieAfterEnv); ok {
		engine.After = func(step string) {
			if step == last {
				_ = unix.Kill(os.Getpid(), unix.SIGKILL)
			}
		}
	}
	return engine
}

// filtersOf tells how many seccomp filters of pid are known to pass every call that an engine makes in it, and whether our
// calls are caught there. Everything below a stage __parent that says so is under one filter of ours: that stage adopts the
// orphans, so nobody gets out from under it while it lives. The filters above are those of a container, say; they are known as far
// as we run under them too.
func filtersOf(pid procfs.PID) (benign int, caught bool) {
	for isParent := false; pid > 1; {
		p, err := procfs.Open(pid)
		if err != nil {
			return 0, false
		}
		stat, err := p.Stat()
		args, argsErr := p.Cmdline()
		status, statusErr := p.Status()
		_ = p.Close()
		if err != nil || argsErr != nil || statusErr != nil {
			return 0, false
		}
		if isParent && stat.Comm == commOfStages && isFilteringParent(args) {
			return 1 + min(status.SeccompFilters, ownFilters()), true
		}
		pid, isParent = stat.PPid, true
	}
	return 0, false
}

// launchedBy returns the container whose first process a stage __parent waits for, nil if that process is none such.
func launchedBy(pid procfs.PID) *core.Container {
	p, err := procfs.Open(pid)
	if err != nil {
		return nil
	}
	defer func() { _ = p.Close() }()
	comm, err := p.Comm()
	if err != nil || comm != commOfStages {
		return nil
	}
	args, err := p.Cmdline()
	var config stageConfig
	if err != nil || len(args) <= 2 || args[1] != stageParent || json.Unmarshal([]byte(args[2]), &config) != nil || config.Container == nil {
		return nil
	}
	return config.Container.saved()
}

// isFilteringParent tells whether a command line is that of a stage __parent whose children are under a filter of ours.
func isFilteringParent(args []string) bool {
	var config stageConfig
	return len(args) > 2 && args[1] == stageParent && json.Unmarshal([]byte(args[2]), &config) == nil && config.filtered()
}

// ownFilters is how many seccomp filters this process is under, 0 if that cannot be told.
func ownFilters() int {
	p, err := procfs.Open(procfs.PID(os.Getpid()))
	if err != nil {
		return 0
	}
	defer func() { _ = p.Close() }()
	status, err := p.Status()
	if err != nil {
		return 0
	}
	return status.SeccompFilters
}
