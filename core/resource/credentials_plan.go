package resource

import (
	"fmt"
	"math/bits"
	"slices"

	"golang.org/x/sys/unix"
)

// becoming is a way from some credentials to others.
type becoming struct {
	now   credentials
	ns    *userNamespace
	calls []credCall
}

// become says by which calls a thread with the credentials from has those of
// to, and no more, at the end. The error wraps EPERM if there is no way, EINVAL
// if the user namespace does not know an id. The order is this: what needs
// rights comes before these are given up, and a change of the user, which
// takes rights away, is made with those kept.
func become(from, to *credentials, ns *userNamespace) ([]credCall, error) {
	b := &becoming{now: *from, ns: ns}
	if from.equal(to) {
		return nil, nil
	}
	steps := []func() error{
		func() error { return b.all(b.now.caps.inheritable | to.caps.inheritable) },
		func() error { return b.groupIDs(to) },
		func() error { return b.bounding(to) },
		func() error { return b.userIDs(to) },
		func() error { return b.ambient(to) },
		func() error { return b.securebits(to) },
		func() error {
			if t := to.caps; b.now.caps != t {
				return b.call(setCaps(t.inheritable, t.permitted, t.effective))
			}
			return nil
		},
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return nil, err
		}
	}
	if !b.now.equal(to) {
		return nil, fmt.Errorf("no way from %+v to %+v: %w", *from, *to, unix.EPERM)
	}
	return b.calls, nil
}

// call makes a call, by the rule.
func (b *becoming) call(c credCall) error {
	if err := c.rule(&b.now, b.ns); err != nil {
		return fmt.Errorf("%s: %w", c.name, err)
	}
	b.calls = append(b.calls, c)
	return nil
}

// all makes effective what is permitted.
func (b *becoming) all(inheritable uint64) error {
	if c := b.now.caps; c.effective != c.permitted || c.inheritable != inheritable {
		return b.call(setCaps(inheritable, c.permitted, c.permitted))
	}
	return nil
}

func (b *becoming) groupIDs(to *credentials) error {
	if !slices.Equal(b.now.groups, to.groups) {
		if err := b.call(setGroups(to.groups)); err != nil {
			return err
		}
	}
	if b.now.gid != to.gid {
		if err := b.call(setIDs(false, to.gid)); err != nil {
			return err
		}
	}
	if b.now.gid != to.gid {
		return b.call(setFileID(false, to.gid[fileID]))
	}
	return nil
}

func (b *becoming) bounding(to *credentials) error {
	for drop := b.now.caps.bounding &^ to.caps.bounding; drop != 0; drop &= drop - 1 {
		if err := b.call(dropBounding(bits.TrailingZeros64(drop))); err != nil {
			return err
		}
	}
	return nil
}

func (b *becoming) userIDs(to *credentials) error {
	if b.now.uid == to.uid {
		return nil
	}
	if b.now.secure&(secureKeepCaps|secureKeepCaps<<1|secureNoSetUIDFixup) == 0 {
		if err := b.call(keepCaps(true)); err != nil {
			return err
		}
	}
	if err := b.call(setIDs(true, to.uid)); err != nil {
		return err
	}
	if err := b.all(b.now.caps.inheritable); err != nil {
		return err
	}
	if b.now.uid == to.uid {
		return nil
	}
	if err := b.call(setFileID(true, to.uid[fileID])); err != nil {
		return err
	}
	return b.all(b.now.caps.inheritable)
}

func (b *becoming) ambient(to *credentials) error {
	if b.now.caps.ambient == to.caps.ambient {
		return nil
	}
	if err := b.call(clearAmbient()); err != nil {
		return err
	}
	for raise := to.caps.ambient; raise != 0; raise &= raise - 1 {
		if err := b.call(raiseAmbient(bits.TrailingZeros64(raise))); err != nil {
			return err
		}
	}
	return nil
}

func (b *becoming) securebits(to *credentials) error {
	switch b.now.secure ^ to.secure {
	case 0:
		return nil
	case secureKeepCaps:
		return b.call(keepCaps(to.secure&secureKeepCaps != 0))
	}
	return b.call(setSecureBits(to.secure))
}
