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

// settings of an IPC namespace (proc_sys_kernel(5), mq_overview(7)). A new one has the kernel's defaults.
var settings = []string{
	"kernel/shmmax", "kernel/shmall", "kernel/shmmni", "kernel/shm_rmid_forced",
	"kernel/msgmax", "kernel/msgmnb", "kernel/msgmni", "kernel/sem",
	"fs/mqueue/queues_max", "fs/mqueue/msg_max", "fs/mqueue/msgsize_max", "fs/mqueue/msg_default", "fs/mqueue/msgsize_default",
}

const settingSize = 256

func (i *IPC) askSettings() error {
	values, err := readSettings(i.s.Remote, settings)
	if err != nil {
		return i.refuse("the limits", err, "")
	}
	for n, name := range settings {
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

func (i *IPC) dumpSettings() error {
	for n := range i.settings {
		if err := i.s.W.Put(0, &i.settings[n]); err != nil {
			return err
		}
	}
	return nil
}

func loadSetting(b *Builder, make bool) error {
	rec, _, err := image.Expect[settingRecord](b.R)
	if err != nil {
		return err
	}
	name, value, _ := strings.Cut(rec.Text, "=")
	if !slices.Contains(settings, name) || value == "" || len(value) >= settingSize || strings.Trim(value, "0123456789 -") != "" {
		return badImage(fault.ImageValue, "setting", "%q", rec.Text)
	}
	if !make {
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
