package shim

import (
	"os"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core"
	"github.com/crshim/crshim/tracer/procfs"
)

// dieAfterEnv names a step of the engine after which the process kills itself. Tests use it to prove that nobody suffers.
const dieAfterEnv = "CRSHIM_DIE_AFTER"

// newEngine makes the engine of this process.
func newEngine(warn func(format string, args ...any)) *core.Engine {
	engine := &core.Engine{Filters: filtersOf, Warn: warn}
	if last, ok := os.LookupEnv(dieAfterEnv); ok {
		engine.After = func(step string) {
			if step == last {
				_ = unix.Kill(os.Getpid(), unix.SIGKILL)
			}
		}
	}
	return engine
}

// filtersOf tells how many seccomp filters of pid are ours, which pass every call that an engine makes in it, and whether
// our calls are caught there. Everything below a stage __parent is under one filter of ours, and nothing else is: that
// stage adopts the orphans, so nobody gets out from under it while it lives.
func filtersOf(pid procfs.PID) (ours int, caught bool) {
	for isParent := false; pid > 1; {
		p, err := procfs.Open(pid)
		if err != nil {
			return 0, false
		}
		stat, err := p.Stat()
		args, argsErr := p.Cmdline()
		_ = p.Close()
		if err != nil || argsErr != nil {
			return 0, false
		}
		if isParent && stat.Comm == commOfStages && len(args) > 1 && args[1] == stageParent {
			return 1, true
		}
		pid, isParent = stat.PPid, true
	}
	return 0, false
}
