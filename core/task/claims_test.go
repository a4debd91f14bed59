package task

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/tracer/procfs"
)

// Two processes that save each other do not deadlock: whoever is second waits,
// or is frozen and told to call again.
func TestClaimsExclude(t *testing.T) {
	var c Claims
	var busy [4]atomic.Int32
	var all sync.WaitGroup
	for i := range 200 {
		all.Go(func() {
			a, b := i%4, (i+1+i/7%3)%4
			release, err := c.Hold(nil, procfs.PID(a+1), procfs.PID(b+1))
			if err != nil {
				t.Error(err)
				return
			}
			for _, p := range []int{a, b} {
				if busy[p].Add(1) > 1 && a != b {
					t.Errorf("process %d is claimed twice", p+1)
				}
			}
			for _, p := range []int{a, b} {
				busy[p].Add(-1)
			}
			release()
		})
	}
	all.Wait()
}

func TestHoldEndsWhenTheCallerIsFrozen(t *testing.T) {
	var c Claims
	answers := make(chan unix.Errno, 2)
	w := c.Enter(Caller{TID: 7, Answer: func(e unix.Errno) error { answers <- e; return nil }})
	release, err := c.Hold(nil, 7)
	if err != nil {
		t.Fatal(err)
	}
	waited := make(chan error)
	go func() {
		_, err := c.Hold(w, 7)
		waited <- err
	}()
	select {
	case err := <-waited:
		t.Fatalf("did not wait: %v", err)
	case <-time.After(20 * time.Millisecond): // long enough to see it not wait, never too short to pass
	}
	if err := c.Restart(7); err != nil {
		t.Fatal(err)
	}
	if err := <-waited; !errors.Is(err, ErrAnswered) {
		t.Errorf("waiting caller: %v", err)
	}
	if got := <-answers; got != ERESTARTNOINTR {
		t.Errorf("answered %v", got)
	}
	if err := c.Restart(7); err != nil || len(answers) != 0 {
		t.Errorf("answered a second time: %v", err)
	}
	release()
	c.Leave(w)
	if err := c.Restart(7); err != nil || len(answers) != 0 {
		t.Errorf("answered after it had left: %v", err)
	}
}
