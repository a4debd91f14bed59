package procfs

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// mapped is memory that a test maps, with what Mappings must say of it.
func mapped(t *testing.T, fd int, size, prot, flags int) []byte {
	t.Helper()
	b, err := unix.Mmap(fd, 0, size, prot, flags)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Munmap(b); err != nil {
			t.Error(err)
		}
	})
	return b
}

func mappingOf(t *testing.T, list []Mapping, b []byte) Mapping {
	t.Helper()
	r := rangeOf(b)
	for _, m := range list {
		if m.ContainsRange(r) {
			return m
		}
	}
	t.Fatalf("no mapping holds %v", r)
	return Mapping{}
}

func TestMappingsOfSelf(t *testing.T) {
	page := int(PageSize)
	odd := t.TempDir() + "/a b\\x\n(deleted)"
	if err := os.WriteFile(odd, make([]byte, 4*page), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(odd)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	memfd, err := unix.MemfdCreate("my file", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(memfd)
	if err := unix.Ftruncate(memfd, int64(page)); err != nil {
		t.Fatal(err)
	}
	file, err := unix.Mmap(int(f.Fd()), int64(page), 2*page, unix.PROT_READ, unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(file)
	inMemfd := mapped(t, memfd, page, rw, unix.MAP_SHARED)
	shared := mapped(t, -1, 3*page, rw, unix.MAP_SHARED|unix.MAP_ANONYMOUS)
	advised := mapped(t, -1, 5*page, rw, anon|unix.MAP_NORESERVE)
	for _, advice := range []int{unix.MADV_DONTFORK, unix.MADV_DONTDUMP, unix.MADV_WIPEONFORK, unix.MADV_SEQUENTIAL} {
		if err := unix.Madvise(advised, advice); err != nil {
			t.Fatal(err)
		}
	}
	shared[0], shared[page] = 1, 1

	p := self(t)
	list, err := p.Mappings()
	if err != nil {
		t.Fatal(err)
	}
	m := mappingOf(t, list, file)
	if m.Name != odd || m.Deleted || m.Special() != SpecialNone || m.Offset != uint64(page) || m.Inode != st.Ino ||
		m.Perms != (Perms{Read: true}) || unix.Mkdev(m.Major, m.Minor) != st.Dev || m.Range != rangeOf(file) {
		t.Errorf("file: %v", &m)
	}
	if m := mappingOf(t, list, inMemfd); m.Special() != SpecialMemfd || m.Name != "/memfd:my file" || !m.Perms.Shared {
		t.Errorf("memfd: %v", &m)
	}
	if m := mappingOf(t, list, shared); m.Special() != SpecialSharedAnon || m.RSS != 2*PageSize ||
		!m.Flags.Has(VMShared|VMMayShare|VMRead|VMWrite) || m.KernelPageSize != PageSize {
		t.Errorf("shared: %+v", m)
	}
	m = mappingOf(t, list, advised)
	if !m.Flags.Has(VMDontCopy|VMDontDump|VMWipeOnFork|VMSeqRead|VMNoReserve) || m.Flags.Has(VMShared) ||
		m.Range != rangeOf(advised) || m.Special() != SpecialNone || m.RSS != 0 {
		t.Errorf("advised: %+v", m)
	}
	seen := map[Special]bool{}
	for _, m := range list {
		seen[m.Special()] = true
		if len(m.UnknownFlags) > 0 || m.Special() == SpecialOther {
			t.Errorf("not in our tables: %v, flags %q", &m, m.UnknownFlags)
		}
	}
	for _, s := range []Special{SpecialStack, SpecialVDSO, SpecialVVar} {
		if !seen[s] {
			t.Errorf("no %s", s)
		}
	}

	if err := os.Remove(odd); err != nil {
		t.Fatal(err)
	}
	cheap, err := p.Maps()
	if err != nil {
		t.Fatal(err)
	}
	gone := mappingOf(t, cheap, file)
	if gone.Name != odd || !gone.Deleted || gone.Flags != 0 {
		t.Errorf("deleted file: %v", &gone)
	}
	link, err := p.MapFile(gone.Range)
	if class(err) == "denied" && os.Geteuid() != 0 {
		t.Skip("needs: CAP_CHECKPOINT_RESTORE (/proc/PID/map_files)")
	}
	if err != nil || link != odd+" (deleted)" {
		t.Errorf("MapFile = %q, %v", link, err)
	}
}

func TestMappingNames(t *testing.T) {
	private := mapped(t, -1, int(PageSize), rw, anon)
	shared := mapped(t, -1, int(PageSize), rw, unix.MAP_SHARED|unix.MAP_ANONYMOUS)
	for _, b := range [][]byte{private, shared} {
		err := setAnonName(b, "my memory")
		if errors.Is(err, unix.EINVAL) {
			t.Skip("needs: CONFIG_ANON_VMA_NAME")
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	list, err := self(t).Maps()
	if err != nil {
		t.Fatal(err)
	}
	for want, b := range map[Special][]byte{SpecialAnon: private, SpecialAnonShmem: shared} {
		m := mappingOf(t, list, b)
		if name, ok := m.AnonName(); m.Special() != want || !ok || name != "my memory" {
			t.Errorf("%v is %q, named %q", &m, m.Special(), name)
		}
	}
}

func TestSysVMapping(t *testing.T) {
	id, err := unix.SysvShmGet(unix.IPC_PRIVATE, int(PageSize), unix.IPC_CREAT|0o600)
	if errors.Is(err, unix.ENOSYS) {
		t.Skip("needs: CONFIG_SYSVIPC")
	}
	if err != nil {
		t.Fatal(err)
	}
	b, err := unix.SysvShmAttach(id, 0, 0)
	_, rmErr := unix.SysvShmCtl(id, unix.IPC_RMID, nil)
	if err := errors.Join(err, rmErr); err != nil {
		t.Fatal(err)
	}
	defer unix.SysvShmDetach(b)
	list, err := self(t).Maps()
	if err != nil {
		t.Fatal(err)
	}
	if m := mappingOf(t, list, b); m.Special() != SpecialSysV || m.Inode != uint64(id) {
		t.Errorf("segment %d: %v", id, &m)
	}
}

// TestMapsOfBusyProcess reads while the map changes: the parser may not
// stumble over what the kernel promises.
func TestMapsOfBusyProcess(t *testing.T) {
	stop, done := make(chan struct{}), make(chan error)
	area := mapped(t, -1, 512*int(PageSize), unix.PROT_NONE, anon)
	go func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			at := (i * 7 % 510) * int(PageSize)
			prot := []int{unix.PROT_NONE, unix.PROT_READ, rw}[i%3]
			if err := unix.Mprotect(area[at:at+2*int(PageSize)], prot); err != nil {
				<-stop
				done <- err
				return
			}
		}
	}()
	p := self(t)
	for range 200 {
		if _, err := p.Maps(); err != nil {
			t.Error(err)
			break
		}
	}
	for range 20 {
		if _, err := p.Mappings(); err != nil {
			t.Error(err)
			break
		}
	}
	close(stop)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func BenchmarkMappings(b *testing.B) {
	// 10,000 mappings: every second page may be read.
	area, err := unix.Mmap(-1, 0, 10000*int(PageSize), unix.PROT_NONE, anon)
	if err != nil {
		b.Fatal(err)
	}
	defer unix.Munmap(area)
	for at := 0; at < len(area); at += 2 * int(PageSize) {
		if err := unix.Mprotect(area[at:at+int(PageSize)], unix.PROT_READ); err != nil {
			b.Fatal(err)
		}
	}
	p := self(b)
	data, err := p.ReadFile("smaps")
	if err != nil {
		b.Fatal(err)
	}
	for name, f := range map[string]func() ([]Mapping, error){
		"Mappings": p.Mappings, "Maps": p.Maps, "parse": func() ([]Mapping, error) { return parseSmaps(data) },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if list, err := f(); err != nil || len(list) < 10000 {
					b.Fatal(len(list), err)
				}
			}
		})
	}
}
