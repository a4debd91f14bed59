package procfs

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"

	"golang.org/x/sys/unix"
)

// targetVar names the process that readStranger reads.
const targetVar = "PROCFS_TEST_TARGET"

// readers are all ways to read a process, by name.
var readers = map[string]func(*Proc) error{
	"Status":         func(p *Proc) error { _, err := p.Status(); return err },
	"Stat":           func(p *Proc) error { _, err := p.Stat(); return err },
	"Comm":           func(p *Proc) error { _, err := p.Comm(); return err },
	"Cmdline":        func(p *Proc) error { _, err := p.Cmdline(); return err },
	"Environ":        func(p *Proc) error { _, err := p.Environ(); return err },
	"Auxv":           func(p *Proc) error { _, err := p.Auxv(); return err },
	"Maps":           func(p *Proc) error { _, err := p.Maps(); return err },
	"Mappings":       func(p *Proc) error { _, err := p.Mappings(); return err },
	"Pagemap":        func(p *Proc) error { return pagemapOf(p) },
	"FDs":            func(p *Proc) error { _, err := p.FDs(); return err },
	"FD":             func(p *Proc) error { _, err := p.FD(0); return err },
	"Threads":        func(p *Proc) error { _, err := p.Threads(); return err },
	"Children":       func(p *Proc) error { _, err := p.Children(); return err },
	"Timers":         func(p *Proc) error { _, err := p.Timers(); return err },
	"Limits":         func(p *Proc) error { _, err := p.Limits(); return err },
	"UIDs":           func(p *Proc) error { _, err := p.UIDs(); return err },
	"GIDs":           func(p *Proc) error { _, err := p.GIDs(); return err },
	"MaySetGroups":   func(p *Proc) error { _, err := p.MaySetGroups(); return err },
	"Syscall":        func(p *Proc) error { _, err := p.Syscall(); return err },
	"Cgroups":        func(p *Proc) error { _, err := p.Cgroups(); return err },
	"Personality":    func(p *Proc) error { _, err := p.Personality(); return err },
	"CoredumpFilter": func(p *Proc) error { _, err := p.CoredumpFilter(); return err },
	"OOMScoreAdj":    func(p *Proc) error { _, err := p.OOMScoreAdj(); return err },
	"Timerslack":     func(p *Proc) error { _, err := p.Timerslack(); return err },
	"Wchan":          func(p *Proc) error { _, err := p.Wchan(); return err },
	"ExecStart":      func(p *Proc) error { _, _, err := p.ExecStart(); return err },
	"NS":             func(p *Proc) error { _, err := p.NS("pid"); return err },
	"Link":           func(p *Proc) error { _, err := p.Link("exe"); return err },
	"StatLink":       func(p *Proc) error { _, err := p.StatLink("cwd"); return err },
	"ReadFile":       func(p *Proc) error { _, err := p.ReadFile("mountinfo"); return err },
}

func pagemapOf(p *Proc) error {
	pm, err := p.Pagemap()
	if err != nil {
		return err
	}
	return pm.Close()
}

// class sorts an error for the parent.
func class(err error) string {
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, ErrGone):
		return "gone"
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return "denied"
	}
	return err.Error()
}

// readStranger tries all readers on a process of another user.
func readStranger() error {
	pid, err := strconv.ParseInt(os.Getenv(targetVar), 10, 32)
	if err != nil {
		return err
	}
	p, err := Open(PID(pid))
	if err != nil {
		return err
	}
	defer p.Close()
	got := make(map[string]string)
	for name, read := range readers {
		got[name] = class(read(p))
	}
	text, err := json.Marshal(got)
	if err != nil {
		return err
	}
	return ready(string(text))
}

// recyclePID is the init of a pid namespace of its own. It makes a number
// name two processes in turn.
func recyclePID() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount proc: %w", err)
	}
	first, err := sleeper(0)
	if err != nil {
		return err
	}
	pid := PID(first.Process.Pid)
	p, err := Open(pid)
	if err != nil {
		return err
	}
	defer p.Close()
	if err := errors.Join(first.Process.Kill(), reap(first)); err != nil {
		return err
	}
	second, err := sleeper(pid)
	if err != nil {
		return err
	}
	_, oldErr := p.Stat()
	q, newErr := Open(pid)
	if newErr == nil {
		_, newErr = q.Stat()
		q.Close()
	}
	if err := errors.Join(second.Process.Kill(), reap(second)); err != nil {
		return err
	}
	return ready(class(oldErr) + " " + class(newErr))
}

// sleeper starts a process that has the number want, unless that is 0. Go may
// start a thread that takes the number: then another process is tried.
func sleeper(want PID) (*exec.Cmd, error) {
	for range 100 {
		if want != 0 {
			last := strconv.Itoa(int(want) - 1)
			if err := os.WriteFile("/proc/sys/kernel/ns_last_pid", []byte(last), 0); err != nil {
				return nil, err
			}
		}
		c := exec.Command("/bin/sleep", "60")
		if err := c.Start(); err != nil {
			return nil, err
		}
		if want == 0 || PID(c.Process.Pid) == want {
			return c, nil
		}
		if err := errors.Join(c.Process.Kill(), reap(c)); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("no process got the number %d", want)
}

// reap waits for a process that was killed.
func reap(c *exec.Cmd) error {
	err := c.Wait()
	var status *exec.ExitError
	if errors.As(err, &status) && status.ExitCode() < 0 {
		return nil
	}
	return err
}
