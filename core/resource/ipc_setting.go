package resource

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/tracer"
)

// settingRecord is a file below /proc/sys.
type settingRecord struct {
	Text string `doc:"its name below /proc/sys, = and what is in it"`
}

// ipcSettings are those of an IPC namespace (proc_sys_kernel(5), mq_overview(7)).
var ipcSettings = []string{
	"kernel/shmmax", "kernel/shmall", "kernel/shmmni", "kernel/shm_rmid_forced",
	"kernel/msgmax", "kernel/msgmnb", "kernel/msgmni", "kernel/sem",
	"fs/mqueue/queues_max", "fs/mqueue/msg_max", "fs/mqueue/msgsize_max", "fs/mqueue/msg_default", "fs/mqueue/msgsize_default",
}

// netSettings are those of a network namespace (ip(7), tcp(7), ipv6(7), unix(7)) that programs and people change.
var netSettings = []string{
	"net/core/somaxconn", "net/unix/max_dgram_qlen",
	"net/ipv4/ip_forward", "net/ipv4/ip_default_ttl", "net/ipv4/ip_nonlocal_bind", "net/ipv4/ip_unprivileged_port_start",
	"net/ipv4/ip_local_port_range", "net/ipv4/ip_local_reserved_ports", "net/ipv4/ping_group_range", "net/ipv4/ip_early_demux",
	"net/ipv4/tcp_congestion_control", "net/ipv4/tcp_ecn", "net/ipv4/tcp_fastopen", "net/ipv4/tcp_fin_timeout", "net/ipv4/tcp_keepalive_intvl",
	"net/ipv4/tcp_keepalive_probes", "net/ipv4/tcp_keepalive_time", "net/ipv4/tcp_max_syn_backlog", "net/ipv4/tcp_mtu_probing",
	"net/ipv4/tcp_notsent_lowat", "net/ipv4/tcp_orphan_retries", "net/ipv4/tcp_retries1", "net/ipv4/tcp_retries2", "net/ipv4/tcp_rmem",
	"net/ipv4/tcp_sack", "net/ipv4/tcp_slow_start_after_idle", "net/ipv4/tcp_syn_retries", "net/ipv4/tcp_synack_retries", "net/ipv4/tcp_syncookies",
	"net/ipv4/tcp_timestamps", "net/ipv4/tcp_tw_reuse", "net/ipv4/tcp_window_scaling", "net/ipv4/tcp_wmem",
	"net/ipv4/conf/all/rp_filter", "net/ipv4/conf/default/rp_filter", "net/ipv4/conf/all/route_localnet", "net/ipv4/conf/lo/route_localnet",
	"net/ipv6/bindv6only", "net/ipv6/ip_nonlocal_bind", "net/ipv6/conf/all/disable_ipv6", "net/ipv6/conf/default/disable_ipv6",
	"net/ipv6/conf/lo/disable_ipv6", "net/ipv6/conf/all/forwarding", "net/ipv6/conf/default/forwarding",
}

const (
	settingSize  = 256
	settingChars = "0123456789 -,abcdefghijklmnopqrstuvwxyz_"
)

func (i *Namespaces) askSettings() error {
	names := ipcSettings
	if i.net {
		names = slices.Concat(names, netSettings)
	}
	values, err := readSettings(i.s.Remote, names)
	if err != nil {
		return i.refuse("the settings", err, "")
	}
	for n, name := range names {
		if values[n] != "" {
			i.settings = append(i.settings, settingRecord{name + "=" + values[n]})
		}
	}
	return nil
}

// readSettings has the process read settings of its namespaces; "" stands for one
// that the kernel does not have, or that /proc as it is there does not show.
func readSettings(r *tracer.Remote, names []string) ([]string, error) {
	p := r.Program()
	rows, at := make([]*tracer.Row, len(names)), make([]tracer.Addr, len(names))
	for i, name := range names {
		fd := p.Openat(tracer.Int(unix.AT_FDCWD), "/proc/sys/"+name, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0).Tolerate()
		at[i] = p.Buffer(settingSize)
		rows[i] = p.Read(fd, at[i], settingSize).Tolerate()
		p.Close(fd).Tolerate()
	}
	if err := p.Run(); err != nil {
		return nil, err
	}
	values := make([]string, len(names))
	for i, row := range rows {
		if err := row.Err(); errors.Is(err, unix.EBADF) {
			continue // not opened
		} else if err != nil {
			return nil, fmt.Errorf("read %s: %w", names[i], err)
		}
		raw := make([]byte, row.Result())
		if err := r.ReadMem(at[i], raw); err != nil {
			return nil, err
		}
		values[i] = strings.Join(strings.Fields(string(raw)), " ")
	}
	return values, nil
}

func (i *Namespaces) dumpSettings() error {
	for n := range i.settings {
		if err := i.s.W.Put(0, &i.settings[n]); err != nil {
			return err
		}
	}
	return nil
}

func loadSetting(b *Builder, to into) error {
	rec, _, err := image.Expect[settingRecord](b.R)
	if err != nil {
		return err
	}
	return b.setting(rec.Text, to)
}

// Setting changes a setting of a new IPC namespace of the process.
func (b *Builder) Setting(text string) error { return b.setting(text, into{make: true}) }

func (b *Builder) setting(text string, to into) error {
	name, value, _ := strings.Cut(text, "=")
	known := slices.Contains(ipcSettings, name) || to.net && slices.Contains(netSettings, name)
	if !known || value == "" || len(value) >= settingSize || strings.Trim(value, settingChars) != "" {
		return badImage(fault.ImageValue, "setting", "%q", text)
	}
	if !to.make {
		return nil
	}
	now, err := readSettings(b.Remote, []string{name})
	if err != nil || now[0] == value {
		return err
	}
	p := b.Remote.Program()
	fd := p.Openat(tracer.Int(unix.AT_FDCWD), "/proc/sys/"+name, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	p.Write(fd, p.Bytes([]byte(value)), uint64(len(value)))
	p.Close(fd)
	return b.makeIPC(p, "/proc/sys/"+name)
}
