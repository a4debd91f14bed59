package shim

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core"
	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// What images call the choices of --user and --net.
var (
	savedUsers = map[userChoice]core.UserNamespace{userNone: core.UserNone, userRoot: core.UserRoot, userKeep: core.UserKeep}
	savedNets  = map[netChoice]core.NetNamespace{netHost: core.NetHost, netNone: core.NetNone, netLoopback: core.NetLoopback}
)

// saved is what an image says of the container.
func (c *containerConfig) saved() *core.Container {
	return &core.Container{
		User: savedUsers[c.User], Net: savedNets[c.Net], Init: c.Init, Cgroup: c.CgroupNS, Time: c.TimeNS,
		Rootfs: c.Rootfs,
	}
}

// container makes the configuration of a container like that of the image, nil if that holds none; named has what the command line
// says of it. Its name is taken, and the socket made by which its parent hears of the processes.
func (r *restart) container(named containerConfig, image string) (*containerConfig, error) {
	was := r.opened.Container
	if was == nil {
		if named.Name != "" || named.Hostname != "" || named.Rootfs != "" || len(named.Binds) > 0 {
			return nil, &fault.Error{Code: fault.NoContainerHere, Object: image}
		}
		return nil, nil
	}
	c := named
	c.Init, c.CgroupNS, c.TimeNS, c.Domain = was.Init, was.Cgroup, was.Time, was.Domainname
	if c.Hostname == "" {
		c.Hostname = was.Hostname
	}
	c.Clocks = clocks{was.Monotonic, was.Boottime}
	for choice, saved := range savedUsers {
		if saved == was.User {
			c.User = choice
		}
	}
	for choice, saved := range savedNets {
		if saved == was.Net {
			c.Net = choice
		}
	}
	if err := r.expectMounts(&c, image); err != nil {
		return nil, err
	}
	var err error
	if r.adopt, r.config.Adopt, err = socketPair(); err != nil {
		return nil, err
	}
	return &c, c.list(image)
}

// expectMounts sees to it that what the container had mounted can be mounted, and makes the pipe by which its first process is told.
func (r *restart) expectMounts(c *containerConfig, image string) error {
	was := r.opened.Container
	switch {
	case c.Rootfs != "" && was.Rootfs == "":
		return &fault.Error{Code: fault.NoContainerHere, Object: image, Detail: "--rootfs: its root was that of the host"}
	case !was.OwnMounts:
		return nil
	case c.Rootfs == "":
		c.Rootfs = was.Rootfs
	}
	if err := c.checkMounts(was.Mounts); err != nil {
		return err
	}
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC); err != nil {
		return fmt.Errorf("make pipe: %w", err)
	}
	c.Feed, r.feed = socket(ends[0]), os.NewFile(uintptr(ends[1]), "mounts")
	return nil
}

// joinGroups puts the container into the control groups that limited it, before it has any memory or children. Those that are made
// for it go when it ends.
func (r *restart) joinGroups(first int) error {
	if r.opened.Container == nil {
		return nil
	}
	made := r.opened.JoinGroups(core.PID(first))
	if len(made) == 0 {
		return nil
	}
	return r.adopt.send(notice{Kind: noticeGroups, Groups: made})
}

// removeGroups removes the control groups that were made for the container, when nothing is left in it.
func (c *containerParent) removeGroups() error {
	var errs []error
	for _, dir := range slices.Backward(c.groups) {
		if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// handOver tells the parent of a restored container who CMD is and gives it the eventfd of the init, before they run: what becomes
// of CMD is heard from the first moment on.
func (r *restart) handOver(first, second core.PID) error {
	if !r.opened.Container.Init || second == 0 {
		return r.adoptAs(first)
	}
	own, err := unix.PidfdOpen(int(first), 0)
	if err != nil {
		return fmt.Errorf("open pidfd of init: %w", err)
	}
	defer unix.Close(own)
	reports, err := unix.PidfdGetfd(own, tracer.InitReports, 0)
	if err != nil {
		return fmt.Errorf("take eventfd of init: %w", err)
	}
	defer unix.Close(reports)
	// An image may have anything there. Its parent must not wait for it.
	link, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", reports))
	if err != nil {
		return fmt.Errorf("look at eventfd of init: %w", err)
	}
	flags, err := unix.FcntlInt(uintptr(reports), unix.F_GETFL, 0)
	if err != nil || !strings.Contains(link, "[eventfd]") || flags&unix.O_NONBLOCK == 0 {
		return &fault.Error{Code: fault.ImageValue, Object: "image", Detail: "fd 3 of the init is " + link, Err: err}
	}
	return r.adoptAs(second, reports)
}

func (r *restart) adoptAs(command core.PID, reports ...int) error {
	err := r.adopt.send(notice{Kind: noticeRestored, PID: int(command)}, reports...)
	if err != nil {
		return err
	}
	if answer, _, err := r.adopt.receive(); err != nil || answer.Kind != noticeAdopted {
		return errors.Join(errors.New("the parent of the container has ended"), err)
	}
	return nil
}

// adopt waits until it is known which process CMD is, and is its parent from then on.
func (p *parent) adopt(s socket) {
	defer close(p.container.adopted)
	defer s.close()
	r, reports, err := s.receive()
	if err == nil && r.Kind == noticeGroups {
		p.container.groups = r.Groups
		r, reports, err = s.receive()
	}
	if errors.Is(err, io.EOF) {
		return // the restart has failed, and the front says why
	}
	if err == nil {
		err = p.take(r.PID, reports)
	}
	if err == nil {
		err = s.send(notice{Kind: noticeAdopted})
	}
	if err != nil {
		p.fail(err)
	}
}

func (p *parent) take(command, reports int) error {
	proc, err := procfs.Open(procfs.PID(command))
	if err != nil {
		return err
	}
	defer func() { _ = proc.Close() }()
	args, err := proc.Cmdline()
	if err != nil {
		return err
	}
	pidfd, err := unix.PidfdOpen(command, 0)
	if err != nil {
		return fmt.Errorf("open pidfd of command: %w", err)
	}
	defer unix.Close(pidfd)
	p.mu.Lock()
	first := p.container.first
	first.command, first.reports, p.pid = command, reports, command
	p.mu.Unlock()
	if err := p.container.config.tell(first, args); err != nil {
		return err
	}
	if reports >= 0 {
		go p.watch()
	}
	return p.report.send(notice{Kind: noticeStarted, PID: command, Parent: os.Getpid()}, pidfd)
}
