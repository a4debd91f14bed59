package tests

import (
	"encoding/binary"
	"fmt"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/image"
)

// controlKind is that of CONTROL, which core/resource declares for itself.
const controlKind image.Kind = 6446

// TestBadTerminals: images in which a session has a terminal that cannot be its
// own, or somebody in its foreground who cannot be there.
func TestBadTerminals(t *testing.T) {
	eachUser(t, func(t *testing.T, u user) {
		b := newBadTree(t, u, "terminals")
		raw := b.raw
		u32 := func(v int32) []byte { return binary.LittleEndian.AppendUint32(nil, uint32(v)) }
		patch := func(what string, nth int, offset int64, value []byte, want ...unix.Errno) {
			t.Helper()
			rec := raw.find(controlKind, nth)
			if rec == nil {
				t.Fatalf("%s: the image has no record %d of a controlling terminal", what, nth)
			}
			bad := slices.Clone(raw.bytes)
			copy(bad[rec.Offset+8+offset:], value)
			b.add(what, raw.signed(bad), want...)
		}
		const terminal, foreground, known = 0, 4, 8
		root := raw.find(image.KindProcess, 0).Value.(*image.Process)
		patch("a terminal of nobody", 0, terminal, u32(4711), unix.EINVAL)
		patch("an open file for a terminal", 0, terminal, u32(1), unix.EINVAL)
		patch("no group", 0, foreground, u32(-1), unix.EINVAL)
		patch("a group of another session", 0, foreground, u32(root.VPgrp), unix.EPERM)
		patch("settings that are half known", 0, known, u32(2), unix.EINVAL)
		for i, rec := range raw.records {
			if rec.Kind != controlKind {
				continue
			}
			start, end := raw.bytes[:rec.Offset], raw.bytes[rec.Offset+int64(len(raw.piece(i))):]
			b.add(fmt.Sprintf("twice %s at %d", rec.Name(), rec.Offset), raw.signed(start, raw.piece(i), raw.piece(i), end), unix.EINVAL)
			b.add(fmt.Sprintf("cut behind %s at %d", rec.Name(), rec.Offset), raw.bytes[:len(raw.bytes)-len(end)], unix.EPIPE)
		}
		b.try(libcs[1], "file")
		b.nobodyLeft()
	})
}
