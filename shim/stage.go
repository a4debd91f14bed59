package shim

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// The stages of `crshim run` and `crshim restart`: crshim executed again under a first argument that no person types. docs/decisions/003-three-processes.md says why
// there are three.
//
//	crshim run       the front: what the shell sees; stops and ends as CMD does
//	  __supervise    receives and handles the calls, as long as a task is under the filter
//	    __parent     the parent of CMD and of its orphans: waits, and tells the front
//	      __exec     loads the filter, hands over the listener, becomes CMD
//
// In a restart CMD is a blank process that the front fills from the image. Unless its calls are to be served there is no
// __supervise, and __parent makes the blank process itself.
const (
	stageSupervise = "__supervise"
	stageParent    = "__parent"
	stageExec      = "__exec"
)

var stages = map[string]func(*stageConfig, []string) error{
	stageSupervise: supervise,
	stageParent:    beParent,
	stageExec:      becomeCommand,
}

// stageConfig is what a stage is told; it stands in the second argument. CMD and its arguments follow.
type stageConfig struct {
	Start  startState `json:",omitzero"`
	Report socket     // to the front
	Front  int        `json:",omitzero"` // pidfd of the front, for __parent
	Hand   socket     `json:",omitzero"` // from __exec and __parent to __supervise
	Log    logConfig
	// Restart is nil for `crshim run`.
	Restart *restartConfig `json:",omitempty"`
	// Container is nil if CMD runs among the other processes.
	Container *containerConfig `json:",omitempty"`
}

// filtered tells whether CMD is under a filter of ours.
func (c *stageConfig) filtered() bool { return c.Restart == nil || c.Restart.Calls }

// socket is the descriptor of one end of a SOCK_SEQPACKET pair.
type socket int

func init() {
	if stageOf(os.Args) != nil {
		// A filter belongs to the thread that loads it, and the main thread is the one that a pid names.
		runtime.LockOSThread()
	}
}

// stageOf returns the stage that a command line asks for, nil for those of people.
func stageOf(args []string) func(*stageConfig, []string) error {
	if len(args) < 3 {
		return nil
	}
	return stages[args[1]]
}

// runStage takes over if this process is a stage, and does not return then.
func runStage() {
	stage := stageOf(os.Args)
	if stage == nil {
		return
	}
	// ps would show "exe" otherwise, the last part of /proc/self/exe.
	_ = unix.Prctl(unix.PR_SET_NAME, commName(), 0, 0, 0)
	var config stageConfig
	err := json.Unmarshal([]byte(os.Args[2]), &config)
	if err == nil {
		// Inherited for this stage alone; what goes on to the next one says so again in spawn.
		config.keep(unix.CloseOnExec)
		err = stage(&config, os.Args[3:])
	}
	if err == nil {
		os.Exit(statusOK)
	}
	for _, failure := range failuresOf(err) {
		// A front that is gone (EPIPE) was ended by somebody who does not want to know.
		if sendErr := config.Report.send(notice{Kind: noticeFailed, Failure: failure}); sendErr != nil && !errors.Is(sendErr, unix.EPIPE) {
			fmt.Fprintf(os.Stderr, "crshim: %v\n", errors.Join(err, sendErr))
		}
	}
	os.Exit(statusSelf)
}

// keep calls f for every descriptor that the configuration names.
func (c *stageConfig) keep(f func(fd int)) {
	fds := []int{int(c.Report), c.Front, int(c.Hand)}
	if c.Restart != nil {
		fds = append(fds, int(c.Restart.Hold), int(c.Restart.Adopt))
	}
	if c.Container != nil {
		fds = append(fds, c.Container.Listed, int(c.Container.Feed))
	}
	for _, fd := range fds {
		if fd > 0 {
			f(fd)
		}
	}
}

// spawn starts the next stage. It inherits every descriptor that we inherited, under the same numbers, and those that
// the configuration names.
func spawn(stage string, config *stageConfig, command []string, attr *syscall.SysProcAttr) (pid int, err error) {
	argv, err := config.pass(stage, command)
	defer config.keep(unix.CloseOnExec)
	if err != nil {
		return 0, err
	}
	pid, err = syscall.ForkExec("/proc/self/exe", argv, &syscall.ProcAttr{
		Env:   os.Environ(),
		Files: []uintptr{0, 1, 2},
		Sys:   attr,
	})
	if err != nil {
		return 0, fmt.Errorf("start stage %s: %w", stage, err)
	}
	return pid, nil
}

// pass lets the descriptors of the configuration through execve, and returns the command line of a stage.
func (c *stageConfig) pass(stage string, command []string) ([]string, error) {
	text, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("describe stage %s: %w", stage, err)
	}
	c.keep(func(fd int) {
		if _, fcntlErr := unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0); fcntlErr != nil {
			err = errors.Join(err, fmt.Errorf("pass descriptor %d on: %w", fd, fcntlErr))
		}
	})
	return append([]string{"crshim", stage, string(text)}, command...), err
}

// detach leaves the job that the stage was started in: the terminal's signals and hang-up no longer reach it, and it holds
// nothing open that it only passed on. CMD keeps the session and process group that the stage had when CMD was forked.
// Of the standard descriptors those up to lastNull become /dev/null.
func detach(lastNull int) error {
	if _, err := unix.Setsid(); err != nil {
		return fmt.Errorf("leave session: %w", err)
	}
	if err := os.Chdir("/"); err != nil {
		return fmt.Errorf("leave directory: %w", err)
	}
	return dropInherited(lastNull)
}

// dropInherited closes every descriptor that was inherited, which are those that are not close-on-exec: a reader
// of CMD's output must see its end when CMD closes it. Standard descriptors up to lastNull become /dev/null.
func dropInherited(lastNull int) error {
	null, err := unix.Open(os.DevNull, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", os.DevNull, err)
	}
	defer func() { _ = unix.Close(null) }()
	for fd := 0; fd <= lastNull; fd++ {
		if err := unix.Dup3(null, fd, 0); err != nil {
			return fmt.Errorf("replace descriptor %d: %w", fd, err)
		}
	}
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return fmt.Errorf("list descriptors: %w", err)
	}
	for _, entry := range entries {
		fd, err := strconv.Atoi(entry.Name())
		if err != nil || fd <= 2 {
			continue
		}
		// The descriptor by which the list was read is gone by now.
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err == nil && flags&unix.FD_CLOEXEC == 0 {
			_ = unix.Close(fd)
		}
	}
	return nil
}
