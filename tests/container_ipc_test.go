package tests

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"
	"testing"

	"github.com/crshim/crshim/core/image"
)

// TestContainerIPC saves a container with objects of System V and POSIX IPC three
// times: ids, keys, contents, order and limits are what they were.
func TestContainerIPC(t *testing.T) {
	eachUser(t, func(t *testing.T, u user) {
		needsContainers(t, u)
		for _, options := range [][]string{nil, {"--user", "keep"}} {
			e := newEnv(t, u)
			j := e.inContainer(streams{}, append(append([]string{"--name", "one"}, options...), program(t, glibc, "callers", "ipcs"))...)
			for i := range 3 {
				e.goesOn()
				j = e.containerAgain(j, e.nth("img", i))
			}
			// Messages that were only looked at are where they were.
			e.verb("checkpoint", "one", "-o", "last").ends("exit status 0")
			e.goesOn()
			e.write(e.path("stop"), "")
			j.ends("exit status 7")
			if text := j.output(); text != "" {
				t.Errorf("%v: %s", options, text)
			}
		}
	})
}

// TestContainerIPCBad restarts images of a container in which what its namespaces
// hold is wrong: it is said to be the image's fault, and nothing runs.
func TestContainerIPCBad(t *testing.T) {
	u := users()[len(users())-1]
	needsContainers(t, u)
	e := newEnv(t, u)
	j := e.inContainer(streams{}, "--name", "one", program(t, glibc, "callers", "ipcs"))
	e.goesOn()
	e.verb("checkpoint", "--kill", "one", "-o", "img").ends("exit status 0")
	j.ends("signal: killed")
	n := e.count()
	raw := readRaw(t, e.path("img"))
	const setting, segment, set, message, mqueue = 6720, 6721, 6722, 6724, 6725
	u32 := func(v uint32) []byte { return binary.LittleEndian.AppendUint32(nil, v) }
	for _, c := range []struct {
		what   string
		kind   image.Kind
		offset int64
		value  []byte
	}{
		{"a setting of the network, which is the host's", setting, 0, []byte("net/ipv4/ip_forward=1111111111111")}, // as long as that of kernel/shmmax
		{"a setting that is none", setting, 0, []byte("kernel/shmmax=../../../../../../x")},
		{"the id -1", segment, 0, u32(1<<32 - 1)},
		{"more than permissions", segment, 8, u32(0o100644)},
		{"no bytes", segment, 32, make([]byte, 8)},
		{"fewer bytes than follow", segment, 32, append(u32(100), 0, 0, 0, 0)},
		{"more than permissions of a set", set, 8, u32(0o4600)},
		{"a message without type", message, 0, make([]byte, 8)},
		{"a message of a negative type", message, 0, bytes.Repeat([]byte{0xff}, 8)},
		{"a queue for no messages", mqueue, 0, make([]byte, 8)},
		{"more messages than there are", mqueue, 28, u32(1 << 20)},
		{"a queue in another directory", mqueue, 32, []byte("../him-test")},
	} {
		bad := slices.Clone(raw.bytes)
		rec := raw.find(c.kind, 0)
		copy(bad[rec.Offset+8+c.offset:], c.value)
		e.write(e.path("bad"), string(raw.signed(bad)))
		j := e.verb("restart", "bad")
		j.ends("exit status 125")
		if text := j.output(); !strings.Contains(text, "CR2013") {
			t.Errorf("%s: %s", c.what, text)
		}
	}
	// By restart(2) the objects are not made, and so they must be there.
	in := e.inContainer(streams{}, "--init", "none", "sh", "-c", "exec "+mustSamples(t).path("rstr")+" <img")
	in.ends("exit status 1")
	if text := in.output(); !strings.Contains(text, "CR3128") {
		t.Errorf("restart(2) in another container: %s", text)
	}
	if now := e.count(); now != n {
		t.Errorf("it has counted from %d to %d", n, now)
	}
}
