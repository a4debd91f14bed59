package tracer

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"syscall"

	"golang.org/x/sys/unix"
)

// BlankOptions describe a new process.
type BlankOptions struct {
	Stdio [3]*os.File          // its descriptors 0 to 2; nil leaves one closed
	Sys   *syscall.SysProcAttr // credentials, namespaces, process group; nil for ours
	Dir   string               // working directory, "" for ours
	// Survive lets it live on if the tracer ends before it has detached. By
	// default it is killed then (see Tracee.SetExitKill).
	Survive bool
}

// blankWait is the descriptor at which a blank waits (see blankListing).
const blankWait = 3

// Blank starts a process with next to no memory (one page of code, a stack,
// the vdso), whose contents are to be replaced. It is a child of ours and
// comes stopped. Until it is detached it ends when we do, by ExitKill and by
// the end of the pipe that its descriptor 3 reads.
//
// After Detach its end is for the caller to wait for (wait4(2)).
func (t *Tracer) Blank(opt BlankOptions) (*Tracee, error) {
	t.check()
	e, err := t.blank(opt)
	if err != nil {
		return nil, fmt.Errorf("start blank process: %w", err)
	}
	return e, nil
}

func (t *Tracer) blank(opt BlankOptions) (*Tracee, error) {
	var pipe [2]int // not os.Pipe, whose ends do not block
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return nil, fmt.Errorf("pipe: %w", err)
	}
	hold := os.NewFile(uintptr(pipe[1]), "blank process's pipe")
	pid, err := spawnBlank(opt, pipe[0])
	err = errors.Join(err, unix.Close(pipe[0]))
	if err != nil {
		return nil, errors.Join(err, hold.Close())
	}
	e, err := t.Seize(TID(pid), Options{ExitKill: !opt.Survive})
	if err != nil {
		// It ends with its pipe, and is ours to reap.
		err = errors.Join(err, hold.Close())
		_, werr := unix.Wait4(pid, nil, unix.WALL, nil)
		return nil, errors.Join(err, werr)
	}
	e.pipe, e.leader = hold, TID(pid)
	if err := e.Interrupt(); err != nil {
		return nil, errors.Join(err, e.Kill())
	}
	if err := e.waitBlank(); err != nil {
		return nil, err
	}
	return e, nil
}

// SeizeBlank takes over a process of somebody else's that is about to execute
// BlankProgram, and waits for start to tell it so. It comes stopped before the
// first instruction, and ends when we do, until it is detached. Other stops on
// the way are not ours: a signal has its effect.
func (t *Tracer) SeizeBlank(tid TID, start func() error) (*Tracee, error) {
	e, err := t.Seize(tid, Options{ExitKill: true})
	if err != nil {
		return nil, err
	}
	if err := start(); err != nil {
		return nil, errors.Join(err, e.Kill())
	}
	for executed := false; ; {
		stop, err := e.WaitStop(-1)
		switch {
		case err != nil:
			return nil, err
		case stop.Gone():
			return nil, fmt.Errorf("seize blank process %d: %w", tid, ErrGone)
		case stop.Kind == EventStop && executed:
			return e, nil
		case stop.Kind == ExecStop:
			executed = true
			err = errors.Join(e.Interrupt(), e.Cont(0))
		default:
			err = e.Cont(stop.Signal)
		}
		if err != nil {
			return nil, errors.Join(err, e.Kill())
		}
	}
}

// BlankProgram returns a descriptor of what a process executes, under the name
// /proc/self/fd/N, to become a blank. It is closed by that.
func BlankProgram() (int, error) {
	fd, err := blankImage(blankWait)
	if err != nil {
		return -1, fmt.Errorf("make blank program: %w", err)
	}
	return fd, nil
}

// waitBlank waits for the stop that was asked for. The report that execve is
// nearly done may come before it: we are told of the end of the descriptor
// that closes on exec a moment earlier. That one is inside of the call, and
// the kernel takes it for what was asked for (ptrace_stop() in
// kernel/signal.c), so it has to be asked for again.
func (e *Tracee) waitBlank() error {
	for {
		stop, err := e.WaitStop(-1)
		switch {
		case err != nil || stop.Gone():
			return errors.Join(err, ErrGone)
		case stop.Kind == EventStop:
			return nil
		}
		if err := errors.Join(e.Cont(0), e.Interrupt()); err != nil {
			return err
		}
	}
}

// spawnBlank executes the blank program from a memfd. The child is one of
// this thread's, so that wait4 with __WNOTHREAD finds it.
func spawnBlank(opt BlankOptions, wait int) (int, error) {
	none := ^uintptr(0)
	files := []uintptr{none, none, none, uintptr(wait)}
	top := files[blankWait]
	for i, f := range opt.Stdio {
		if f != nil {
			conn, err := f.SyscallConn()
			if err != nil {
				return 0, err
			}
			if err := conn.Control(func(fd uintptr) { files[i] = fd }); err != nil {
				return 0, err
			}
			top = max(top, files[i])
		}
	}
	image, err := blankImage(int(top) + 16)
	if err != nil {
		return 0, err
	}
	defer unix.Close(image)
	pid, err := syscall.ForkExec(fmt.Sprintf("/proc/self/fd/%d", image), []string{"blank"},
		&syscall.ProcAttr{Dir: opt.Dir, Files: files, Sys: opt.Sys, Env: []string{}})
	runtime.KeepAlive(opt.Stdio)
	if err != nil {
		return 0, fmt.Errorf("execute: %w", err)
	}
	return pid, nil
}

// blankImage returns a memfd with the blank program, whose number is at least
// lowest: the child moves descriptors about below that before it executes.
func blankImage(lowest int) (int, error) { return imageOf(blankELF(), lowest) }

func imageOf(program []byte, lowest int) (int, error) {
	low, err := unix.MemfdCreate("blank", unix.MFD_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("memfd_create: %w", err)
	}
	defer unix.Close(low)
	if _, err := unix.Write(low, program); err != nil {
		return -1, err
	}
	// A file that is open for writing cannot be executed (ETXTBSY).
	read, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", low), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(read)
	return unix.FcntlInt(uintptr(read), unix.F_DUPFD_CLOEXEC, lowest)
}
