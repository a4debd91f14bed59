package syscalls

// First and Last bound the numbers of emulated calls, both included.
const (
	First = 1000
	Last  = 1023
)

// The numbers of this release; shim/include/crshim.h says the same to C.
const (
	NRCheckpoint = 1000
	NRRestart    = 1001
	NRCrgetid    = 1002
)

// Support says how much of a call's contract is kept.
type Support int

// The levels, from nothing to everything. What a Partial call lacks stands in its note.
const (
	Unimplemented Support = iota
	Partial
	Full
)

func (s Support) String() string {
	return [...]string{"unimplemented", "partial", "full"}[s]
}

// Type is the C type of an argument.
type Type int

// The types that arguments have so far.
const (
	Int Type = iota
	PID
	Ulong
)

func (t Type) String() string {
	return [...]string{"int", "pid_t", "unsigned long"}[t]
}

// Arg is one argument of a call.
type Arg struct {
	Name string
	Type Type
}

// Handler does a call; the package comment tells what its results mean.
type Handler func(*Context) (int64, error)

// Call is one emulated call.
type Call struct {
	Number  int
	Name    string
	Args    []Arg
	Handle  Handler
	Support Support
	Note    string // what a reader of the table should know; may be empty
}

// Table holds every emulated call, ascending by number.
var Table = []Call{
	{
		Number:  NRCheckpoint,
		Name:    "checkpoint",
		Args:    []Arg{{"pid", PID}, {"fd", Int}, {"flags", Ulong}},
		Handle:  handleCheckpoint,
		Support: Partial,
		Note:    "Saves a process with all its threads and all processes that descend from it; a caller that names itself is saved alone.",
	},
	{
		Number:  NRRestart,
		Name:    "restart",
		Args:    []Arg{{"crid", Int}, {"fd", Int}, {"flags", Ulong}},
		Handle:  handleRestart,
		Support: Partial,
		Note:    "Rebuilds the process in the place of the caller, which has one thread itself, and those that descended from it as its children, which it makes or which wait in the same call.",
	},
	{
		Number:  NRCrgetid,
		Name:    "crgetid",
		Handle:  handleCrgetid,
		Support: Full,
		Note:    "Not of 2009: the example of docs/adding-a-syscall.md. Returns the last crid that the calling process was given, 0 if none.",
	},
}

// Numbers returns the numbers in Table: what a filter has to catch.
func Numbers() []int {
	numbers := make([]int, len(Table))
	for i, call := range Table {
		numbers[i] = call.Number
	}
	return numbers
}

// Lookup returns the call of that number; ok is false if there is none.
func Lookup(number int) (call *Call, ok bool) {
	for i := range Table {
		if Table[i].Number == number {
			return &Table[i], true
		}
	}
	return nil, false
}
