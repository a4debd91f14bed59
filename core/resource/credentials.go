package resource

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// identities is who a thread is to the kernel.
var identities = Part{
	Name:    "user and group ids, capabilities",
	Support: Full,
	Note: "Of each thread real, effective, saved and file system ids, supplementary groups, the five sets of capabilities, securebits. " +
		"Restored as far as the restarter may: it becomes all of it, by its own calls, or the restart is refused. " +
		"A bounding set cannot be made larger again; where the restarter's is smaller, that is said. --ids caller leaves everything as the restarter has it.",
	Records: []image.Spec{
		image.Row[credentialsRecord](credentialsKind, "CREDENTIALS", image.InThread, "who the thread is, by the numbers of its own user namespace", image.Times(image.AtMostOncePerThread)),
	},
	SaveThread:    func() ThreadSaving { return new(identitiesSave) },
	RestoreThread: func() ThreadRestoring { return new(identitiesRestore) },
}

const credentialsKind image.Kind = 6102

type credentialsRecord struct {
	UID         [4]uint32 `doc:"user ids: real, effective, saved, of the file system"`
	GID         [4]uint32 `doc:"group ids, likewise"`
	Inheritable uint64    `fmt:"hex" doc:"capabilities"`
	Permitted   uint64    `fmt:"hex"`
	Effective   uint64    `fmt:"hex"`
	Bounding    uint64    `fmt:"hex"`
	Ambient     uint64    `fmt:"hex"`
	SecureBits  uint32    `fmt:"hex" doc:"PR_GET_SECUREBITS"`
	_           [4]byte
	Groups      []uint32 `doc:"supplementary groups, ascending"`
}

// maxGroups is how many groups the record holds; the kernel would allow 65536.
const maxGroups = 8000

// siblingGroups is for how many there is room in the program of a thread that
// is not the first.
const siblingGroups = 256

type identitiesSave struct{ secure *tracer.Row }

func (*identitiesSave) Survey(v *View, status *procfs.Status) fault.List {
	name := threadName(v, status)
	if len(status.Groups) > maxGroups {
		return fault.List{{Code: fault.TooManyGroups, Object: name, Detail: fmt.Sprintf("%d groups", len(status.Groups))}}
	}
	switch _, ok, err := v.credentials(status); {
	case err != nil && !errors.Is(err, procfs.ErrGone):
		return fault.List{{Code: fault.ProcUnreadable, Object: name, Err: err}}
	case err == nil && !ok:
		return fault.List{{Code: fault.IDsUnknown, Object: name}}
	}
	return nil
}

func (g *identitiesSave) Ask(_ *Saver, _ *SavedThread, p *tracer.Program) {
	g.secure = p.Prctl(unix.PR_GET_SECUREBITS)
}

func (g *identitiesSave) Dump(s *Saver, t *SavedThread) error {
	c, ok, err := s.credentials(t.Status)
	if err != nil || !ok {
		return errors.Join(err, errors.New("read ids: not known in its user namespace"))
	}
	return s.W.Put(t.owner(), &credentialsRecord{
		UID: c.uid, GID: c.gid,
		Inheritable: c.caps.inheritable, Permitted: c.caps.permitted, Effective: c.caps.effective,
		Bounding: c.caps.bounding, Ambient: c.caps.ambient,
		SecureBits: uint32(g.secure.Result()),
		Groups:     c.groups,
	})
}

type identitiesRestore struct {
	*credentialsRecord // nil in images of before
	calls              []credCall
}

func (r *identitiesRestore) Load(b *Builder, t *LoadedThread) error {
	if b.leads(t) {
		b.secure = b.Stage().Prctl(unix.PR_GET_SECUREBITS)
	}
	if kind, err := b.R.Peek(); err != nil || kind != credentialsKind {
		return err
	}
	rec, _, err := image.Expect[credentialsRecord](b.R)
	if err != nil {
		return err
	}
	switch {
	case slices.Contains(slices.Concat(rec.UID[:], rec.GID[:], rec.Groups), ^uint32(0)):
		return badImage(fault.ImageValue, "credentials", "id -1")
	case len(rec.Groups) > maxGroups || !slices.IsSorted(rec.Groups):
		return badImage(fault.ImageValue, "credentials", "%d groups", len(rec.Groups))
	case rec.Effective&^rec.Permitted != 0 || rec.Ambient&^(rec.Permitted&rec.Inheritable) != 0:
		return badImage(fault.ImageValue, "credentials", "capabilities")
	case rec.SecureBits&^uint32(secureAll) != 0:
		return badImage(fault.ImageValue, "credentials", "securebits %#x", rec.SecureBits)
	}
	r.credentialsRecord = rec
	return nil
}

// Decide finds the calls by which the caller becomes who the thread was.
func (r *identitiesRestore) Decide(b *Builder, t *LoadedThread) error {
	if r.credentialsRecord == nil || b.Policy.IDs == CallerIDs {
		return nil
	}
	from, err := b.callerCredentials()
	if err != nil {
		return err
	}
	known, err := knownCaps()
	if err != nil {
		return err
	}
	to := &credentials{
		uid: r.UID, gid: r.GID, groups: r.Groups, secure: r.SecureBits,
		caps: capabilities{r.Inheritable & known, r.Permitted & known, r.Effective & known, r.Bounding & known, r.Ambient & known},
	}
	if less := to.caps.bounding &^ from.caps.bounding; less != 0 {
		if b.leads(t) {
			b.Warn("the capability bounding set lacks %#x, as that of the restarter does", less)
		}
		to.caps.bounding &^= less
	}
	if from.equal(to) {
		return nil
	}
	if unknown := to.secure &^ secureBitsKnown(); unknown != 0 {
		return &fault.Error{Code: fault.Identity, Object: "the securebits", Detail: fmt.Sprintf("this kernel does not know %#x", unknown)}
	}
	ns, err := b.Caller.userNamespace()
	if err != nil {
		return err
	}
	if r.calls, err = become(from, to, ns); err != nil {
		return refuseIdentity(from, to, err)
	}
	if !b.leads(t) && len(r.Groups) > siblingGroups && !slices.Equal(from.groups, to.groups) {
		return &fault.Error{Code: fault.Identity, Object: fmt.Sprintf("the %d groups of a thread", len(r.Groups)), Detail: fmt.Sprintf("more than %d", siblingGroups)}
	}
	if from.uid != to.uid || from.gid != to.gid {
		// From then on the kernel asks anew who may look at it.
		if may, err := tracesAll(); err != nil || !may {
			return errors.Join(err, &fault.Error{Code: fault.Identity, Object: to.who(), Detail: "crshim itself lacks CAP_SYS_PTRACE"})
		}
	}
	return nil
}

// refuseIdentity says what of the credentials cannot be had.
func refuseIdentity(from, to *credentials, err error) error {
	code := fault.Identity
	if errors.Is(err, unix.EINVAL) {
		code = fault.IdentityUnmapped
	}
	object := to.who()
	if to.who() == from.who() {
		object = "the capabilities"
	}
	return &fault.Error{Code: code, Object: object, Err: err}
}

// who names ids in a message.
func (c *credentials) who() string {
	text := fmt.Sprintf("user %d, group %d", c.uid[effectiveID], c.gid[effectiveID])
	for i := range c.uid {
		if c.uid[i] != c.uid[effectiveID] || c.gid[i] != c.gid[effectiveID] {
			text = fmt.Sprintf("users %v, groups %v", c.uid, c.gid)
		}
	}
	if len(c.groups) > 0 {
		text += fmt.Sprintf(", supplementary groups %v", c.groups)
	}
	return text
}

func (r *identitiesRestore) Commit(*Builder, *LoadedThread, *tracer.Program) error { return nil }

// Finish makes the calls, and sets again what a change of credentials resets:
// of the thread its parent-death signal, and for the whole process whether it
// can be dumped (commit_creds of kernel/cred.c).
func (r *identitiesRestore) Finish(b *Builder, t *LoadedThread, p *tracer.Program) error {
	for _, c := range r.calls {
		c.add(p)
	}
	p.Prctl(unix.PR_SET_PDEATHSIG, tracer.Imm(uint64(t.deathSignal)))
	p.Prctl(unix.PR_SET_DUMPABLE, tracer.Imm(b.dumpable))
	return nil
}

// callerCredentials are those of the caller before anything is changed.
func (b *Builder) callerCredentials() (*credentials, error) {
	if b.ids != nil {
		return b.ids, nil
	}
	c, ok, err := b.Caller.credentials(b.Caller.Status)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, &fault.Error{Code: fault.IdentityUnmapped, Object: "the identity of the caller"}
	}
	c.secure = uint32(b.secure.Result())
	b.ids = c
	return c, nil
}

// tracesAll tells whether we may look at processes of other users, and at those
// that are not dumpable.
func tracesAll() (bool, error) {
	own, err := procfs.Open(procfs.PID(os.Getpid()))
	if err != nil {
		return false, err
	}
	defer own.Close()
	status, err := own.Status()
	return err == nil && status.CapEff&(1<<unix.CAP_SYS_PTRACE) != 0, err
}

// knownCaps are the capabilities that this kernel has. What another one has
// besides is a right here that is not asked for.
var knownCaps = sync.OnceValues(func() (uint64, error) {
	text, err := os.ReadFile("/proc/sys/kernel/cap_last_cap")
	if err != nil {
		return 0, err
	}
	last, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 6)
	if err != nil {
		return 0, fmt.Errorf("parse the last capability: %w", err)
	}
	return 1<<(last+1) - 1, nil
})

// secureBitsKnown are the securebits of this kernel: those for interpreters,
// which anybody may set, are of Linux 6.14. A thread tries, and ends.
var secureBitsKnown = sync.OnceValue(func() uint32 {
	known := make(chan uint32)
	go func() {
		runtime.LockOSThread()
		own, err := unix.PrctlRetInt(unix.PR_GET_SECUREBITS, 0, 0, 0, 0)
		if err == nil && own&secureExecRestrict == 0 {
			err = unix.Prctl(unix.PR_SET_SECUREBITS, uintptr(own|secureExecRestrict), 0, 0, 0)
		}
		if err != nil {
			known <- secureAll &^ secureUnprivileged
			return
		}
		known <- secureAll
	}()
	return <-known
})

// words32 are numbers as they lie in memory.
func words32(w ...uint32) []byte {
	var b []byte
	for _, x := range w {
		b = binary.LittleEndian.AppendUint32(b, x)
	}
	return b
}

// threadName is how messages call a thread.
func threadName(v *View, status *procfs.Status) string {
	if status.Pid == v.PID {
		return v.Name()
	}
	return fmt.Sprintf("thread %d of %s", status.Pid, v.Name())
}
