package resource

import (
	"errors"
	"fmt"
	"math/bits"
	"os"
	"runtime"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/crshim/crshim/tracer/procfs"
)

// everybody is the first user namespace.
var everybody = &userNamespace{uids: procfs.IDs{{Count: ^uint32(0)}}, gids: procfs.IDs{{Count: ^uint32(0)}}, groups: true}

const allCaps = 1<<41 - 1

func userCredentials(uid uint32, caps capabilities, groups ...uint32) *credentials {
	return &credentials{uid: [4]uint32{uid, uid, uid, uid}, gid: [4]uint32{uid, uid, uid, uid}, groups: groups, caps: caps}
}

func rootCredentials() *credentials {
	return userCredentials(0, capabilities{permitted: allCaps, effective: allCaps, bounding: allCaps})
}

func with(c *credentials, change func(*credentials)) *credentials {
	d := *c
	change(&d)
	return &d
}

func TestBecome(t *testing.T) {
	root, user := rootCredentials(), userCredentials(1000, capabilities{bounding: allCaps})
	one := &userNamespace{uids: procfs.IDs{{Inside: 0, Outside: 1000, Count: 1}}, gids: procfs.IDs{{Inside: 0, Outside: 1000, Count: 1}}}
	saved := with(user, func(c *credentials) { c.uid[savedID] = 1001 })
	for _, x := range []struct {
		name     string
		from, to *credentials
		ns       *userNamespace
		err      error
	}{
		{"the same", user, user, everybody, nil},
		{"root becomes a user", root, user, everybody, nil},
		{"with groups", root, userCredentials(1000, capabilities{bounding: allCaps}, 4, 27), everybody, nil},
		{"a user does not become root", user, root, everybody, unix.EPERM},
		{"nor another user", user, userCredentials(1001, user.caps), everybody, unix.EPERM},
		{"but the one it has saved", saved, with(saved, func(c *credentials) { c.uid[effectiveID], c.uid[fileID] = 1001, 1001 }), everybody, nil},
		{"a user does not take a group", user, userCredentials(1000, user.caps, 4), everybody, unix.EPERM},
		{"nor give one up", userCredentials(1000, user.caps, 4), user, everybody, unix.EPERM},
		{"nor drops from its bounding set", user, userCredentials(1000, capabilities{bounding: 1}), everybody, unix.EPERM},
		{"nor takes a capability", user, userCredentials(1000, capabilities{permitted: 1, bounding: allCaps}), everybody, unix.EPERM},
		{"root keeps one", root, userCredentials(1000, capabilities{permitted: 1 << 10, effective: 1 << 10, bounding: allCaps}), everybody, nil},
		{"and hands it on", root, userCredentials(1000, capabilities{1 << 10, 1 << 10, 1 << 10, 1 << 10, 1 << 10}), everybody, nil},
		{"and one without bounding", root, userCredentials(1000, capabilities{inheritable: 1 << 10}), everybody, nil},
		{"a bounding set does not grow", userCredentials(0, capabilities{permitted: 1 << 8, effective: 1 << 8}), root, everybody, unix.EPERM},
		{"capabilities that are not effective count", with(root, func(c *credentials) { c.caps.effective = 0 }), user, everybody, nil},
		{"an id that is not mapped", root, user, one, unix.EINVAL},
		{"groups where they are denied", root, with(root, func(c *credentials) { c.groups = []uint32{0} }), one, unix.EPERM},
		{"securebits", root, with(user, func(c *credentials) { c.secure = 0xef }), everybody, nil},
		{"securebits that are locked", with(root, func(c *credentials) { c.secure = 3 }), root, everybody, unix.EPERM},
		{"keepcaps needs nothing", user, with(user, func(c *credentials) { c.secure = secureKeepCaps }), everybody, nil},
		{"nor do the bits for interpreters", user, with(user, func(c *credentials) { c.secure = secureExecRestrict * 3 }), everybody, nil},
		{"other bits do", user, with(user, func(c *credentials) { c.secure = 1 }), everybody, unix.EPERM},
	} {
		calls, err := become(x.from, x.to, x.ns)
		if !errors.Is(err, x.err) {
			t.Errorf("%s: %v, want %v", x.name, err, x.err)
		}
		if x.from.equal(x.to) != (err == nil && len(calls) == 0) {
			t.Errorf("%s: %d calls", x.name, len(calls))
		}
	}
}

// drawCall draws a call about credentials, with numbers that come again.
func drawCall(t *rapid.T, known uint64) credCall {
	id := rapid.SampledFrom([]uint32{0, 1000, 1001, 1002})
	caps := rapid.Custom(func(t *rapid.T) uint64 {
		v := rapid.SampledFrom([]uint64{0, known, setUIDBit | setGIDBit, setPCapBit, 1 << 10, fileCaps}).Draw(t, "caps")
		return v &^ rapid.SampledFrom([]uint64{0, setPCapBit, setUIDBit, 1}).Draw(t, "less")
	})
	cap := rapid.SampledFrom([]int{0, 6, 7, 8, 10})
	ids := func() [4]uint32 {
		return [4]uint32{id.Draw(t, "real"), id.Draw(t, "effective"), id.Draw(t, "saved")}
	}
	switch rapid.IntRange(0, 9).Draw(t, "call") {
	case 0:
		groups := rapid.SliceOfNDistinct(id, 0, 3, rapid.ID).Draw(t, "groups")
		slices.Sort(groups)
		return setGroups(groups)
	case 1:
		return setIDs(false, ids())
	case 2:
		return setFileID(false, id.Draw(t, "id"))
	case 3:
		return setFileID(true, id.Draw(t, "id"))
	case 4:
		return setCaps(caps.Draw(t, "inheritable"), caps.Draw(t, "permitted"), caps.Draw(t, "effective"))
	case 5:
		return dropBounding(cap.Draw(t, "capability"))
	case 6:
		return clearAmbient()
	case 7:
		return raiseAmbient(cap.Draw(t, "capability"))
	case 8:
		return setSecureBits(rapid.Uint32Range(0, secureBitsKnown()).Draw(t, "bits"))
	}
	return setIDs(true, ids())
}

// ownCredentials are those of the calling thread.
func ownCredentials() (*credentials, error) {
	p, err := procfs.OpenThread(procfs.PID(os.Getpid()), procfs.PID(unix.Gettid()))
	if err != nil {
		return nil, err
	}
	defer p.Close()
	status, err := p.Status()
	if err != nil {
		return nil, err
	}
	c, _, err := (&View{Proc: p}).credentials(status)
	if err != nil {
		return nil, err
	}
	secure, err := unix.PrctlRetInt(unix.PR_GET_SECUREBITS, 0, 0, 0, 0)
	c.secure = uint32(secure)
	return c, err
}

// onThread runs fn on a thread that ends with it.
func onThread(t *rapid.T, fn func() error) {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for good
		done <- fn()
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// The kernel does what the rules say, call by call; and what it has come to by
// any calls, become comes to as well.
func TestRulesAreThoseOfTheKernel(t *testing.T) {
	known, err := knownCaps()
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 12).Draw(t, "calls")
		calls := make([]credCall, n)
		for i := range calls {
			calls[i] = drawCall(t, known)
		}
		var from, to *credentials
		onThread(t, func() (err error) {
			if from, err = ownCredentials(); err != nil {
				return err
			}
			model := *from
			for _, c := range calls {
				said := c.rule(&model, everybody)
				did := c.run()
				if silent := c.nr == unix.SYS_SETFSUID || c.nr == unix.SYS_SETFSGID; !silent && !errors.Is(did, said) {
					return fmt.Errorf("%s: the kernel says %v, the rule %v", c.name, did, said)
				}
				now, err := ownCredentials()
				if err != nil {
					return err
				}
				if !now.equal(&model) {
					return fmt.Errorf("%s: the kernel has %+v, the rule %+v", c.name, *now, model)
				}
			}
			to = &model
			return nil
		})
		plan, err := become(from, to, everybody)
		if err != nil {
			t.Fatalf("no way to what %d calls came to: %v", n, err)
		}
		if most := 2*bits.OnesCount64(known) + 12; len(plan) > most {
			t.Fatalf("%d calls are more than %d", len(plan), most)
		}
		onThread(t, func() error {
			for _, c := range plan {
				if err := c.run(); err != nil {
					return fmt.Errorf("%s: %w", c.name, err)
				}
			}
			now, err := ownCredentials()
			if err == nil && !now.equal(to) {
				err = fmt.Errorf("became %+v, not %+v", *now, *to)
			}
			return err
		})
	})
}
