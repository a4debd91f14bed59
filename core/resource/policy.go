package resource

// Policy is what a restart does about things that the image cannot bring back
// by itself. The zero value is what restart(2) does.
type Policy struct {
	// Descriptors says what stands behind a descriptor instead of what the
	// image has, by its number in the image: one of the words below, or an
	// absolute path.
	Descriptors map[int32]string
	Files       FilesPolicy
	TCP         TCPPolicy
	IDs         IDsPolicy
	Limits      LimitsPolicy
	// Stopped has the first process stopped in the end, as by SIGSTOP. Without it
	// that one runs, whatever it did when it was saved.
	Stopped bool
}

// What Policy.Descriptors may say besides a path.
const (
	InheritFD = "inherit" // the restarter's own descriptor of that number
	NullFD    = "null"    // /dev/null
	HangupFD  = "hangup"  // a stream whose other end is gone: nothing to read, EPIPE and SIGPIPE for who writes
	CloseFD   = "close"   // nothing
)

// FilesPolicy is what happens to a regular file that is not as it was.
type FilesPolicy int

// The policies for files.
const (
	VerifyFiles   FilesPolicy = iota // refuse one that is shorter than it was, or another one
	RollbackFiles                    // give it back the content that the image has of it
	TruncateFiles                    // cut off what was written after the checkpoint
	IgnoreFiles                      // take it as it is
)

// TCPPolicy is what becomes of a connection that leads out of the image.
type TCPPolicy int

// The policies for connections.
const (
	ResetTCP TCPPolicy = iota // the program sees ECONNRESET, as after a fault of the network
	KeepTCP                   // it goes on where the kernel allows (TCP_REPAIR of tcp(7))
)

// IDsPolicy is who the process is afterwards.
type IDsPolicy int

// The policies for user and group ids, capabilities and securebits.
const (
	ImageIDs  IDsPolicy = iota // who it was; refused if the caller may not become that
	CallerIDs                  // who the caller is
)

// LimitsPolicy is what the process may use afterwards.
type LimitsPolicy int

// The policies for resource limits, scheduling and priorities.
const (
	ImageLimits  LimitsPolicy = iota // what it might before; refused if the caller may not have that
	CallerLimits                     // what the caller may
)
