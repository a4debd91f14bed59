package tests

import (
	"encoding/binary"
	"slices"
	"testing"

	"github.com/crshim/crshim/core/image"
)

// TestMemfdRefused: a file that the caller may not make so large, of which the
// kernel would tell it by a signal, and more behind its end than a page holds.
func TestMemfdRefused(t *testing.T) {
	eachUser(t, func(t *testing.T, u user) {
		e := newEnv(t, u)
		savedOnce(e, t, "memfd", "tail")
		refusedRestart(e, "CR2120", "/bin/sh", "-c", `ulimit -S -f 1 && exec "$0" restart img`, e.crshim)
		raw := readRaw(t, e.path("img"))
		i := slices.IndexFunc(raw.records, func(r *image.Record) bool { return r.Name() == "MEMFD" })
		const header = 8
		bad := slices.Clone(raw.bytes)
		binary.LittleEndian.PutUint64(bad[raw.records[i].Offset+header:], 8191)
		e.write(e.path("bad"), string(raw.signed(bad)))
		refusedRestart(e, "CR2013", e.crshim, "restart", "bad")
	})
}
