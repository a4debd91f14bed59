package resource

import (
	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/tracer"
)

// Support says how completely a resource comes back.
type Support int

// The levels of support, as the table in docs/support.md prints them.
const (
	Full    Support = iota // as it was
	Partial                // with the limits that the note names
	Refused                // never saved: the checkpoint is refused by name
)

func (s Support) String() string {
	return [...]string{"full", "partial", "refused"}[s]
}

// Part is a kind of state that every process, or every thread, has exactly once.
type Part struct {
	Name    string
	Support Support
	Note    string       // what is kept, and the limits; one sentence or two
	Records []image.Spec // the rows it adds to the image format

	// Of the process; nil if there is nothing.
	Save    func() Saving
	Restore func() Restoring

	// Of each of its threads; nil if there is nothing.
	SaveThread    func() ThreadSaving
	RestoreThread func() ThreadRestoring
}

// Saving is a part on its way into an image.
type Saving interface {
	// Survey names what of the view cannot be saved.
	Survey(v *View) fault.List
	// Ask adds calls to the program that the frozen task runs before Dump.
	Ask(s *Saver, p *tracer.Program)
	// Dump writes the part's records.
	Dump(s *Saver) error
}

// Restoring is a part on its way out of an image.
type Restoring interface {
	// Load reads the part's records, checks them and stages what they describe.
	Load(b *Builder) error
	// Commit adds the calls that put the staged things into place.
	Commit(b *Builder, p *tracer.Program) error
}

// Parts is the table of parts, in the order of the image: that of the 2009
// code, with our own kinds in between. The other threads of a process follow
// behind it, each with those parts that threads have.
var Parts = []*Part{
	&identity,
	&filesystem,
	&limits,
	&attributes,
	&control,
	&memory,
	&files,
	&thread,
	&sibling,
	&switches,
	&handlers,
	&signals,
	&numa,
	&semaphores,
	&timers,
	&posixTimers,
	&scheduling,
	&identities,
	&sandbox,
	&clocks,
	&cpu,
	&tracing,
}

// Records returns the rows that all resources add to the image format.
func Records() []image.Spec {
	var specs []image.Spec
	for _, p := range Parts {
		specs = append(specs, p.Records...)
	}
	for _, k := range FileKinds {
		specs = append(specs, k.Records...)
	}
	return append(append(specs, ipcRecords...), netRecords...)
}

// nothingToAsk is for parts that /proc and ptrace tell enough of.
type nothingToAsk struct{}

func (nothingToAsk) Ask(*Saver, *tracer.Program) {}

// nothingToRefuse is for parts that can always be saved.
type nothingToRefuse struct{}

func (nothingToRefuse) Survey(*View) fault.List { return nil }
