package tests

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/image"
)

// Images of a tree that are wrong. The caller is as it was, and has no child, no
// signal of one, and nobody is left of what had been forked by then.

// TestBadFamilyCut: a tree that ends too early.
func TestBadFamilyCut(t *testing.T) {
	eachUser(t, func(t *testing.T, u user) {
		b := newBadFamily(t, u)
		random := rand.New(rand.NewPCG(2009, uint64(u.id)))
		for _, rec := range b.raw.records {
			if random.IntN(len(b.raw.records)) < 60 {
				b.add(fmt.Sprintf("cut before %s at %d", rec.Name(), rec.Offset), b.raw.bytes[:rec.Offset], unix.EPIPE)
			}
		}
		tail := len(b.raw.bytes) - 1
		b.add("without its last byte", b.raw.bytes[:tail], unix.EPIPE)
		b.try(glibc, "file")
		b.nobodyLeft()
	})
}

// TestBadFamilyBytes: any bit, anywhere.
func TestBadFamilyBytes(t *testing.T) {
	b := newBadFamily(t, users()[0])
	random := rand.New(rand.NewPCG(2009, 14))
	for range 60 {
		bad := slices.Clone(b.raw.bytes)
		n := random.IntN(len(bad))
		bad[n] ^= 1 << random.IntN(8)
		b.add(fmt.Sprintf("byte %d", n), bad, unix.EINVAL, unix.EPIPE, unix.ENOEXEC, unix.ENOENT, unix.EMFILE, unix.ENOMEM,
			unix.EOPNOTSUPP, unix.EPERM, unix.EACCES, unix.ENOTDIR, unix.EAGAIN)
	}
	b.try(libcs[1], "file")
	b.nobodyLeft()
}

// TestBadFamilyOrder: records of processes left out, doubled, exchanged.
func TestBadFamilyOrder(t *testing.T) {
	b := newBadFamily(t, users()[0])
	raw := b.raw
	for i, rec := range raw.records {
		switch rec.Kind {
		case image.KindProcess, image.KindTask, image.KindFDEntry, image.KindFDData:
		default:
			continue
		}
		name := fmt.Sprintf("%s at %d", rec.Name(), rec.Offset)
		start, end := raw.bytes[:rec.Offset], raw.bytes[rec.Offset+int64(len(raw.piece(i))):]
		if p, ok := rec.Value.(*image.Process); !ok || p.State != image.ProcessEnded {
			b.add("without "+name, raw.signed(start, end), unix.EINVAL, unix.EPIPE)
		}
		b.add("twice "+name, raw.signed(start, raw.piece(i), raw.piece(i), end), unix.EINVAL, unix.EPIPE)
		if raw.records[i+1].Kind == image.KindProcess {
			b.add("exchanged "+name, raw.signed(start, raw.piece(i+1), raw.piece(i), end[len(raw.piece(i+1)):]), unix.EINVAL, unix.EPIPE)
		}
	}
	b.try(glibc, "file")
	b.nobodyLeft()
}

// TestBadFamilyValues: what no checksum can vouch for.
func TestBadFamilyValues(t *testing.T) {
	eachUser(t, func(t *testing.T, u user) {
		b := newBadFamily(t, u)
		raw := b.raw
		u32 := func(v int32) []byte { return binary.LittleEndian.AppendUint32(nil, uint32(v)) }
		patch := func(what string, rec *image.Record, offset int64, value []byte, want ...unix.Errno) {
			bad := slices.Clone(raw.bytes)
			copy(bad[rec.Offset+8+offset:], value)
			b.add(what, raw.signed(bad), want...)
		}
		process := func(nth int) (*image.Record, *image.Process) {
			rec := raw.find(image.KindProcess, nth)
			return rec, rec.Value.(*image.Process)
		}
		const vpid, vppid, vpgrp, vsession, state, exitCode, exitSignal, shares = 0, 4, 8, 12, 16, 20, 24, 44
		first, root := process(0)
		child, second := process(1)
		last, ended := process(4)
		if ended.State != image.ProcessEnded || second.VPPID != root.VPID {
			t.Fatal("the image is not that of the family")
		}
		patch("parent of itself", child, vppid, u32(second.VPID), unix.EINVAL)
		patch("parent that is not there", child, vppid, u32(second.VPID+77), unix.EINVAL)
		patch("no parent", child, vppid, u32(0), unix.EINVAL)
		patch("number of the first", child, vpid, u32(root.VPID), unix.EINVAL)
		patch("number 0", child, vpid, u32(0), unix.EINVAL)
		patch("number -1", child, vpid, u32(-1), unix.EINVAL)
		patch("signal 65", child, exitSignal, u32(65), unix.EINVAL)
		patch("signal -1", child, exitSignal, u32(-1), unix.EINVAL)
		patch("state 9", child, state, u32(9), unix.EINVAL)
		patch("one that lives has ended", child, state, u32(int32(image.ProcessEnded)), unix.EINVAL)
		patch("one that has ended lives", last, state, u32(int32(image.ProcessLives)), unix.EINVAL)
		patch("one ended is the parent of another", last, vppid, u32(ended.VPID), unix.EINVAL)
		for _, status := range []int32{int32(unix.SIGSTOP), int32(unix.SIGCHLD), int32(unix.SIGTSTP), 65, 0x7f, 0xffff, -1} {
			patch(fmt.Sprintf("ended with %#x", status), last, exitCode, u32(status), unix.EINVAL)
		}
		patch("shares what nobody can", child, shares, u32(8), unix.EINVAL)
		patch("shares the memory that it has its own of", child, shares, u32(image.SharesVM), unix.EINVAL)
		patch("shares the table that it has its own of", child, shares, u32(image.SharesFiles), unix.EINVAL)
		patch("one that has ended shares", last, shares, u32(image.SharesFS), unix.EINVAL)
		patch("the first one shares", first, shares, u32(image.SharesFS), unix.EINVAL)
		patch("a group that cannot be", child, vpgrp, u32(-5), unix.EINVAL)
		patch("a session that cannot be", child, vsession, u32(-5), unix.EINVAL)

		tree := raw.find(image.KindTree, 0)
		patch("fewer processes", tree, 0, u32(3), unix.EINVAL, unix.EPIPE)
		patch("more processes", tree, 0, u32(5), unix.EINVAL, unix.EPIPE)
		patch("processes without number", tree, 0, u32(1<<30), unix.EINVAL, unix.EPIPE, unix.ENOMEM)

		// A reference to what only a sibling has.
		var refs []*image.Record
		for _, rec := range raw.records {
			if rec.Kind == image.KindFDEntry {
				refs = append(refs, rec)
			}
		}
		if len(refs) < 8 {
			t.Fatalf("only %d descriptors", len(refs))
		}
		patch("an open file of nobody", refs[len(refs)-1], 0, u32(4711), unix.EINVAL)
		patch("a descriptor that is neither held nor not", refs[len(refs)-1], 8, u32(3), unix.EINVAL)
		b.try(glibc, "file")
		b.nobodyLeft()
	})
}
