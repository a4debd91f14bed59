package shim

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core"
	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// savedJob is an image on its way to become a process.
type savedJob struct {
	config *restartConfig
	image  *os.File
	opened *core.Opened
	calls  bool // they are to be served by us
}

// openSaved reads the head of an image, before there is any process for it.
func openSaved(config *restartConfig, engine *core.Engine) (*savedJob, error) {
	// The process reads its memory itself, and must not be told to come again later.
	if err := unix.SetNonblock(config.Image, false); err != nil {
		return nil, fmt.Errorf("open image: %w", err)
	}
	s := &savedJob{config: config, image: os.NewFile(uintptr(config.Image), "image")}
	var err error
	if s.opened, err = engine.Open(s.image); err != nil {
		if len(fault.Flatten(err)) == 0 {
			err = &fault.Error{Code: fault.ImageRead, Object: "image", Err: err}
		}
		return nil, errors.Join(err, s.image.Close())
	}
	// Inside of a `crshim run` the calls work already.
	_, caught := filtersOf(procfs.PID(os.Getpid()))
	s.calls = s.opened.CallsCaught && !caught
	return s, nil
}

// stages is what the following stages are told.
func (s *savedJob) stages() *restartConfig {
	next := *s.config
	next.Image, next.PID, next.Calls = 0, int(s.opened.PID), s.calls
	return &next
}

// restore makes the process that __exec is about to give up the one in the image, and tells the front.
func (s *savedJob) restore(hand, report socket) error {
	defer func() { _ = s.image.Close() }()
	r, _, err := hand.receive()
	switch {
	case errors.Is(err, io.EOF), err == nil && r.Kind != noticeBlank:
		err = errNotStarted
	}
	if err != nil {
		s.opened.Close()
		return err
	}
	done, err := s.opened.Into(func(t *tracer.Tracer) (*tracer.Tracee, error) {
		return t.SeizeBlank(procfs.PID(r.PID), func() error { return hand.send(notice{Kind: noticeSeized}) })
	})
	switch {
	case errors.Is(err, tracer.ErrGone):
		return errNotStarted // killed by somebody, which is how the job ends then
	case err != nil && len(fault.Flatten(err)) == 0:
		return &fault.Error{Code: fault.StageFailed, Object: "image", Err: err}
	case err != nil:
		return err
	}
	// A front that was killed needs not be told.
	_ = report.send(notice{Kind: noticeRestored, PID: int(done.PID), Calls: s.calls})
	return nil
}

// becomeBlank is the end of the stage __exec in a restart: a process with nothing in it, that the supervisor holds.
func becomeBlank(config *stageConfig) error {
	if config.Restart.Detach {
		if err := leaveJob(); err != nil {
			return err
		}
	}
	if config.filtered() {
		if err := enterFilter(config.Hand); err != nil {
			return err
		}
	}
	program, err := tracer.BlankProgram()
	if err != nil {
		return err
	}
	if err := config.Start.restore(); err != nil {
		return err
	}
	if err := config.Hand.send(notice{Kind: noticeBlank, PID: os.Getpid()}); err != nil {
		return err
	}
	if _, _, err := config.Hand.receive(); err != nil {
		os.Exit(statusSelf) // the supervisor has failed, and says why if it can
	}
	return fmt.Errorf("execute blank program: %w", syscall.Exec(fmt.Sprintf("/proc/self/fd/%d", program), []string{"crshim"}, nil))
}

// leaveJob makes a session for a process that is to be detached. A pipe as output is left as well: it was for the process
// id, and its reader would wait for the end of the process.
func leaveJob() error {
	if _, err := unix.Setsid(); err != nil {
		return fmt.Errorf("leave session: %w", err)
	}
	for fd := unix.Stdout; fd <= unix.Stderr; fd++ {
		var st unix.Stat_t
		if unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFIFO {
			unix.CloseOnExec(fd)
		}
	}
	return nil
}
