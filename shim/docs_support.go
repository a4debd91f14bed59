package shim

import (
	"fmt"
	"io"
	"strings"

	"github.com/crshim/crshim/core"
	"github.com/crshim/crshim/core/fault"
	"github.com/crshim/crshim/core/resource"
	"github.com/crshim/crshim/syscalls"
)

// writeSupport prints docs/support.md: the calls, what a process has that comes back, and what is refused.
func writeSupport(w io.Writer) error {
	var b strings.Builder
	b.WriteString(`# What is supported

Printed from the tables of the program. *full* means as it was before, *partial* with the limits that the note names.
What is in neither table is refused by name, before anything is stopped for good and before an image is begun.

## Calls

| number | call | level | note |
|---:|---|---|---|
`)
	for _, call := range syscalls.Table {
		args := make([]string, len(call.Args))
		for i, arg := range call.Args {
			args[i] = fmt.Sprintf("%v %s", arg.Type, arg.Name)
		}
		fmt.Fprintf(&b, "| %d | `%s(%s)` | %v | %s |\n", call.Number, call.Name, strings.Join(args, ", "), call.Support, cell(call.Note))
	}
	b.WriteString("\n## State of a process\n\n| what | level | note |\n|---|---|---|\n")
	for _, part := range resource.Parts {
		fmt.Fprintf(&b, "| %s | %v | %s |\n", part.Name, part.Support, cell(part.Note))
	}
	b.WriteString("\n## Processes of a tree\n\n| what | level | note |\n|---|---|---|\n")
	for _, row := range core.Relations {
		fmt.Fprintf(&b, "| %s | %v | %s |\n", row.Name, row.Support, cell(row.Note))
	}
	b.WriteString("\n## Open files\n\n| what | level | note |\n|---|---|---|\n")
	for _, kind := range resource.FileKinds {
		fmt.Fprintf(&b, "| %s | %v | %s |\n", kind.Name, kind.Support, cell(kind.Note))
	}
	b.WriteString("\n## Refused by name\n\nEach with the errno that the call returns; `crshim explain CODE` says why, and what to try.\n\n| code | errno | refusal |\n|---|---|---|\n")
	for _, row := range fault.All() {
		if row.Code < 1500 && row.Errno != 0 {
			fmt.Fprintf(&b, "| [%v](errors.md#%s) | %s | %s |\n", row.Code, strings.ToLower(row.Code.String()), fault.ErrnoName(row.Errno), cell(row.Summary()))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// cell is text fit for one cell of a Markdown table.
func cell(s string) string {
	return strings.NewReplacer("|", "\\|", "\n", " ").Replace(s)
}
