package core

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/image"
	"github.com/crshim/crshim/tracer"
	"github.com/crshim/crshim/tracer/procfs"
)

// attentive reads a stream on behalf of a caller, and gives up when the caller
// ends: nobody else may ever write to the stream, or close it.
type attentive struct {
	in    *os.File
	pidfd int // -1 without a caller
}

var _ io.Reader = (*attentive)(nil)

func (a *attentive) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	fds := []unix.PollFd{{Fd: int32(a.in.Fd()), Events: unix.POLLIN}, {Fd: int32(a.pidfd), Events: unix.POLLIN}}
	for {
		if _, err := unix.Poll(fds, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return 0, fmt.Errorf("wait for image: %w", err)
		}
		if fds[1].Revents != 0 {
			return 0, fmt.Errorf("wait for image: caller: %w", tracer.ErrGone)
		}
		if fds[0].Revents == 0 {
			continue
		}
		n, err := unix.Read(int(a.in.Fd()), b)
		switch {
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return 0, fmt.Errorf("read image: %w", err)
		case n == 0:
			return 0, io.EOF
		}
		return n, nil
	}
}

// openSource opens an image for a caller, 0 for none. The source holds on to
// what close releases.
func openSource(in *os.File, caller procfs.PID) (source image.Source, closeSource func(), err error) {
	info, err := in.Stat()
	if err != nil {
		return nil, nil, fmt.Errorf("open image: %w", err)
	}
	if info.Mode().IsRegular() {
		source, err = image.NewFileSource(in)
		return source, func() {}, err
	}
	a := &attentive{in: in, pidfd: -1}
	if caller != 0 {
		if a.pidfd, err = unix.PidfdOpen(int(caller), 0); err != nil {
			return nil, nil, fmt.Errorf("watch caller: %w", err)
		}
	}
	return image.NewStreamSource(a), func() {
		if a.pidfd >= 0 {
			_ = unix.Close(a.pidfd) // only watched
		}
	}, nil
}

// limited writes to a file as a process would whose RLIMIT_FSIZE is limit: it
// is that process's image, whoever writes it (setrlimit(2)).
type limited struct {
	out   *os.File
	limit int64
}

func (l *limited) Write(b []byte) (int, error) {
	at, err := l.out.Seek(0, io.SeekCurrent)
	if err != nil {
		return 0, err
	}
	if at+int64(len(b)) > l.limit {
		return 0, fmt.Errorf("write image: %w", unix.EFBIG)
	}
	return l.out.Write(b)
}

// imageWriter returns what the image is written to, within the limits of the
// process that asked for it.
func imageWriter(out *os.File, asker procfs.PID) (io.Writer, error) {
	if asker == 0 {
		return out, nil // the kernel watches our own
	}
	limit, err := procfs.LimitOf(asker, unix.RLIMIT_FSIZE)
	if err != nil {
		return nil, fmt.Errorf("read file size limit of the caller: %w", err)
	}
	info, err := out.Stat()
	if err != nil {
		return nil, err
	}
	if limit.Soft > 1<<62 || !info.Mode().IsRegular() {
		return out, nil
	}
	return &limited{out: out, limit: int64(limit.Soft)}, nil
}
