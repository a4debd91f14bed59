package shim

import (
	"encoding/json"
	"io"
)

// schemaVersion is the schema_version of every --json report. It grows when a field changes its meaning or goes
// away; a new field does not change it.
const schemaVersion = 1

// report is what every --json object begins with.
type report struct {
	SchemaVersion int `json:"schema_version"`
}

// writeJSON prints v for people and machines alike: indented, one value, a newline at the end.
func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}
