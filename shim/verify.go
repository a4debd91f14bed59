package shim

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core"
	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/image"
)

// verdict is one question that verify asks of an image, with its answer.
type verdict struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail,omitempty"`
	Code   string `json:"code,omitempty"` // of the error if not OK
}

type verifyReport struct {
	report
	OK      bool         `json:"ok"`
	Checks  []verdict    `json:"checks"`
	Outside []outsideRow `json:"outside"` // descriptors that lead out of the image
}

func newVerifyCommand() *cobra.Command {
	asJSON := false
	cmd := &cobra.Command{
		Use:   "verify IMAGE",
		Short: "Check an image, and whether it can be restarted here",
		Long: `Read an image from front to back and check its structure and its checksum. Then say what of this machine would
stop a restart: another architecture, page size or vdso, processor state that is missing, files that cannot be
opened by the user who asks. At the end stand the descriptors that lead out of the image, and which of them crshim
restart has to be told about by --fd. IMAGE is a file, or - for standard input.

The exit status is 0 if nothing was found.`,
		Example: "  crshim verify img && crshim restart img",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var v inspection
			err := readImage(args[0], cmd.InOrStdin(), &v)
			r := verifyReport{report: report{schemaVersion}}
			var faults fault.List
			if err != nil {
				r.Checks = []verdict{{Name: "structure and checksum", Detail: err.Error()}}
			} else {
				r.Checks, faults = v.verify()
				err = faults.Err()
			}
			r.OK = err == nil
			r.Outside = v.outside()
			var writeErr error
			switch {
			case asJSON:
				writeErr = writeJSON(cmd.OutOrStdout(), r)
			case v.Whole:
				writeErr = errors.Join(r.write(cmd.OutOrStdout()), v.writeOutside(cmd.OutOrStdout()))
			default:
				writeErr = r.write(cmd.OutOrStdout())
			}
			if writeErr != nil {
				return writeErr
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return cmd
}

func (r verifyReport) write(w io.Writer) error {
	for _, c := range r.Checks {
		answer := no
		if c.OK {
			answer = yes
		}
		if _, err := fmt.Fprintf(w, "%-4s %-24s %s\n", answer, c.Name, c.Detail); err != nil {
			return err
		}
	}
	return nil
}

// verify compares an image that is whole with this machine.
func (v *inspection) verify() ([]verdict, fault.List) {
	detail := fmt.Sprintf("%d records, %s", len(v.Records), byteSize(v.Size))
	if n := len(v.Processes); n > 0 {
		detail += fmt.Sprintf(", %d processes", n)
	}
	checks := []verdict{{Name: "structure and checksum", OK: true, Detail: detail}}
	faults := fault.Flatten(v.machineFault())
	machine := verdict{Name: "machine", OK: len(faults) == 0, Detail: v.machineDetail()}
	if !machine.OK {
		machine.Code, machine.Detail = faults[0].Code.String(), faults[0].Message()
	}
	missing, names := v.missingFiles()
	files := verdict{Name: "files", OK: len(missing) == 0, Detail: fmt.Sprintf("%d names", names)}
	if !files.OK {
		files.Code, files.Detail = fault.FileOpen.String(), fmt.Sprintf("%d of %d names cannot be opened", len(missing), names)
	}
	outside := verdict{Name: "leads outside", OK: true, Detail: fmt.Sprintf("descriptors: %d, of which --fd is needed for %d", len(v.Outwards.List), needed(v.Outwards.List))}
	return append(checks, machine, files, outside), append(faults, missing...)
}

// machineFault is what a restart would say before it looks at anything else.
func (v *inspection) machineFault() error {
	if v.Machine == nil || v.FPU == nil {
		return &fault.Error{Code: fault.ImageUnsupported, Detail: "it does not say which machine it needs"}
	}
	own, err := core.ThisMachine()
	if err != nil {
		return &fault.Error{Code: fault.ImageUnsupported, Err: err}
	}
	return core.CheckMachine(v.FPU, v.Machine, own)
}

func (v *inspection) machineDetail() string {
	m := v.Machine
	if m == nil {
		return ""
	}
	return fmt.Sprintf("%s, pages of %d bytes, processor state %#x, vdso %016x", unix.ByteSliceToString(m.Arch[:]), m.PageSize, m.XFeatures, m.VdsoSum)
}

// missingFiles looks for every file that the image names, from the root directory that it was saved with, and opens
// none for reading or writing: that would be done by a restart alone. Those of a container are looked for where they are on the host.
func (v *inspection) missingFiles() (missing fault.List, names int) {
	root := "/"
	seen := map[string]bool{}
	var container containerFiles
	for i, rec := range v.Records {
		container.add(&rec)
		path := rec.path()
		if rec.Name == "EXE" && strings.HasSuffix(path, " (deleted)") {
			continue // it comes from the image, or stays away
		}
		if path == "" || i+1 < len(v.Records) && v.Records[i+1].carriesFile() {
			continue
		}
		if rec.Name == "FS_ROOT" {
			root = path
		} else {
			path = filepath.Join(root, path)
		}
		if path = container.onHost(path); path == "" || seen[path] {
			continue
		}
		seen[path] = true
		names++
		fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			missing = append(missing, &fault.Error{Code: fault.FileOpen, Object: path, Err: err})
			continue
		}
		unix.Close(fd)
	}
	return missing, names
}

// carriesFile tells whether the record says of a mapping that its file is in the image: the name before it leads nowhere.
func (rec inspected) carriesFile() bool {
	return rec.Name == "VMA_MORE" && slices.ContainsFunc(rec.Fields, func(f image.Field) bool { return f.Name == "Objref" && f.Value != "0" })
}

// path is the name of a file that a restart opens, or "".
func (rec inspected) path() string {
	field := map[string]string{"FNAME": "Name", "FIFO": "Name", "INOTIFY_WATCH": "Name", "EXE": "Path", "FS_ROOT": "Path", "FS_CWD": "Path"}[rec.Name]
	for _, f := range rec.Fields {
		if f.Name == field {
			if path, err := strconv.Unquote(f.Value); err == nil {
				return path
			}
		}
	}
	return ""
}
