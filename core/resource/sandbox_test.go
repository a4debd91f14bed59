package resource

import (
	"bytes"
	"errors"
	"testing"
)

func filterOf(code ...byte) []*sandboxFilter {
	return []*sandboxFilter{{filterRecord{ID: 1, Length: uint32(len(code) / insnSize)}, code}}
}

// TestTryFilters: the kernel's word on filters, without one that stays.
func TestTryFilters(t *testing.T) {
	load := []byte{0x20, 0, 0, 0, 4, 0, 0, 0}
	for name, c := range map[string]struct {
		code []byte
		bad  bool
	}{
		"allow":            {allowAll, false},
		"kill":             {make8(0x06), false},
		"load":             {append(bytes.Clone(load), allowAll...), false},
		"no return":        {load, true},
		"jump behind":      {append([]byte{0x05, 0, 0, 0, 9, 0, 0, 0}, allowAll...), true},
		"load behind":      {append([]byte{0x20, 0, 0, 0, 64, 0, 0, 0}, allowAll...), true},
		"not of seccomp":   {append([]byte{0x30, 0, 0, 0, 4, 0, 0, 0}, allowAll...), true},
		"division by zero": {append(make8(0x34), allowAll...), true},
		"memory unset":     {append(make8(0x60), allowAll...), true},
		"longest":          {bytes.Repeat(allowAll, 4096), false},
		"too long":         {bytes.Repeat(allowAll, 4097), true},
	} {
		if err := tryFilters(filterOf(c.code...)); errors.Is(err, errBadFilter) != c.bad || err != nil && !c.bad {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func make8(op byte) []byte { return []byte{op, 0, 0, 0, 0, 0, 0, 0} }

func TestAsksOthers(t *testing.T) {
	for name, c := range map[string]struct {
		code []byte
		asks bool
	}{
		"allow":    {allowAll, false},
		"errno":    {[]byte{6, 0, 0, 0, 1, 0, 5, 0}, false},
		"trace":    {[]byte{6, 0, 0, 0, 0, 0, 0xf0, 0x7f}, false},
		"listener": {append(bytes.Clone(allowAll), 6, 0, 0, 0, 0, 0, 0xc0, 0x7f), true},
		"data":     {[]byte{6, 0, 0, 0, 7, 0, 0xc0, 0x7f}, true},
		"computed": {make8(0x16), true},
	} {
		if why := asksOthers(c.code); (why != "") != c.asks {
			t.Errorf("%s: %q", name, why)
		}
	}
}
