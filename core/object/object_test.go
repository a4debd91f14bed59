package object

import (
	"errors"
	"math/rand"
	"testing"
)

func TestSavedGivesOneReferencePerObject(t *testing.T) {
	s := NewSaved()
	a, first := s.Add(OpenFile, int32(3))
	if a != 1 || !first {
		t.Fatalf("first object: ref %d, first %v", a, first)
	}
	if again, first := s.Add(OpenFile, int32(3)); again != a || first {
		t.Errorf("second sight: ref %d, first %v", again, first)
	}
	if b, first := s.Add(SharedMemory, int32(3)); b == a || !first {
		t.Errorf("same id of another class: ref %d, first %v", b, first)
	}
}

func TestLoadedKeepsClassesApart(t *testing.T) {
	l := NewLoaded()
	if _, ok, err := l.Get(OpenFile, 1); ok || err != nil {
		t.Fatalf("unknown reference: %v, %v", ok, err)
	}
	if err := l.Add(OpenFile, 1, "file"); err != nil {
		t.Fatal(err)
	}
	if v, ok, err := l.Get(OpenFile, 1); v != "file" || !ok || err != nil {
		t.Errorf("got %v, %v, %v", v, ok, err)
	}
	if _, _, err := l.Get(SharedMemory, 1); !errors.Is(err, ErrBadRef) {
		t.Errorf("other class: %v", err)
	}
	if err := l.Add(OpenFile, 1, "twice"); !errors.Is(err, ErrBadRef) {
		t.Errorf("same reference twice: %v", err)
	}
	if err := l.Add(OpenFile, 0, "zero"); !errors.Is(err, ErrBadRef) {
		t.Errorf("reference 0: %v", err)
	}
	if _, _, err := l.Get(OpenFile, 0); !errors.Is(err, ErrBadRef) {
		t.Errorf("find reference 0: %v", err)
	}
}

func TestFilesFindsSharing(t *testing.T) {
	const descriptors, files = 2000, 700
	random := rand.New(rand.NewSource(1))
	behind := make([]int, descriptors) // descriptor -> open file
	for i := range behind {
		behind[i] = random.Intn(files)
	}
	calls := 0
	f := NewFiles(func(a, b int32) (int, error) {
		calls++
		return behind[a] - behind[b], nil
	})
	first := map[int]int32{}
	for fd := range int32(descriptors) {
		rep, err := f.Representative(fd, "all alike")
		if err != nil {
			t.Fatal(err)
		}
		want, seen := first[behind[fd]]
		if !seen {
			want = fd
			first[behind[fd]] = fd
		}
		if rep != want {
			t.Fatalf("fd %d: representative %d, want %d", fd, rep, want)
		}
	}
	if limit := descriptors * 13; calls > limit {
		t.Errorf("%d comparisons for %d descriptors: more than n log n", calls, descriptors)
	}
}

func TestFilesPassesErrorsOn(t *testing.T) {
	broken := errors.New("no kcmp here")
	f := NewFiles(func(a, b int32) (int, error) { return 0, broken })
	if _, err := f.Representative(3, 0); err != nil {
		t.Fatalf("nothing to compare with: %v", err)
	}
	if _, err := f.Representative(4, 0); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	if rep, err := f.Representative(5, 1); rep != 5 || err != nil {
		t.Errorf("another glance: %d, %v", rep, err)
	}
}
