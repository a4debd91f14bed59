package tracer

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func benchmark(b *testing.B, fn func(e *Tracee)) {
	g := startTarget(b, nil, "spin")
	g.stopped(fn)
}

// BenchmarkInjectNothing is one loan.
func BenchmarkInjectNothing(b *testing.B) {
	benchmark(b, func(e *Tracee) {
		for b.Loop() {
			must(b, e.Inject(InjectOptions{}, func(*Remote) error { return nil }))
		}
	})
}

// BenchmarkProgram is one call, with the two switches to the task and back.
func BenchmarkProgram(b *testing.B) {
	benchmark(b, func(e *Tracee) {
		must(b, e.Inject(InjectOptions{}, func(r *Remote) error {
			for b.Loop() {
				_, err := r.Syscall(unix.SYS_GETPID)
				must(b, err)
			}
			return nil
		}))
	})
}

// BenchmarkRow is one call of many in a program.
func BenchmarkRow(b *testing.B) {
	benchmark(b, func(e *Tracee) {
		must(b, e.Inject(InjectOptions{}, func(r *Remote) error {
			p := r.Program()
			for range b.N {
				p.Getpid()
			}
			b.ResetTimer()
			return p.Run()
		}))
	})
}

// BenchmarkInterrupt is PTRACE_INTERRUPT to stop, of a running task.
func BenchmarkInterrupt(b *testing.B) {
	benchmark(b, func(e *Tracee) {
		for b.Loop() {
			must(b, e.Cont(0))
			must(b, e.Interrupt())
			_, err := e.WaitStop(time.Second)
			must(b, err)
		}
	})
}
