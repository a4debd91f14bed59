package resource

import (
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// semaphores are those of System V. Sets of them belong to the IPC namespace and
// stay there; what a process has of its own is what the kernel is to take back
// when it ends (SEM_UNDO of semop(2)). No interface tells how much that is.
var semaphores = Part{
	Name:    "System V semaphores",
	Support: Refused,
	Note: "A process with adjustments of SEM_UNDO is refused. Sets of semaphores stay where they are, those of a container come back with " +
		"it. Of a process that has, or had, threads it is only known that it may have adjustments: it is refused if a set of its IPC namespace has been used since it was started.",
	Save: func() Saving { return new(semaphoresSave) },
}

type semaphoresSave struct {
	sets  *answer
	table []semPage
}

// semPage is a part of /proc/sysvipc/sem as the task sees it: a read tells as many
// lines as fit a page.
type semPage struct {
	*answer
	told *tracer.Row
}

// semPages is how much of it is looked at: some hundred sets.
const semPages = 8

// Ask counts the sets of semaphores of a namespace that we do not see.
func (g *semaphoresSave) Ask(s *Saver, p *tracer.Program) {
	const semInfo = 19 // SEM_INFO of semctl(2)
	g.sets = s.answer(p, seminfoSize)
	p.Call(unix.SYS_SEMCTL, tracer.Imm(0), tracer.Imm(0), tracer.Imm(semInfo), tracer.Ptr(g.sets.at)).Tolerate()
	fd := p.Openat(tracer.Int(unix.AT_FDCWD), "/proc/sysvipc/sem", unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0).Tolerate()
	for range semPages {
		page := semPage{answer: s.answer(p, int(procfs.PageSize))}
		page.told = p.Read(fd, page.at, procfs.PageSize).Tolerate()
		g.table = append(g.table, page)
	}
	p.Close(fd).Tolerate()
}

// struct seminfo of <linux/sem.h>: ten ints, of which SEM_INFO makes the eighth
// the number of sets.
const (
	seminfoSize = 40
	seminfoSets = 28
)

// Answered refuses a process with a list of adjustments in an IPC namespace of
// which we know only that it has semaphores.
func (g *semaphoresSave) Answered(s *Saver) error {
	own, err := s.ownIPC()
	if err != nil || own {
		return err
	}
	n := binary.LittleEndian.Uint32(g.sets.data[seminfoSets:])
	if n == 0 {
		return nil
	}
	if none, err := s.withoutUndo(); err != nil || none {
		return err
	}
	var table []byte
	used := true // as long as the end is not seen
	for _, page := range g.table {
		if page.told.Err() != nil {
			break
		}
		if page.told.Result() == 0 {
			used, err = s.usedSince(table)
			break
		}
		table = append(table, page.data[:page.told.Result()]...)
	}
	if used || err != nil {
		return &fault.Error{Code: fault.SemaphoreUndo, Object: s.Name(), Detail: fmt.Sprintf("perhaps: it has, or had, threads, and its IPC namespace %d sets", n), Err: err}
	}
	return nil
}

func (*semaphoresSave) Dump(*Saver) error { return nil }

func (*semaphoresSave) Survey(v *View) fault.List {
	refuse := func(err error) fault.List {
		return fault.List{{Code: fault.SemaphoreUndo, Object: v.Name(), Err: err}}
	}
	none, err := v.withoutUndo()
	if err != nil {
		return refuse(err)
	}
	if none {
		return nil
	}
	used, err := v.semaphoresUsed()
	if err != nil || used {
		return refuse(err)
	}
	return nil
}

// withoutUndo tells whether the process has no list of adjustments. A thread of
// ours gives its own up, so that there is one to compare with.
func (v *View) withoutUndo() (bool, error) {
	const kcmpSysVSem = 6
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Unshare(unix.CLONE_SYSVSEM); err != nil {
		return false, os.NewSyscallError("unshare", err)
	}
	order, err := kcmp(v.PID, procfs.PID(unix.Gettid()), kcmpSysVSem, 0, 0)
	return order == 0, err
}

// semaphoresUsed tells whether a set of its IPC namespace has been operated on
// since the process was started. New threads share a list that is made for them
// even if it stays empty. Of other namespaces we know nothing yet (Answered).
func (v *View) semaphoresUsed() (bool, error) {
	own, err := v.ownIPC()
	if err != nil || !own {
		return false, err
	}
	table, err := os.ReadFile("/proc/sysvipc/sem")
	if err != nil {
		return true, err
	}
	return v.usedSince(table)
}

// usedSince tells it by the table.
func (v *View) usedSince(table []byte) (bool, error) {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return true, os.NewSyscallError("sysinfo", err)
	}
	const ticks = 100 // USER_HZ
	started := time.Now().Unix() - info.Uptime + int64(v.Stat.StartTime/ticks)
	// key semid perms nsems uid gid cuid cgid otime ctime
	for line := range strings.Lines(string(table)) {
		f := strings.Fields(line)
		if len(f) < 9 || f[1] == "semid" {
			continue
		}
		if otime, err := strconv.ParseInt(f[8], 10, 64); err != nil || otime >= started-1 {
			return true, err
		}
	}
	return false, nil
}

// ownIPC tells whether the process is in our own IPC namespace.
func (v *View) ownIPC() (bool, error) {
	return v.InOurs("ipc")
}
