package procfs

import (
	"bytes"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// contract parses data and checks what every parser promises: an error wraps
// ErrFormat and comes with the zero value, the input is left alone, and the
// same bytes give the same value. It is false after an error.
func contract[T any](t *testing.T, parse func([]byte) (T, error), data []byte) (T, bool) {
	t.Helper()
	before := bytes.Clone(data)
	v, err := parse(data)
	if !bytes.Equal(before, data) {
		t.Fatal("the parser changed its input")
	}
	if err != nil {
		if !errors.Is(err, ErrFormat) {
			t.Fatalf("error does not wrap ErrFormat: %v", err)
		}
		if !reflect.ValueOf(&v).Elem().IsZero() {
			t.Fatalf("error %v with a value: %+v", err, v)
		}
		return v, false
	}
	again, err := parse(before)
	if err != nil || !reflect.DeepEqual(v, again) {
		t.Fatalf("a second parse gave %+v, %v after %+v", again, err, v)
	}
	return v, true
}

func seeds(f *testing.F, texts ...string) {
	for _, s := range texts {
		f.Add([]byte(s))
	}
}

func FuzzStatus(f *testing.F) {
	seeds(f, sampleStatus, sampleZombie)
	f.Fuzz(func(t *testing.T, data []byte) {
		s, ok := contract(t, parseStatus, data)
		if !ok {
			return
		}
		if s.State == 0 || !s.Has("Name") || !s.Has("Pid") || s.Threads < 0 || s.FDSize < 0 {
			t.Fatalf("inconsistent: %+v", s)
		}
		if !s.Has("VmRSS") && s.VmRSS != 0 {
			t.Fatal("VmRSS out of nowhere")
		}
		if len(s.Extra) > bytes.Count(data, []byte{'\n'})+1 {
			t.Fatalf("%d extra lines", len(s.Extra))
		}
	})
}

func FuzzStat(f *testing.F) {
	seeds(f, sampleStat)
	f.Fuzz(func(t *testing.T, data []byte) {
		s, ok := contract(t, parseStat, data)
		if !ok {
			return
		}
		if s.State == 0 || !bytes.Contains(data, []byte("("+s.Comm+")")) {
			t.Fatalf("comm %q and state %c are not in the input", s.Comm, s.State)
		}
	})
}

// ordered checks the promises on a list of mappings and that their maps
// lines parse back into them.
func ordered(t *testing.T, list []Mapping) {
	t.Helper()
	var b strings.Builder
	plain := make([]Mapping, 0, len(list))
	for i, m := range list {
		if m.Start >= m.End || i > 0 && list[i-1].End > m.Start {
			t.Fatalf("mapping %d out of order: %v", i, m.Range)
		}
		if m.Deleted && m.Inode == 0 {
			t.Fatalf("mapping %v deleted without a file", &m)
		}
		b.WriteString(strings.ReplaceAll(m.String(), "\n", `\012`) + "\n")
		plain = append(plain, Mapping{Range: m.Range, Perms: m.Perms, Offset: m.Offset,
			Major: m.Major, Minor: m.Minor, Inode: m.Inode, Name: m.Name, Deleted: m.Deleted})
	}
	again, err := parseMaps([]byte(b.String()))
	if err != nil || !reflect.DeepEqual(plain, again) {
		t.Fatalf("printed and parsed: %v\n%+v\n%+v", err, plain, again)
	}
}

func FuzzMaps(f *testing.F) {
	seeds(f, sampleMaps)
	f.Fuzz(func(t *testing.T, data []byte) {
		if list, ok := contract(t, parseMaps, data); ok {
			ordered(t, list)
		}
	})
}

func FuzzSmaps(f *testing.F) {
	seeds(f, sampleSmaps, sampleMaps)
	f.Fuzz(func(t *testing.T, data []byte) {
		list, ok := contract(t, parseSmaps, data)
		if !ok {
			return
		}
		ordered(t, list)
		for _, m := range list {
			for _, letters := range m.UnknownFlags {
				if slices.Contains(vmFlagLetters[:], letters) {
					t.Fatalf("%q is known", letters)
				}
			}
			if again, unknown := parseVMFlags([]byte(m.Flags.String())); again != m.Flags || unknown != nil {
				t.Fatalf("flags %v parse back as %v and %v", m.Flags, again, unknown)
			}
		}
	})
}

func FuzzFDInfo(f *testing.F) {
	seeds(f, sampleFDInfo)
	f.Fuzz(func(t *testing.T, data []byte) {
		info, ok := contract(t, parseFDInfo, data)
		if !ok {
			return
		}
		if info.mntID < 0 {
			t.Fatalf("mount %d", info.mntID)
		}
		for _, e := range info.extra {
			if strings.Contains(e.Key+e.Value, "\n") || strings.Contains(e.Key, ":") {
				t.Fatalf("field %q", e)
			}
		}
	})
}

func FuzzTimers(f *testing.F) {
	seeds(f, sampleTimers)
	f.Fuzz(func(t *testing.T, data []byte) {
		list, _ := contract(t, parseTimers, data)
		if len(list) > bytes.Count(data, []byte("ID"))/2 { // ID and ClockID
			t.Fatalf("%d timers", len(list))
		}
		for _, timer := range list {
			switch timer.Notify {
			case NotifySignal, NotifyNone, NotifyThread:
			default:
				t.Fatalf("notification %q", timer.Notify)
			}
		}
	})
}

func FuzzLimits(f *testing.F) {
	seeds(f, sampleLimits)
	f.Fuzz(func(t *testing.T, data []byte) {
		list, ok := contract(t, parseLimits, data)
		if !ok {
			return
		}
		if len(list) != len(limitNames) {
			t.Fatalf("%d limits", len(list))
		}
		for i, l := range list {
			if l.Resource != i || l.Name != limitNames[i] {
				t.Fatalf("limit %d is %+v", i, l)
			}
		}
	})
}

func FuzzSyscall(f *testing.F) {
	seeds(f, "running\n", "-1 0x7ffc2a709128 0x7eff4ad2a2ad\n", "0 0x3 0x7eff 0x20000 0x7e 0xff 0x0 0x7ffc 0x7eff\n")
	f.Fuzz(func(t *testing.T, data []byte) {
		s, ok := contract(t, parseSyscall, data)
		if ok && s.Running && s != (Syscall{Running: true}) {
			t.Fatalf("running, and yet %+v", s)
		}
		if ok && s.Nr == -1 && s.Args != [6]uint64{} {
			t.Fatalf("no call, and yet %+v", s)
		}
	})
}

func FuzzCgroups(f *testing.F) {
	seeds(f, sampleCgroup)
	f.Fuzz(func(t *testing.T, data []byte) {
		list, _ := contract(t, parseCgroups, data)
		for _, c := range list {
			if !strings.HasPrefix(c.Path, "/") && !c.Deleted || c.Hierarchy < 0 {
				t.Fatalf("group %+v", c)
			}
		}
	})
}

func FuzzSched(f *testing.F) {
	seeds(f, sampleSched)
	f.Fuzz(func(t *testing.T, data []byte) {
		if start, ok := contract(t, parseSched, data); ok && (start.at < 0 || !start.told && start.at != 0) {
			t.Fatalf("start %+v", start)
		}
	})
}

func FuzzChildren(f *testing.F) {
	seeds(f, "12 13 400000 ", "")
	f.Fuzz(func(t *testing.T, data []byte) {
		list, _ := contract(t, parseChildren, data)
		for _, pid := range list {
			if pid < 0 {
				t.Fatalf("pid %d", pid)
			}
		}
	})
}

func FuzzNS(f *testing.F) {
	seeds(f, "pid:[4026531836]")
	f.Fuzz(func(t *testing.T, data []byte) { contract(t, parseNS, data) })
}

func FuzzStrings(f *testing.F) {
	seeds(f, "", "\x00", "a\x00b\x00", "a")
	f.Fuzz(func(t *testing.T, data []byte) {
		list, ok := contract(t, parseStrings, data)
		joined := strings.Join(list, "\x00")
		if !ok || joined != string(data) && joined+"\x00" != string(data) {
			t.Fatalf("%q from %q", list, data)
		}
	})
}
