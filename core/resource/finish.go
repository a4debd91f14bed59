package resource

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/tracer"
)

// Some parts know what they can do only once everything has been read and the
// calls of the stage have told what they were made for: deciding ones. And some
// take rights away that others still need, so that they come when all else has
// been done: finishing ones, in the order of Parts, those of the process first.

type deciding interface {
	// Decide ends the stage: what it adds to it is run as well.
	Decide(b *Builder) error
}

type threadDeciding interface {
	Decide(b *Builder, t *LoadedThread) error
}

type finishing interface {
	// Finish adds calls that come behind those of every Commit and Lead.
	Finish(b *Builder, p *tracer.Program) error
}

type threadFinishing interface {
	// Finish adds calls that come last in the thread's own program.
	Finish(b *Builder, t *LoadedThread, p *tracer.Program) error
}

// decide ends the stage.
func (b *Builder) decide() error {
	for i, part := range b.parts {
		if d, ok := part.(deciding); ok {
			if err := d.Decide(b); err != nil {
				return fmt.Errorf("stage %s: %w", Parts[i].Name, err)
			}
		}
	}
	for _, t := range b.Threads {
		for i, part := range t.parts {
			if d, ok := part.(threadDeciding); ok {
				if err := d.Decide(b, t); err != nil {
					return fmt.Errorf("stage %s: %w", Parts[i].Name, err)
				}
			}
		}
	}
	return b.Flush()
}

// finish ends the program of the leader.
func (b *Builder) finish(p *tracer.Program) error {
	for _, page := range b.lasting {
		p.Munmap(page)
	}
	for i, part := range b.parts {
		if f, ok := part.(finishing); ok {
			if err := f.Finish(b, p); err != nil {
				return fmt.Errorf("prepare commit of %s: %w", Parts[i].Name, err)
			}
		}
	}
	if b.stopped {
		// While we trace it the signal waits for the end of our work.
		p.Call(unix.SYS_KILL, tracer.Imm(uint64(b.VPID)), tracer.Int(int(unix.SIGSTOP)))
	}
	return b.finishThread(b.Threads[0], p)
}

// finishThread ends the program of one thread.
func (b *Builder) finishThread(t *LoadedThread, p *tracer.Program) error {
	for i, part := range t.parts {
		if f, ok := part.(threadFinishing); ok {
			if err := f.Finish(b, t, p); err != nil {
				return fmt.Errorf("prepare commit of %s: %w", Parts[i].Name, err)
			}
		}
	}
	return nil
}
