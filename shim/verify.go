package shim

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core/fault"
)

// check is one question that verify asks of an image, with its answer.
type check struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail,omitempty"`
	Code   string `json:"code,omitempty"` // of the error if not OK
}

type verifyReport struct {
	report
	OK     bool    `json:"ok"`
	Checks []check `json:"checks"`
}

func newVerifyCommand() *cobra.Command {
	asJSON := false
	cmd := &cobra.Command{
		Use:   "verify IMAGE",
		Short: "Check an image, and whether it can be restarted here",
		Long: `Read an image from front to back and check its structure and its checksum. Then say what of this machine would
stop a restart: another architecture, page size or vdso, processor state that is missing, files that cannot be
opened by the user who asks. IMAGE is a file, or - for standard input.

The exit status is 0 if nothing was found.`,
		Example: "  crshim verify img && crshim restart img",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var v inspection
			err := readImage(args[0], cmd.InOrStdin(), &v)
			r := verifyReport{report: report{schemaVersion}}
			var faults fault.List
			if err != nil {
				r.Checks = []check{{Name: "structure and checksum", Detail: err.Error()}}
			} else {
				r.Checks, faults = v.verify()
				err = faults.Err()
			}
			r.OK = err == nil
			var writeErr error
			if asJSON {
				writeErr = writeJSON(cmd.OutOrStdout(), r)
			} else {
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
func (v *inspection) verify() ([]check, fault.List) {
	checks := []check{{Name: "structure and checksum", OK: true, Detail: fmt.Sprintf("%d records, %s", len(v.Records), byteSize(v.Size))}}
	var faults fault.List
	say := func(name string, ok bool, detail string, code fault.Code) {
		c := check{Name: name, OK: ok, Detail: detail}
		if !ok {
			c.Code = code.String()
			faults = append(faults, &fault.Error{Code: code, Detail: detail})
		}
		checks = append(checks, c)
	}
	if m := v.Machine; m != nil {
		host := hostMachine()
		say("architecture", m.Arch == host.Arch, fmt.Sprintf("%s, here %s", cString(m.Arch[:]), cString(host.Arch[:])), fault.ImageArch)
		say("page size", m.PageSize == host.PageSize, fmt.Sprintf("%d, here %d", m.PageSize, host.PageSize), fault.ImagePageSize)
		lacking := m.XFeatures &^ host.XFeatures
		say("processor state", lacking == 0, fmt.Sprintf("components %#x, here %#x", m.XFeatures, host.XFeatures), fault.ImageXsave)
		vdsoSame := m.VdsoSize == 0 || m.VdsoSum == host.VdsoSum && m.VdsoSize == host.VdsoSize
		say("vdso", vdsoSame, fmt.Sprintf("%d bytes, sum %016x; here %d bytes, sum %016x", m.VdsoSize, m.VdsoSum, host.VdsoSize, host.VdsoSum), fault.ImageVdso)
		say("profile of the calls", m.CallProfile == host.CallProfile, strconv.Itoa(int(m.CallProfile)), fault.ImageProfile)
	}
	missing, names := v.missingFiles()
	detail := fmt.Sprintf("%d names", names)
	if len(missing) > 0 {
		detail = fmt.Sprintf("%d of %d names cannot be opened", len(missing), names)
	}
	files := check{Name: "files", OK: len(missing) == 0, Detail: detail}
	if !files.OK {
		files.Code = fault.FileOpen.String()
	}
	return append(checks, files), append(faults, missing...)
}

// missingFiles looks for every file that the image names, from the root directory that it was saved with, and opens
// none for reading or writing: that would be done by a restart alone.
func (v *inspection) missingFiles() (missing fault.List, names int) {
	root := "/"
	seen := map[string]bool{}
	for _, rec := range v.Records {
		path := rec.path()
		if path == "" {
			continue
		}
		if rec.Name == "FS_ROOT" {
			root = path
		} else {
			path = filepath.Join(root, path)
		}
		if seen[path] {
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

// path is the name of a file that a restart opens, or "".
func (rec inspected) path() string {
	field := map[string]string{"FNAME": "Name", "EXE": "Path", "FS_ROOT": "Path", "FS_CWD": "Path"}[rec.Name]
	for _, f := range rec.Fields {
		if f.Name == field {
			if path, err := strconv.Unquote(f.Value); err == nil {
				return path
			}
		}
	}
	return ""
}

func cString(b []byte) string {
	text, _, _ := bytes.Cut(b, []byte{0})
	return string(text)
}

// vdso returns the code page that the kernel maps into every process, from our own memory. It is empty if there is none
// (vdso=0 on the kernel's command line).
func vdso() ([]byte, error) {
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(maps)) {
		if !strings.HasSuffix(strings.TrimSpace(line), "[vdso]") {
			continue
		}
		var start, end int64
		if _, err := fmt.Sscanf(line, "%x-%x", &start, &end); err != nil {
			return nil, fmt.Errorf("parse /proc/self/maps: %w", err)
		}
		mem, err := os.Open("/proc/self/mem")
		if err != nil {
			return nil, err
		}
		defer mem.Close()
		code := make([]byte, end-start)
		if _, err := mem.ReadAt(code, start); err != nil {
			return nil, fmt.Errorf("read the vdso: %w", err)
		}
		return code, nil
	}
	return nil, nil
}
