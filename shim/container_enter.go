package shim

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
)

// enter makes the namespaces that this process is in into the container. It is the process that becomes CMD, so what is done
// here is done with the rights of CMD's user and no others. It runs on the locked main thread.
func (c *containerConfig) enter() error {
	if c.Hostname != "" {
		if err := unix.Sethostname([]byte(c.Hostname)); err != nil {
			return &fault.Error{Code: fault.ContainerSetup, Object: "host name " + c.Hostname, Err: err}
		}
	}
	if c.Domain != "" {
		if err := unix.Setdomainname([]byte(c.Domain)); err != nil {
			return &fault.Error{Code: fault.ContainerSetup, Object: "domain name " + c.Domain, Err: err}
		}
	}
	if c.Net == netLoopback {
		if err := loopbackUp(); err != nil {
			return &fault.Error{Code: fault.ContainerSetup, Object: "network interface lo", Err: err}
		}
	}
	// Nothing that is mounted here shows outside, or the other way round.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return mountFault("/", err)
	}
	if c.Feed > 0 {
		return c.remountAll()
	}
	return c.mountAll()
}

// loopbackUp is `ip link set lo up` (netdevice(7)). The kernel gives lo its addresses by itself.
func loopbackUp() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	r, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	if err := unix.IoctlIfreq(s, unix.SIOCGIFFLAGS, r); err != nil {
		return err
	}
	r.SetUint16(r.Uint16() | unix.IFF_UP)
	return unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, r)
}

// dropCapabilities gives up those that be_first has kept: in a container with --user keep, CMD has what an ordinary user has.
// As root, who kept none that it had not before, nothing changes.
func dropCapabilities() error {
	if os.Geteuid() == 0 {
		return nil
	}
	err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	if err = errors.Join(err, unix.Capset(&hdr, &none[0])); err != nil {
		return fmt.Errorf("drop capabilities: %w", err)
	}
	return nil
}

func mountFault(object string, err error) error {
	return &fault.Error{Code: fault.ContainerMount, Object: object, Err: err}
}
