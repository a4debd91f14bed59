package image

import (
	"bytes"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// Field is one field of a record, for people to read.
type Field struct {
	Name  string
	Value string
}

// Fields returns the fields of a record struct, or of the one that rec points
// to, without padding. The tag fmt chooses the form: hex, oct, time (seconds
// since 1970), text (bytes up to a NUL), size (only how many bytes), flags
// (names from the tag flags); integers are decimal without it.
func Fields(rec any) []Field {
	v := reflect.Indirect(reflect.ValueOf(rec))
	if v.Kind() != reflect.Struct {
		return nil
	}
	var fields []Field
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if f.PkgPath != "" { // padding is a blank field, which is not exported
			continue
		}
		fields = append(fields, Field{Name: f.Name, Value: format(v.Field(i), f.Tag)})
	}
	return fields
}

// format returns v in the form that its tag asks for.
func format(v reflect.Value, tag reflect.StructTag) string {
	form := tag.Get("fmt")
	switch v.Kind() {
	case reflect.String:
		return strconv.Quote(v.String())
	case reflect.Array, reflect.Slice:
		if form == "size" {
			return fmt.Sprintf("%d bytes", v.Len())
		}
		if v.Type().Elem().Kind() == reflect.Uint8 {
			return formatBytes(v, form)
		}
		parts := make([]string, v.Len())
		for i := range parts {
			parts[i] = format(v.Index(i), tag)
		}
		return "[" + strings.Join(parts, " ") + "]"
	case reflect.Struct:
		var parts []string
		for _, f := range Fields(v.Interface()) {
			parts = append(parts, f.Name+"="+f.Value)
		}
		return "{" + strings.Join(parts, " ") + "}"
	case reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return formatBits(uint64(v.Int()), strconv.FormatInt(v.Int(), 10), tag)
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return formatBits(v.Uint(), strconv.FormatUint(v.Uint(), 10), tag)
	}
	return fmt.Sprint(v.Interface())
}

func formatBytes(v reflect.Value, form string) string {
	b := make([]byte, v.Len())
	reflect.Copy(reflect.ValueOf(b), v)
	if form != "text" {
		return fmt.Sprintf("%x", b)
	}
	text, _, _ := bytes.Cut(b, []byte{0})
	return strconv.Quote(string(text))
}

// formatBits formats an integer, of which decimal is the plain form.
func formatBits(bits uint64, decimal string, tag reflect.StructTag) string {
	switch tag.Get("fmt") {
	case "hex":
		return fmt.Sprintf("%#x", bits)
	case "oct":
		return fmt.Sprintf("%#o", bits)
	case "time":
		if bits > 1<<40 { // beyond what a calendar can print
			return decimal
		}
		return time.Unix(int64(bits), 0).UTC().Format(time.RFC3339)
	case "flags":
		return formatFlags(bits, tag.Get("flags"))
	}
	return decimal
}

// formatFlags joins the names of the bits that are set. names is as
// "1=READ 2=WRITE", bits in hexadecimal.
func formatFlags(bits uint64, names string) string {
	var set []string
	for _, entry := range strings.Fields(names) {
		hex, name, _ := strings.Cut(entry, "=")
		if bit, err := strconv.ParseUint(hex, 16, 64); err == nil && bits&bit == bit {
			set = append(set, name)
			bits &^= bit
		}
	}
	if bits != 0 || len(set) == 0 {
		set = append(set, fmt.Sprintf("%#x", bits))
	}
	return strings.Join(set, "|")
}
