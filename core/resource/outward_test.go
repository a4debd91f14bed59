package resource

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/image"
)

func TestOutwards(t *testing.T) {
	pipe := func(standard int32, flags uint32) *externalRecord {
		return &externalRecord{Mode: unix.S_IFIFO | 0o600, Flags: flags, Standard: standard, Path: "pipe:[1]"}
	}
	address := &inetRecord{Domain: unix.AF_INET, State: unix.BPF_TCP_ESTABLISHED, Connected: 1, Peer: inetAddress{IP: [16]byte{10, 0, 0, 1}, Port: 80}}
	var o Outwards
	for _, rec := range []struct {
		parent uint32
		value  any
	}{
		{77, &image.Files{}},
		{0, &image.FDEntry{ObjRef: 1, FD: 1}}, {1, pipe(1, unix.O_WRONLY)},
		{0, &image.FDEntry{ObjRef: 1, FD: 2}},
		{0, &image.FDEntry{ObjRef: 1, FD: 5}},
		{0, &image.FDEntry{ObjRef: 2, FD: 6}}, {2, pipe(-1, unix.O_RDONLY)},
		{0, &image.FDEntry{ObjRef: 2, FD: 7}},
		{0, &image.FDEntry{ObjRef: 3, FD: 8}}, {3, &externalRecord{Mode: unix.S_IFCHR, Rdev: unix.Mkdev(10, 1), Flags: unix.O_RDWR, Standard: -1, Path: "/dev/psaux"}},
		{0, &image.FDEntry{ObjRef: 4, FD: 9}}, {4, address}, {4, &tcpConnectionRecord{Flags: hasRepair}},
		{0, &image.FDEntry{ObjRef: 5, FD: 10}}, {5, address}, {5, &tcpConnectionRecord{Flags: insideConnection}},
		{0, &image.FDEntry{ObjRef: 6, FD: 11}}, {6, address}, {6, &tcpConnectionRecord{Flags: gotFIN}},
		{0, &image.FDEntry{ObjRef: 7, FD: 12}}, {7, &inetRecord{State: unix.BPF_TCP_CLOSE, Connected: 1}}, {7, &tcpConnectionRecord{}},
		{78, &image.Files{}},
		{0, &image.FDEntry{ObjRef: 2, FD: 3}},
	} {
		o.Add(rec.parent, rec.value)
	}
	say := []string{InheritFD, NullFD, HangupFD, CloseFD}
	want := []Outward{
		{Task: 77, FD: 1, What: "pipe", Access: "write", Name: "pipe:[1]", Standard: 1, With: -1},
		{Task: 77, FD: 2, What: "pipe", Access: "write", Name: "pipe:[1]", Standard: 2, With: -1},
		{Task: 77, FD: 5, What: "pipe", Access: "write", Name: "pipe:[1]", Standard: 1, With: 1},
		{Task: 77, FD: 6, What: "pipe", Access: "read", Name: "pipe:[1]", Standard: -1, With: -1, Say: say},
		{Task: 77, FD: 7, What: "pipe", Access: "read", Name: "pipe:[1]", Standard: -1, With: 6},
		{Task: 77, FD: 8, What: "device", Access: "read and write", Name: "/dev/psaux", Standard: -1, With: -1, Say: []string{InheritFD, NullFD, CloseFD}},
		{Task: 77, FD: 9, What: "TCP connection", Access: "read and write", Name: "10.0.0.1:80", Standard: -1, With: -1, Keep: true},
		{Task: 77, FD: 11, What: "TCP connection", Access: "read and write", Name: "10.0.0.1:80", Standard: -1, With: -1},
		{Task: 78, FD: 3, What: "pipe", Access: "read", Name: "pipe:[1]", Standard: -1, With: 6},
	}
	if diff := cmp.Diff(want, o.List); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	var says []string
	for i := range o.List {
		says = append(says, o.List[i].Decision())
	}
	wantSays := []string{"the restarter's fd 1", "the restarter's fd 2", "as fd 1", "--fd has to say", "as fd 6", "--fd has to say",
		"reset, or kept by --tcp keep", "reset", "as fd 6"}
	if diff := cmp.Diff(wantSays, says); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
