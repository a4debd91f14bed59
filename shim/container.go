package shim

import (
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"
)

// containerConfig says in what CMD is to run; docs/containers.md says what that means.
type containerConfig struct {
	Name     string
	Listed   int `json:",omitzero"` // the locked file that stands for it (registry.go), until it ends
	User     userChoice
	Net      netChoice
	Hostname string `json:",omitzero"`
	Domain   string `json:",omitzero"` // NIS domain name, of a restart
	Rootfs   string `json:",omitzero"`
	Binds    []bind `json:",omitempty"`
	Feed     socket `json:",omitzero"` // of a restart: a pipe that tells what to mount (container_feed.go)
	Init     bool   // the first process is ours, CMD the second
	CgroupNS bool   `json:",omitzero"`
	TimeNS   bool   `json:",omitzero"`
	Clocks   clocks `json:",omitzero"` // of the time namespace, of a restart
}

// userChoice is the value of --user.
type userChoice string

const (
	userAuto userChoice = "auto" // userNone with CAP_SYS_ADMIN, else userRoot
	userNone userChoice = "none" // no user namespace
	userRoot userChoice = "root" // a user namespace in which its user is 0
	userKeep userChoice = "keep" // one in which it is who it is
)

// netChoice is the value of --net.
type netChoice string

const (
	netHost     netChoice = "host"
	netNone     netChoice = "none"     // a namespace in which nothing is up
	netLoopback netChoice = "loopback" // one in which lo is
)

// bind is a directory or file of the host that appears in the container.
type bind struct {
	Source, Target string
	ReadOnly       bool `json:",omitzero"`
}

// flags are the namespaces of clone(2). That of the network is made later.
func (c *containerConfig) flags() uint64 {
	flags := uint64(unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS)
	for flag, wanted := range map[uint64]bool{
		unix.CLONE_NEWUSER:   c.User != userNone,
		unix.CLONE_NEWCGROUP: c.CgroupNS,
		unix.CLONE_NEWTIME:   c.TimeNS && c.Clocks == clocks{},
	} {
		if wanted {
			flags |= flag
		}
	}
	return flags
}

// containerFlags are the flags of `crshim run` that make a containerConfig.
type containerFlags struct {
	set             *pflag.FlagSet
	wanted          bool
	config          containerConfig
	user, net, init string
	binds           []string
}

// Choices of --init.
const (
	initAuto = "auto"
	initOwn  = "own"
	initNone = "none"
)

func (f *containerFlags) register(cmd *cobra.Command) {
	f.set = pflag.NewFlagSet("container", pflag.ContinueOnError)
	f.set.StringVar(&f.config.Name, "name", "", "container: call it `NAME`, by which freeze, thaw and checkpoint find it")
	f.set.StringVar(&f.net, "net", string(netHost), "container: its network: that of the host, none, or loopback alone")
	f.set.StringVar(&f.config.Hostname, "hostname", "", "container: its host name")
	f.set.StringVar(&f.config.Rootfs, "rootfs", "", "container: its root is the directory `DIR`")
	f.set.StringArrayVar(&f.binds, "bind", nil, "container: `SRC:DST[:ro]`, what is at SRC appears at DST")
	f.set.StringVar(&f.user, "user", string(userAuto), "container: a user namespace in which you are root or, with keep, who you are; none; auto, root unless you are it")
	f.set.StringVar(&f.init, "init", initAuto, "container: its first process: own, that of crshim, or none, COMMAND itself; auto, own unless COMMAND is one")
	f.set.BoolVar(&f.config.CgroupNS, "cgroupns", false, "container: a control group namespace")
	f.set.BoolVar(&f.config.TimeNS, "timens", false, "container: a time namespace")
	cmd.Flags().BoolVar(&f.wanted, "container", false, "run COMMAND in namespaces of its own: processes, mounts, IPC, host name")
	cmd.Flags().AddFlagSet(f.set)
	for name, choices := range map[string][]string{
		"net":  netChoices,
		"user": userChoices,
		"init": initChoices,
	} {
		if err := cmd.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(choices, cobra.ShellCompDirectiveNoFileComp)); err != nil {
			panic(err) // a bug: the flag is defined above
		}
	}
	if err := cmd.MarkFlagDirname("rootfs"); err != nil {
		panic(err) // likewise
	}
}

var (
	netChoices  = []string{string(netHost), string(netNone), string(netLoopback)}
	userChoices = []string{string(userAuto), string(userNone), string(userRoot), string(userKeep)}
	initChoices = []string{initAuto, initOwn, initNone}
)

// container returns what the flags say, nil without --container.
func (f *containerFlags) container(command []string) (*containerConfig, error) {
	if !f.wanted {
		var err error
		f.set.VisitAll(func(flag *pflag.Flag) {
			if flag.Changed {
				err = errors.Join(err, fmt.Errorf("--%s needs --container", flag.Name))
			}
		})
		return nil, err
	}
	c := f.config
	c.User, c.Net = userChoice(f.user), netChoice(f.net)
	c.Init = f.init == initOwn || f.init == initAuto && !slices.Contains(inits, filepath.Base(command[0]))
	err := errors.Join(oneOf("net", f.net, netChoices), oneOf("user", f.user, userChoices), oneOf("init", f.init, initChoices))
	if f.set.Changed("name") {
		err = errors.Join(err, checkName(c.Name))
	}
	err = errors.Join(err, checkHostname(c.Hostname))
	err = errors.Join(err, c.place(f.binds))
	if c.User == userAuto {
		c.User = userRoot
		if askCapability(unix.CAP_SYS_ADMIN).answer == yes {
			c.User = userNone
		}
	}
	return &c, err
}

// place takes what the command line says of files.
func (c *containerConfig) place(binds []string) (err error) {
	for _, text := range binds {
		b, bindErr := parseBind(text)
		c.Binds, err = append(c.Binds, b), errors.Join(err, bindErr)
	}
	if c.Rootfs != "" {
		var absErr error
		c.Rootfs, absErr = filepath.Abs(c.Rootfs)
		err = errors.Join(err, absErr)
	}
	return err
}

// inits are programs that are made to be the first process: they reap and pass signals on.
var inits = []string{"init", "systemd", "tini", "tini-static", "dumb-init", "catatonit", "runit", "runit-init", "s6-svscan", "openrc-init", "docker-init"}

func oneOf(flag, value string, choices []string) error {
	if slices.Contains(choices, value) {
		return nil
	}
	return fmt.Errorf("--%s: %q is none of %s", flag, value, strings.Join(choices, ", "))
}

// nameForm keeps names apart from process ids and paths.
var nameForm = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]{0,62}$`)

func checkName(name string) error {
	if nameForm.MatchString(name) {
		return nil
	}
	return fmt.Errorf("--name: %q is not a letter followed by up to 62 letters, digits, dots, dashes and underscores", name)
}

func checkHostname(name string) error {
	if len(name) <= 64 { // __NEW_UTS_LEN of linux/utsname.h
		return nil
	}
	return errors.New("--hostname: longer than 64 bytes")
}

func parseBind(text string) (bind, error) {
	part := strings.Split(text, ":")
	if len(part) == 3 && part[2] == "ro" {
		part = part[:2]
	}
	if len(part) != 2 || part[0] == "" || !filepath.IsAbs(part[1]) {
		return bind{}, fmt.Errorf("--bind: %q is not SRC:DST or SRC:DST:ro with an absolute DST", text)
	}
	if filepath.Clean(part[1]) == "/" {
		return bind{}, fmt.Errorf("--bind: %q would hide the root; see --rootfs", text)
	}
	source, err := filepath.Abs(part[0])
	return bind{source, filepath.Clean(part[1]), strings.HasSuffix(text, ":ro")}, err
}
