package resource

import (
	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/core/object"
	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// files is the descriptor table. Which file stands behind a descriptor is the
// matter of FileKinds; here is which descriptors there are and which of them
// share one open file.
var files = Part{
	Name:    "descriptor table",
	Support: Full,
	Note: "Numbers, close-on-exec flags, and which descriptors share one open file and its offset. Locks of every kind (flock, POSIX, " +
		"OFD), leases, and who gets signals about an open file, if that is the process itself or its process group. A lock that " +
		"somebody else holds by now makes the restart fail.",
	Records: attachedRecords,
	Save:    func() Saving { return new(filesSave) },
	Restore: func() Restoring { return new(filesRestore) },
}

// FileKind is a kind of open file.
type FileKind struct {
	Name    string
	Support Support
	Note    string
	Records []image.Spec
	Match   func(v *View, f *procfs.FD) bool
	// Refuse names why this one cannot be saved; nil if it can.
	Refuse func(v *View, f *procfs.FD) *fault.Error
	// Dump writes the records of the open file, the first with the object's
	// reference as its parent.
	Dump func(s *Saver, f *procfs.FD, ref object.Ref) error
	// Kind is that of the first record; it tells Load which kind to call.
	Kind image.Kind
	// Load reads those records and stages the opening of the file.
	Load func(b *Builder, ref object.Ref) (*stagedOpen, error)
	// Skip reads them where something else takes the place of the file, which
	// may not be there; nil if Load always can, which is then done for the
	// sake of what the file shares with others, and it is closed again.
	Skip func(b *Builder, ref object.Ref) (*stagedOpen, error)
}

// stagedOpen is an open file of the image, open in the caller.
type stagedOpen struct {
	fd     tracer.FD
	path   string
	verify func(f *procfs.FD) error // what the file must be; nil for anything
	epoll  *stagedEpoll             // what it watches, if it is an epoll instance

	kind     image.Kind // of the image; that of its first record
	flags    uint32     // of the image
	pos      int64      // of the image, if it is a regular file or directory
	attached attached
	late     bool            // the offset is set by the commit: the kernel reads ahead there
	external *externalRecord // what it was, or what it takes the place of, if that led outside
	replaces bool            // what the image has, by the policy
}

// FileKinds is the table of kinds, asked in order.
var FileKinds = []*FileKind{
	&mqueue, &deletedFile, &regularFile, &directory, &placeFile,
	&device, &pty,
	&pipe, &fifo,
	&unixSocket, &udpSocket, &tcpSocket, &mptcpSocket, &netlinkSocket, &refusedSocket,
	&external,
	&eventfd, &signalfd, &timerfd,
	&epoll,
	&memfd,
	&pidfd, &inotify,
	&refusedFile,
}

func kindOf(v *View, f *procfs.FD) *FileKind {
	for _, k := range FileKinds {
		if !k.Match(v, f) {
			continue
		}
		if v.External && maybeExternal(f) && k.Refuse(v, f) != nil {
			return &external
		}
		if k == &regularFile && v.outsideFile(f) {
			return &external
		}
		return k
	}
	return &refusedFile
}
