package tests

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core"
	"github.com/crshim/crshim/core/image"
)

// rawImage is an image as bytes, with what is needed to spoil it.
type rawImage struct {
	bytes   []byte
	records []*image.Record
}

func readRaw(t testing.TB, name string) *rawImage {
	t.Helper()
	raw := &rawImage{}
	var err error
	if raw.bytes, err = os.ReadFile(name); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	src, err := image.OpenSource(f)
	if err != nil {
		t.Fatal(err)
	}
	if err := image.Walk(image.NewReader(src, core.Records), func(_ int, rec *image.Record) error {
		raw.records = append(raw.records, rec)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return raw
}

// piece is the bytes of record i, with filler that follows it.
func (raw *rawImage) piece(i int) []byte {
	end := int64(len(raw.bytes))
	if i+1 < len(raw.records) {
		end = raw.records[i+1].Offset
	}
	return raw.bytes[raw.records[i].Offset:end]
}

// find returns the nth record of a kind, from 0.
func (raw *rawImage) find(kind image.Kind, nth int) *image.Record {
	for _, rec := range raw.records {
		if rec.Kind == kind {
			if nth == 0 {
				return rec
			}
			nth--
		}
	}
	return nil
}

// signed makes the checksum of a spoilt image right again, so that what is
// spoilt is looked at. The pieces are all of the image, in order.
func (raw *rawImage) signed(pieces ...[]byte) []byte {
	out := slices.Concat(pieces...)
	sum := raw.find(image.KindSum, 0)
	tail := len(raw.bytes) - int(sum.Offset) // SUM and TAIL stay last
	at := len(out) - tail
	if at < 0 || binary.LittleEndian.Uint16(out[at:]) != uint16(image.KindSum) {
		return out
	}
	binary.LittleEndian.PutUint64(out[at+8+8:], xxhash.Sum64(out[:at]))
	binary.LittleEndian.PutUint64(out[at+8+16:], uint64(at))
	return out
}

// spoilt is an image that restart must refuse with one of some errnos.
type spoilt struct {
	what  string
	bytes []byte
	want  []unix.Errno
}

// badSetup makes images and has the victim try them.
type badSetup struct {
	*callSetup
	raw    *rawImage
	spoilt []spoilt
}

func newBad(t *testing.T, u user) *badSetup {
	c := newCalls(t, u)
	// A small image: of a static program, with two more threads.
	c.call = program(t, libcs[1], "callers", "call")
	c.write(c.path("keep"), "a file that the image refers to")
	c.sh(streams{}, "THREADS=2 $call out checkpoint self 3 0 3>img 4<keep").ends("exit status 0")
	return &badSetup{callSetup: c, raw: readRaw(t, c.path("img"))}
}

func (b *badSetup) add(what string, bytes []byte, want ...unix.Errno) {
	b.spoilt = append(b.spoilt, spoilt{what, bytes, want})
}

// try has one process call restart with every image, one after the other.
func (b *badSetup) try(l libc, from string) {
	b.Helper()
	for i, s := range b.spoilt {
		b.write(b.nth("bad", i), string(s.bytes))
	}
	victim := program(b.TB.(*testing.T), l, "callers", "victim")
	j := b.start(streams{}, b.crshim, "run", victim, "victim", from, b.dir, strconv.Itoa(len(b.spoilt)))
	b.announced(j, "ready", 1)
	// The caller has its errno a moment before the supervisor has tidied up: of the
	// first try now, of the last one below.
	var before []string
	b.until("the supervisor is done with the first image", func() bool {
		before = supervisorFDs(b.TB, j)
		return !slices.ContainsFunc(before, func(fd string) bool { return strings.Contains(fd, "/bad.") })
	})
	b.write(b.nth("go", 1), "")
	b.announced(j, "ready", 2)
	var after []string
	for range 500 {
		if after = supervisorFDs(b.TB, j); slices.Equal(before, after) {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if d := cmp.Diff(before, after); d != "" {
		b.Errorf("descriptors of the supervisor (-before +after):\n%s", d)
	}
	b.write(b.nth("go", 2), "")
	if got := j.end(); got != "exit status 0" {
		i := 0
		for exists(b.nth("errno", i)) {
			i++
		}
		if i < len(b.spoilt) {
			b.Errorf("the victim ended at image %d: %s", i, b.spoilt[i].what)
		}
		b.Errorf("the victim: %s", got)
		b.passed()
	}
	for i, s := range b.spoilt {
		n, err := strconv.Atoi(b.read(b.nth("errno", i)))
		if err != nil {
			b.Fatal(err)
		}
		if !slices.Contains(s.want, unix.Errno(n)) {
			b.Errorf("%s: %s, want one of %v", s.what, unix.ErrnoName(unix.Errno(n)), errnoNames(s.want))
		}
	}
}

func errnoNames(all []unix.Errno) (names []string) {
	for _, e := range all {
		names = append(names, unix.ErrnoName(e))
	}
	return names
}

// supervisorFDs lists what the crshim processes of a job have open.
func supervisorFDs(t testing.TB, j *job) []string {
	t.Helper()
	var all []string
	for _, p := range append(descendants(j.pid()), process{pid: j.pid(), comm: "crshim"}) {
		if p.comm != "crshim" {
			continue
		}
		entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.pid))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			target, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", p.pid, e.Name()))
			if errors.Is(err, fs.ErrNotExist) {
				continue // closed just now
			}
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, fmt.Sprintf("%d %s", p.pid, target))
		}
	}
	slices.Sort(all)
	return all
}

// TestBadImageCut: an image that ends too early, wherever that is.
func TestBadImageCut(t *testing.T) {
	eachUser(t, func(t *testing.T, u user) {
		b := newBad(t, u)
		for _, rec := range b.raw.records {
			b.add(fmt.Sprintf("cut before %s at %d", rec.Name(), rec.Offset), b.raw.bytes[:rec.Offset], unix.EPIPE)
		}
		cuts := 500
		if testing.Short() {
			cuts = 100
		}
		random := rand.New(rand.NewPCG(2009, uint64(u.id)))
		for range cuts {
			n := random.IntN(len(b.raw.bytes))
			b.add(fmt.Sprintf("cut at %d", n), b.raw.bytes[:n], unix.EPIPE)
		}
		b.try(glibc, "file")
	})
}

// TestBadImagePipe: the same out of a pipe, at fewer places.
func TestBadImagePipe(t *testing.T) {
	eachUser(t, func(t *testing.T, u user) {
		b := newBad(t, u)
		if len(b.raw.bytes) > 1<<20 {
			t.Fatalf("the image of %d bytes does not fit into a pipe", len(b.raw.bytes))
		}
		for _, rec := range b.raw.records {
			b.add(fmt.Sprintf("cut before %s at %d", rec.Name(), rec.Offset), b.raw.bytes[:rec.Offset], unix.EPIPE)
			if n := rec.Offset + 8; n < int64(len(b.raw.bytes)) {
				b.add(fmt.Sprintf("cut behind the header of %s at %d", rec.Name(), rec.Offset), b.raw.bytes[:n], unix.EPIPE)
			}
		}
		b.try(libcs[1], "pipe")
	})
}

// TestBadImageHeaders: one bit of each byte of each header is wrong.
func TestBadImageHeaders(t *testing.T) {
	eachUser(t, func(t *testing.T, u user) {
		b := newBad(t, u)
		random := rand.New(rand.NewPCG(2009, uint64(u.id)))
		for _, rec := range b.raw.records {
			for i := range int64(8) {
				bad := slices.Clone(b.raw.bytes)
				bad[rec.Offset+i] ^= 1 << random.IntN(8)
				b.add(fmt.Sprintf("byte %d of the header of %s at %d", i, rec.Name(), rec.Offset), bad, unix.EINVAL, unix.EPIPE, unix.ENOEXEC)
			}
		}
		b.try(glibc, "file")
	})
}

// TestBadImageBytes: any bit of the image, anywhere. Either the value is
// refused or the checksum is.
func TestBadImageBytes(t *testing.T) {
	b := newBad(t, users()[0])
	random := rand.New(rand.NewPCG(2009, 13))
	for range 200 {
		bad := slices.Clone(b.raw.bytes)
		n := random.IntN(len(bad))
		bad[n] ^= 1 << random.IntN(8)
		b.add(fmt.Sprintf("byte %d", n), bad, unix.EINVAL, unix.EPIPE, unix.ENOEXEC, unix.ENOENT, unix.EMFILE, unix.ENOMEM, unix.EOPNOTSUPP, unix.EPERM, unix.EACCES, unix.ENOTDIR)
	}
	b.try(glibc, "file")
}

// TestBadImageOrder: records of 2009 left out, doubled and exchanged, under a
// checksum that is right.
func TestBadImageOrder(t *testing.T) {
	b := newBad(t, users()[0])
	raw := b.raw
	of2009 := func(i int) bool { return raw.records[i].Kind < image.KindTail }
	for i := range raw.records {
		if !of2009(i) {
			continue
		}
		name := fmt.Sprintf("%s at %d", raw.records[i].Name(), raw.records[i].Offset)
		start, end := raw.bytes[:raw.records[i].Offset], raw.bytes[raw.records[i].Offset+int64(len(raw.piece(i))):]
		// A run of pages may be missing or come twice: that is not the order's.
		if pages, ok := raw.records[i].Value.(*image.PageArray); !ok || pages.Pages == 0 {
			b.add("without "+name, raw.signed(start, end), unix.EINVAL, unix.EPIPE)
			b.add("twice "+name, raw.signed(start, raw.piece(i), raw.piece(i), end), unix.EINVAL, unix.EPIPE, unix.ENOEXEC)
		}
		if i+1 < len(raw.records) && of2009(i+1) && raw.records[i].Kind != raw.records[i+1].Kind {
			b.add("exchanged "+name, raw.signed(start, raw.piece(i+1), raw.piece(i), end[len(raw.piece(i+1)):]), unix.EINVAL, unix.EPIPE)
		}
	}
	b.try(glibc, "file")
}

// TestBadImageValues: values that no checksum can vouch for.
func TestBadImageValues(t *testing.T) {
	eachUser(t, func(t *testing.T, u user) {
		b := newBad(t, u)
		raw := b.raw
		// patch changes a value of the nth record of a kind; the offset counts
		// from its payload.
		patch := func(what string, kind image.Kind, nth int, offset int64, value []byte, want ...unix.Errno) {
			t.Helper()
			rec := raw.find(kind, nth)
			if rec == nil {
				t.Fatalf("%s: the image has no record %d of kind %v", what, nth, kind)
			}
			bad := slices.Clone(raw.bytes)
			copy(bad[rec.Offset+8+offset:], value)
			b.add(what, raw.signed(bad), want...)
		}
		u16 := func(v uint16) []byte { return binary.LittleEndian.AppendUint16(nil, v) }
		u32 := func(v uint32) []byte { return binary.LittleEndian.AppendUint32(nil, v) }
		u64 := func(v uint64) []byte { return binary.LittleEndian.AppendUint64(nil, v) }
		const kernel = 0xffff888000000000
		const nowhere = 0x0000800000000000 // the first address that is not canonical
		invalid := []unix.Errno{unix.EINVAL}
		foreign := []unix.Errno{unix.ENOEXEC}
		range_ := []unix.Errno{unix.EINVAL, unix.ENOEXEC}

		patch("magic", image.KindHead, 0, 0, u64(0), invalid...)
		patch("revision", image.KindHead, 0, 14, u16(4), invalid...)
		patch("head flags", image.KindHead, 0, 24, u64(3), invalid...)
		patch("size of the extended state", image.KindHeadArch, 0, 4, u16(60000), unix.EINVAL, unix.ENOEXEC, unix.EPIPE)
		patch("page size", image.KindMachine, 0, 0, u32(65536), foreign...)
		patch("state components", image.KindMachine, 0, 8, u64(1<<62|7), foreign...)
		patch("vdso", image.KindMachine, 0, 24, u64(1), foreign...)
		patch("architecture", image.KindMachine, 0, 32, []byte("aarch64\x00"), foreign...)
		patch("no tasks", image.KindTree, 0, 0, u32(0), unix.EINVAL, unix.EPIPE)
		patch("tasks without number", image.KindTree, 0, 0, u32(0xffffffff), unix.EINVAL, unix.EPIPE, unix.ENOMEM)
		patch("too many mappings", image.KindMM, 0, 4, u32(0xffffffff), invalid...)
		patch("start of code", image.KindMM, 0, 8, u64(kernel), range_...)
		patch("end of code before its start", image.KindMM, 0, 16, u64(0), invalid...)
		patch("break", image.KindMM, 0, 48, u64(kernel), range_...)
		patch("kind of mapping", image.KindVMA, 0, 0, u32(99), invalid...)
		patch("mapping in the kernel", image.KindVMA, 0, 8, append(u64(kernel), u64(kernel+4096)...), range_...)
		patch("mapping across the end", image.KindVMA, 0, 8, append(u64(nowhere-4096), u64(nowhere+4096)...), range_...)
		patch("mapping that wraps", image.KindVMA, 0, 8, append(u64(0xfffffffffffff000), u64(4096)...), range_...)
		patch("mapping that ends before it starts", image.KindVMA, 0, 8, append(u64(0x20000), u64(0x10000)...), invalid...)
		patch("empty mapping", image.KindVMA, 0, 8, append(u64(0x20000), u64(0x20000)...), invalid...)
		patch("mapping between pages", image.KindVMA, 0, 8, append(u64(0x20001), u64(0x30001)...), invalid...)
		patch("mapping at zero", image.KindVMA, 0, 8, append(u64(0), u64(4096)...), unix.EINVAL, unix.EPERM)
		first := raw.find(image.KindVMA, 0)
		bounds := raw.bytes[first.Offset+16 : first.Offset+32]
		patch("mapping over another", image.KindVMA, 1, 8, bounds, invalid...)
		patch("unknown flags", image.KindVMA, 0, 32, u64(1<<40), invalid...)
		patch("flags of a device", image.KindVMA, 0, 32, u64(0x4000|0x400|3), unix.EINVAL, unix.EOPNOTSUPP)
		var n int
		for raw.find(image.KindPageArray, n).Value.(*image.PageArray).Pages == 0 {
			n++
		}
		patch("pages without number", image.KindPageArray, n, 0, u64(1<<60), unix.EINVAL, unix.EPIPE)
		patch("more pages than there are", image.KindPageArray, n, 0, u64(16000), unix.EINVAL, unix.EPIPE)
		patch("page of the kernel", image.KindPageArray, n, 8, u64(kernel), invalid...)
		patch("page elsewhere", image.KindPageArray, n, 8, u64(0x10000), invalid...)
		patch("page between pages", image.KindPageArray, n, 8, u64(raw.find(image.KindVMA, 0).Value.(*image.VMA).Start+8), invalid...)
		patch("descriptors without number", image.KindFiles, 0, 4, u32(0xffffffff), unix.EINVAL, unix.EMFILE)
		patch("open file 0", image.KindFDEntry, 0, 0, u32(0), invalid...)
		patch("open file that is not there", image.KindFDEntry, 0, 0, u32(4711), invalid...)
		patch("descriptor -1", image.KindFDEntry, 0, 4, u32(0xffffffff), invalid...)
		patch("descriptor of another universe", image.KindFDEntry, 0, 4, u32(0x7fffffff), unix.EINVAL, unix.EMFILE)
		patch("descriptor twice", image.KindFDEntry, 1, 4, u32(uint32(raw.find(image.KindFDEntry, 0).Value.(*image.FDEntry).FD)), invalid...)
		patch("kind of file", image.KindFDData, 0, 0, u16(99), invalid...)
		patch("instruction pointer", image.KindCPU, 0, 16*8, u64(nowhere), invalid...)
		patch("instruction pointer in the kernel", image.KindCPU, 0, 16*8, u64(kernel), invalid...)
		patch("code segment of the kernel", image.KindCPU, 0, 17*8, u64(0x10), invalid...)
		patch("stack segment of the kernel", image.KindCPU, 0, 20*8, u64(0x18), invalid...)
		patch("fs base in the kernel", image.KindCPU, 0, 23*8, u64(kernel), invalid...)
		patch("gs base that is not canonical", image.KindCPU, 0, 24*8, u64(1<<63), invalid...)
		const xstate = 272
		patch("MXCSR", image.KindCPU, 0, xstate+24, u32(0xffffffff), range_...)
		patch("component of the extended state", image.KindCPU, 0, xstate+512, u64(1<<60|3), range_...)
		patch("reserved bytes of the extended state", image.KindCPU, 0, xstate+512+16, u64(0xffff), range_...)
		patch("TAIL", image.KindTail, 0, 0, u64(0), invalid...)

		// Names of the same length: of nothing, of a directory, of a file
		// that may not be opened.
		name := slices.IndexFunc(raw.records, func(rec *image.Record) bool {
			f, ok := rec.Value.(*image.FName)
			return ok && strings.HasSuffix(f.Name, "/keep")
		})
		if name < 0 {
			t.Fatal("the image does not name the file that was open")
		}
		nth := 0
		for _, rec := range raw.records[:name] {
			if rec.Kind == image.KindFName {
				nth++
			}
		}
		at := int64(len(b.dir) + 1)
		if err := os.Mkdir(b.path("keeD"), 0o755); err != nil {
			t.Fatal(err)
		}
		b.write(b.path("keeX"), "")
		if err := os.Chmod(b.path("keeX"), 0); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("keeL", b.path("keeL")); err != nil {
			t.Fatal(err)
		}
		patch("file that does not exist", image.KindFName, nth, at, []byte("keeN"), unix.ENOENT)
		patch("name with a NUL in it", image.KindFName, nth, at, []byte("k\x00ep"), unix.EINVAL)
		patch("directory for a file", image.KindFName, nth, at, []byte("keeD"), unix.EINVAL, unix.EISDIR)
		patch("link to itself", image.KindFName, nth, at, []byte("keeL"), unix.ELOOP)
		patch("name that is not absolute", image.KindFName, nth, 0, []byte("tmp"), unix.EINVAL, unix.ENOENT)
		if u.id != 0 {
			patch("file that may not be opened", image.KindFName, nth, at, []byte("keeX"), unix.EACCES)
		}
		b.try(glibc, "file")
	})
}

// TestBadImageNothingLeft: the image itself works, before and after all that.
func TestBadImageNothingLeft(t *testing.T) {
	eachUser(t, func(t *testing.T, u user) {
		b := newBad(t, u)
		b.restores("img", b.path("out"))
		b.add("empty", nil, unix.EPIPE)
		b.try(glibc, "file")
		b.restores("img", b.path("out"))
	})
}
