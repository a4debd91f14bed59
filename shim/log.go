package shim

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"github.com/sirupsen/logrus"
	"github.com/spf13/pflag"

	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/syscalls"
)

// logConfig says what is logged, and where.
type logConfig struct {
	Level  string
	Format string
	Trace  string `json:",omitzero"` // "" off, "-" standard error, else a file
}

// The values of --log-format.
const (
	formatText = "text"
	formatJSON = "json"
)

// traceStderr is the value of a --trace without one.
const traceStderr = "-"

// register adds the flags to a command.
func (c *logConfig) register(flags *pflag.FlagSet) {
	flags.StringVar(&c.Level, "log-level", logrus.WarnLevel.String(), "what is logged to standard error: error, warning, info, debug, trace")
	flags.StringVar(&c.Format, "log-format", formatText, "how: text or json")
	flags.StringVar(&c.Trace, "trace", "", "print one line for each emulated call, to standard error or to `FILE`")
	flags.Lookup("trace").NoOptDefVal = traceStderr
}

// check fails for a value that newLog would refuse.
func (c *logConfig) check() error {
	if _, err := logrus.ParseLevel(c.Level); err != nil {
		return fmt.Errorf("--log-level: %w", err)
	}
	if c.Format != formatText && c.Format != formatJSON {
		return fmt.Errorf("--log-format: %q is neither %s nor %s", c.Format, formatText, formatJSON)
	}
	return nil
}

// callLog is the log of a supervisor.
type callLog struct {
	*logrus.Logger
	tracer io.Writer // nil: off
	mu     sync.Mutex
}

// newLog opens the log. The file of a trace is appended to, so that several jobs may share it.
func newLog(c logConfig) (*callLog, error) {
	level, err := logrus.ParseLevel(c.Level)
	if err != nil {
		return nil, err
	}
	l := &callLog{Logger: logrus.New()}
	l.SetLevel(level)
	l.SetOutput(os.Stderr)
	if c.Format == formatJSON {
		l.SetFormatter(&logrus.JSONFormatter{})
	} else {
		l.SetFormatter(&logrus.TextFormatter{DisableColors: true, DisableTimestamp: true})
	}
	switch c.Trace {
	case "":
	case traceStderr:
		l.tracer = os.Stderr
	default:
		l.tracer, err = os.OpenFile(c.Trace, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
		if err != nil {
			return nil, fmt.Errorf("open trace: %w", err)
		}
	}
	return l, nil
}

// trace returns what Dispatcher.Trace calls, nil if there is no trace.
func (l *callLog) trace() func(string) {
	if l.tracer == nil {
		return nil
	}
	return func(line string) {
		l.mu.Lock()
		defer l.mu.Unlock()
		if _, err := io.WriteString(l.tracer, line+"\n"); err != nil {
			l.WithError(err).Error("cannot write trace")
		}
	}
}

// warn logs a call that failed, with the words behind its errno.
func (l *callLog) warn(c *syscalls.Context, call string, err error) {
	fields := logrus.Fields{"pid": int(c.TID), "call": call}
	var tries []string
	for _, code := range fault.Codes(err) {
		if row, ok := fault.Lookup(code); ok {
			tries = append(tries, row.Try)
		}
	}
	if len(tries) > 0 {
		fields["try"] = strings.Join(tries, " ")
	}
	l.WithFields(fields).Warn(err)
}
