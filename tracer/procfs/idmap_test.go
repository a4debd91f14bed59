package procfs

import (
	"os"
	"testing"
)

func TestParseIDs(t *testing.T) {
	same(t, parseIDs, "         0       1000          1\n         1     100000      65536\n", IDs{{0, 1000, 1}, {1, 100000, 65536}})
	same(t, parseIDs, "0 0 4294967295\n", IDs{{0, 0, 4294967295}})
	same(t, parseIDs, "", nil)
	refused(t, parseIDs, "0 0\n", "0 0 x\n", "0 0 1 1\n", "0 0 4294967296\n")
	same(t, onlyLine(allowed), "allow\n", true)
	same(t, onlyLine(allowed), "deny\n", false)
	refused(t, onlyLine(allowed), "", "perhaps\n")
}

func TestIDs(t *testing.T) {
	ids := IDs{{0, 1000, 1}, {1, 100000, 65536}}
	for outside, want := range map[uint32]int64{1000: 0, 100000: 1, 165535: 65536, 165536: -1, 999: -1, 0: -1, 4294967295: -1} {
		inside, ok := ids.In(outside)
		if ok != (want >= 0) || ok && int64(inside) != want {
			t.Errorf("In(%d) = %d, %v; want %d", outside, inside, ok, want)
		}
	}
	for inside, want := range map[uint32]bool{0: true, 1: true, 65536: true, 65537: false, 4294967295: false} {
		if ids.Has(inside) != want {
			t.Errorf("Has(%d) = %v", inside, !want)
		}
	}
	if all := (IDs{{0, 0, 4294967295}}); all.Has(4294967295) || !all.Has(4294967294) {
		t.Error("the first namespace knows all ids but -1")
	}
}

func TestOwnIDs(t *testing.T) {
	p, err := Open(PID(os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	uids, err := p.UIDs()
	if err != nil || !uids.Has(uint32(os.Getuid())) {
		t.Errorf("UIDs() = %v, %v", uids, err)
	}
	gids, err := p.GIDs()
	if err != nil || !gids.Has(uint32(os.Getgid())) {
		t.Errorf("GIDs() = %v, %v", gids, err)
	}
	if _, err := p.MaySetGroups(); err != nil {
		t.Error(err)
	}
}
