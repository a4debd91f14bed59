package resource

import (
	"encoding/binary"
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// ownUnix asks about a socket of ours by both ways.
func ownUnix(t *testing.T, diag *os.File, fd int) *unixFact {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		t.Fatal(err)
	}
	facts, err := readUnixFacts(diag)
	if err != nil {
		t.Fatal(err)
	}
	one, err := askUnix(diag, st.Ino)
	if errors.Is(err, errNotTold) || errors.Is(err, unix.EPERM) {
		t.Skip("needs: unix_diag")
	}
	if err != nil {
		t.Fatal(err)
	}
	all := facts[st.Ino]
	if all == nil || all.Peer != one.Peer || string(all.Name) != string(one.Name) || len(all.Waiting) != len(one.Waiting) || all.Shutdown != one.Shutdown {
		t.Errorf("among all %+v, alone %+v", all, one)
	}
	return one
}

func TestUnixFacts(t *testing.T) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		t.Fatal(err)
	}
	diag := os.NewFile(uintptr(fd), "unix_diag")
	defer diag.Close()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[0])
	var st unix.Stat_t
	if err := unix.Fstat(pair[1], &st); err != nil {
		t.Fatal(err)
	}
	if err := unix.Shutdown(pair[1], unix.SHUT_WR); err != nil {
		t.Fatal(err)
	}
	fact := ownUnix(t, diag, pair[0])
	if !fact.Connected || fact.Peer != st.Ino || fact.Shutdown != rcvShutdown || fact.HasFile || fact.Name != nil {
		t.Errorf("of a pair %+v, peer is %d", fact, st.Ino)
	}
	if err := unix.Close(pair[1]); err != nil {
		t.Fatal(err)
	}
	if fact := ownUnix(t, diag, pair[0]); !fact.Connected || fact.Peer != 0 || fact.Shutdown != rcvShutdown|sendShutdown {
		t.Errorf("of one whose peer is closed %+v", fact)
	}

	path := t.TempDir() + "/s"
	listening, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(listening)
	client, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(client)
	err = errors.Join(unix.Bind(listening, &unix.SockaddrUnix{Name: path}), unix.Listen(listening, 7),
		unix.Connect(client, &unix.SockaddrUnix{Name: path}), unix.Fstat(client, &st))
	if err != nil {
		t.Fatal(err)
	}
	fact = ownUnix(t, diag, listening)
	if fact.State != tcpListen || fact.Backlog != 7 || len(fact.Waiting) != 1 || fact.Waiting[0] != st.Ino || string(fact.Name) != path+"\x00" {
		t.Errorf("of one that listens %+v", fact)
	}
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	if !fact.HasFile || fact.FileIno != uint32(st.Ino) || fact.FileDev != st.Dev {
		t.Errorf("its file %d of %#x, stat says %d of %#x", fact.FileIno, fact.FileDev, st.Ino, st.Dev)
	}
	if _, err := askUnix(diag, 1<<31); !errors.Is(err, errNotTold) {
		t.Errorf("of one that is not there: %v", err)
	}
}

// FuzzUnixFact: whatever the answer, it is understood or refused.
func FuzzUnixFact(f *testing.F) {
	message := func(kind uint16, body []byte) []byte {
		b := binary.NativeEndian.AppendUint32(nil, uint32(16+len(body)))
		b = binary.NativeEndian.AppendUint16(b, kind)
		return append(append(b, make([]byte, 10)...), body...)
	}
	f.Add(message(unix.NLMSG_DONE, nil))
	f.Add(message(unix.NLMSG_ERROR, []byte{0xfe, 0xff, 0xff, 0xff}))
	f.Add(message(sockDiagByFamily, append(make([]byte, 16), 8, 0, unixDiagPeer, 0, 1, 2, 3, 4)))
	f.Add(message(sockDiagByFamily, append(make([]byte, 16), 5, 0, unixDiagVFS, 0, 1)))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, fact, rest, err := parseUnixFact(b)
		if err != nil && fact != nil {
			t.Errorf("both %+v and %v", fact, err)
		}
		if len(rest) > len(b)-unix.SizeofNlMsghdr && err == nil {
			t.Errorf("%d bytes left of %d", len(rest), len(b))
		}
	})
}

// TestUnixRecordsChecked: what no checkpoint writes is refused before anything
// is made of it.
func TestUnixRecordsChecked(t *testing.T) {
	good := func() []*unixSocketRecord {
		name := func(rec *unixSocketRecord, s string) *unixSocketRecord {
			rec.NameLen = uint32(copy(rec.Name[:], s))
			return rec
		}
		return []*unixSocketRecord{
			{Ino: 1, Peer: 2, Type: unix.SOCK_STREAM, State: unixConnected},
			{Ino: 2, Peer: 1, Type: unix.SOCK_STREAM, State: unixConnected, Options: []unixOption{{unix.SO_SNDBUF, 4608}}},
			name(&unixSocketRecord{Ino: 3, Type: unix.SOCK_STREAM, State: unixListening, Named: unixPath, Mode: 0o777}, "/s"),
			{Ino: 4, Peer: 5, Type: unix.SOCK_STREAM, State: unixConnected},
			name(&unixSocketRecord{Ino: 5, Peer: 4, Listener: 3, Type: unix.SOCK_STREAM, State: unixConnected, Named: unixPath}, "/s"),
			{Ino: 6, Listener: 3, Type: unix.SOCK_STREAM, State: unixWaiting},
			name(&unixSocketRecord{Ino: 7, Type: unix.SOCK_DGRAM, Named: unixAbstract}, "a"),
			{Ino: 8, Peer: 7, Type: unix.SOCK_DGRAM, State: unixConnected},
			{Ino: 9, Type: unix.SOCK_SEQPACKET, State: unixOrphaned, Shutdown: 3, Reset: 1},
		}
	}
	check := func(all []*unixSocketRecord) error {
		r := &unixRestore{byIno: make(map[uint64]*stagedUnix)}
		for _, rec := range all {
			if err := rec.check(); err != nil {
				return err
			}
			u := &stagedUnix{rec: rec}
			r.sockets, r.byIno[rec.Ino] = append(r.sockets, u), u
		}
		for _, u := range r.sockets {
			if err := r.checkRelations(u); err != nil {
				return err
			}
		}
		return nil
	}
	if err := check(good()); err != nil {
		t.Fatalf("good records: %v", err)
	}
	for name, spoil := range map[string]func(r []*unixSocketRecord){
		"type":                 func(r []*unixSocketRecord) { r[0].Type = unix.SOCK_RAW },
		"state":                func(r []*unixSocketRecord) { r[0].State = unixStates },
		"no inode":             func(r []*unixSocketRecord) { r[0].Ino = 0 },
		"shutdown":             func(r []*unixSocketRecord) { r[0].Shutdown = 4 },
		"name too long":        func(r []*unixSocketRecord) { r[2].NameLen = sunPathSize + 1 },
		"name empty":           func(r []*unixSocketRecord) { r[2].NameLen = 0 },
		"name without a kind":  func(r []*unixSocketRecord) { r[2].Named = unixNoName },
		"NUL in a path":        func(r []*unixSocketRecord) { r[2].Name[1] = 0 },
		"mode":                 func(r []*unixSocketRecord) { r[2].Mode = 0o10000 },
		"peer missing":         func(r []*unixSocketRecord) { r[0].Peer = 77 },
		"peer of another type": func(r []*unixSocketRecord) { r[0].Type = unix.SOCK_SEQPACKET },
		"peer elsewhere":       func(r []*unixSocketRecord) { r[1].Peer = 4 },
		"peer not connected":   func(r []*unixSocketRecord) { r[1].State = unixAlone },
		"itself":               func(r []*unixSocketRecord) { r[0].Peer = 1 },
		"listener missing":     func(r []*unixSocketRecord) { r[5].Listener = 0 },
		"listener of both":     func(r []*unixSocketRecord) { r[3].Listener = 3 },
		"listener not one":     func(r []*unixSocketRecord) { r[4].Listener = 1 },
		"listener nameless":    func(r []*unixSocketRecord) { r[2].Named, r[2].NameLen = unixNoName, 0 },
		"datagrams listening":  func(r []*unixSocketRecord) { r[6].State = unixListening },
		"one way to no name":   func(r []*unixSocketRecord) { r[6].Named, r[6].NameLen = unixNoName, 0 },
		"reset of a live one":  func(r []*unixSocketRecord) { r[0].Reset = 1 },
		"unknown option":       func(r []*unixSocketRecord) { r[1].Options[0].Option = unix.SO_ATTACH_FILTER },
		"option twice":         func(r []*unixSocketRecord) { r[1].Options = append(r[1].Options, r[1].Options[0]) },
		"timeout":              func(r []*unixSocketRecord) { r[0].Timeouts[1] = 1e6 },
		"negative timeout":     func(r []*unixSocketRecord) { r[0].Timeouts[0] = -1 },
	} {
		all := good()
		spoil(all)
		if err := check(all); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
