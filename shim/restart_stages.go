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

// restart is an image on its way to become a job. The front itself does it, as it is above CMD too and can say best what went
// wrong.
type restart struct {
	config   *restartConfig
	image    *os.File
	opened   *core.Opened
	hold     socket
	adopt    socket   // from __parent of a container
	feed     *os.File // tells the stage in a container what to mount; nil without one
	done     chan outcome
	stdout   io.Writer
	pidfile  *pidFile
	frozen   bool      // it is left so, as by crshim freeze
	terminal *terminal // nil if it is to be left alone
}

// outcome is how a restart went.
type outcome struct {
	pid int
	err error
}

// errNotStarted says that CMD has ended before it could be filled, which is told by how it ended.
var errNotStarted = errors.New("not started")

// open reads the head of the image, before there is any process for it.
func (r *restart) open(engine *core.Engine) (err error) {
	if r.opened, err = engine.Open(r.image); err != nil {
		return asFault(fault.ImageRead, err)
	}
	if r.opened.PID == 1 && r.opened.Container == nil {
		r.opened.Close()
		return &fault.Error{Code: fault.NotFirst, Object: "pid 1 of the image"}
	}
	// Inside of a `crshim run` the calls work already.
	_, caught := filtersOf(procfs.PID(os.Getpid()))
	r.opened.Policy, r.opened.KeepPIDs = r.config.policy, r.config.PIDs == pidsKeep
	r.config.LastPID = int(r.opened.LastPID)
	r.config.PID, r.config.Calls = int(r.opened.PID), r.opened.CallsCaught && !caught
	return nil
}

// asFault gives a code to what has none.
func asFault(code fault.Code, err error) error {
	if len(fault.Flatten(err)) == 0 {
		return &fault.Error{Code: code, Object: "image", Err: err}
	}
	return err
}

// run fills the process that is to become CMD.
func (r *restart) run() {
	pid, err := r.fill()
	r.adopt.close()
	r.hold.close()      // who still waits for us does so in vain
	_ = r.image.Close() // the writer of a pipe must see its end
	r.done <- outcome{pid, err}
}

func (r *restart) fill() (int, error) {
	if err := r.feedMounts(); err != nil {
		r.opened.Close()
		return 0, err
	}
	waiting, pidfd, err := r.hold.receive()
	if err != nil {
		r.opened.Close()
		if errors.Is(err, io.EOF) {
			return 0, errNotStarted
		}
		return 0, err
	}
	if pidfd >= 0 {
		waiting.PID, err = pidOf(pidfd)
		if err = errors.Join(err, unix.Close(pidfd)); err != nil {
			r.opened.Close()
			return 0, err
		}
	}
	if err := r.joinGroups(waiting.PID); err != nil {
		r.opened.Close()
		return 0, err
	}
	r.opened.Ready = r.ready
	done, err := r.opened.Into(func(t *tracer.Tracer) (*tracer.Tracee, error) {
		pid := procfs.PID(waiting.PID)
		blank, err := t.SeizeBlank(pid, func() error { return r.hold.send(notice{Kind: noticeSeized}) })
		if err != nil && hasEnded(pid) {
			err = errors.Join(err, tracer.ErrGone) // of a zombie the kernel says EPERM
		}
		return blank, err
	})
	switch {
	case errors.Is(err, tracer.ErrGone):
		return 0, errNotStarted // somebody has killed it
	case err != nil:
		return 0, asFault(fault.StageFailed, err)
	}
	return int(done.PID), nil
}

// ready is told of the processes when all are in place, and none runs yet.
func (r *restart) ready(first, second core.PID) error {
	if r.opened.Container != nil {
		if err := r.handOver(first, second); err != nil {
			return err
		}
	}
	if !r.frozen {
		return nil
	}
	return freeze(first, core.FreezeHeld)
}

func hasEnded(pid procfs.PID) bool {
	p, err := procfs.Open(pid)
	if err != nil {
		return true
	}
	defer func() { _ = p.Close() }()
	stat, err := p.Stat()
	return err != nil || stat.State == 'Z' || stat.State == 'X'
}

// announce says which process the job is.
func (r *restart) announce(pid int) error {
	if err := r.pidfile.publish(pid); err != nil {
		return err
	}
	if !r.config.Detach {
		return nil
	}
	if _, err := fmt.Fprintln(r.stdout, pid); err != nil {
		return fmt.Errorf("print process id: %w", err)
	}
	return nil
}

// startBlank starts the process that is to be filled, with the process id that was asked for. Under a filter it is a stage
// first, which loads that.
func startBlank(config *stageConfig) (pid, pidfd int, err error) {
	r := config.Restart
	child := blankChild{session: r.Detach}
	if config.filtered() {
		child.path = "/proc/self/exe"
		child.argv, err = config.pass(stageExec, nil)
		defer config.keep(unix.CloseOnExec)
	} else {
		child.hold = r.Hold
		child.path, child.argv, err = prepareBlank(config)
	}
	if err != nil {
		return 0, -1, err
	}
	if r.PIDs == pidsNew {
		return child.start(0)
	}
	pid, pidfd, err = child.start(r.PID)
	if r.PIDs == pidsAuto && errors.Is(err, errPID) {
		return child.start(0)
	}
	return pid, pidfd, err
}

// becomeBlank is the end of the stage __exec in a restart. In a container lastPID is the file of that.
func becomeBlank(config *stageConfig, lastPID *os.File) error {
	if config.filtered() {
		if err := enterFilter(config.Hand); err != nil {
			return err
		}
	}
	path, argv, err := prepareBlank(config)
	if err != nil {
		return err
	}
	var who []int
	if config.Container != nil {
		self, err := unix.PidfdOpen(os.Getpid(), 0) // the front knows us by another number
		if err != nil {
			return fmt.Errorf("open pidfd: %w", err)
		}
		who = append(who, self)
	}
	if err := config.Restart.Hold.send(notice{Kind: noticeBlank, PID: os.Getpid()}, who...); err != nil {
		return err
	}
	if _, _, err := config.Restart.Hold.receive(); err != nil {
		os.Exit(statusSelf) // the front has failed, and says why if it can
	}
	if err := countFrom(lastPID, config.Restart.LastPID); err != nil {
		return err
	}
	return fmt.Errorf("execute blank program: %w", syscall.Exec(path, argv, nil))
}

// prepareBlank returns what is to be executed, and sees to it that a blank process will have no other descriptors than the
// standard ones that are meant for it. All else that a program has will be that of the image.
func prepareBlank(config *stageConfig) (path string, argv []string, err error) {
	for fd := range 3 {
		if config.Start.Closed&(1<<fd) != 0 || config.Restart.Detach && fd > 0 && isPipe(fd) {
			unix.CloseOnExec(fd)
		}
	}
	program, err := tracer.BlankProgram()
	if err != nil {
		return "", nil, err
	}
	return fmt.Sprintf("/proc/self/fd/%d", program), []string{"crshim"}, nil
}

// isPipe tells whether a detached process must not have a descriptor as its output: the pipe was for the process id, and its
// reader would wait for the end of the process.
func isPipe(fd int) bool {
	var st unix.Stat_t
	return unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFIFO
}
