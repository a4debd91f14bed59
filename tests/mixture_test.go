package tests

import (
	"flag"
	"fmt"
	"testing"
)

var (
	seedFlag  = flag.Int("seed", 100, "first `seed` of the random mixtures")
	seedsFlag = flag.Int("seeds", 8, "`number` of random mixtures")
)

// TestMixtures takes random mixtures of resources through checkpoint and
// restart. One that fails is found again with
//
//	go test ./tests -run TestMixtures -seed=N -seeds=1
func TestMixtures(t *testing.T) {
	for seed := *seedFlag; seed < *seedFlag+*seedsFlag; seed++ {
		// The seed decides about the rest as well, so that it alone brings a failure back.
		l := libcs[seed%len(libcs)]
		if l.missing() != "" {
			l = glibc
		}
		all := users()
		w, u := ways[seed/2%len(ways)], all[seed%len(all)]
		t.Run(fmt.Sprintf("%s/%d", l.name, seed), func(t *testing.T) {
			runScenario(t, scenario{program: program(t, l, "scenarios", "mixture"), name: fmt.Sprintf("seed-%d", seed), flags: scenarioSelf | scenarioExternal}, w, u)
		})
	}
}
