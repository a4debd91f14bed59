package procfs

import (
	"bytes"
	"fmt"
	"math"
	"strconv"
)

// Field is one "key: value" line whose meaning is left to the reader.
type Field struct {
	Key, Value string
}

// lines calls fn for each line of data, without its end.
func lines(data []byte, fn func(n int, line []byte) error) error {
	for n := 1; len(data) > 0; n++ {
		line, rest, _ := bytes.Cut(data, []byte{'\n'})
		if err := fn(n, line); err != nil {
			return err
		}
		data = rest
	}
	return nil
}

// word cuts the first word from b; spaces and tabs around it go. Smaps calls
// it for every line: a loop is twice as fast as bytes.IndexAny.
func word(b []byte) (first, rest []byte) {
	start := blanks(b)
	end := start
	for end < len(b) && b[end] != ' ' && b[end] != '\t' {
		end++
	}
	first, rest = b[start:end], b[end:]
	return first, rest[blanks(rest):]
}

// blanks counts the spaces and tabs that b begins with.
func blanks(b []byte) int {
	n := 0
	for n < len(b) && (b[n] == ' ' || b[n] == '\t') {
		n++
	}
	return n
}

// keyValue splits "key:<space>value".
func keyValue(line []byte) (key, value []byte, ok bool) {
	key, value, ok = bytes.Cut(line, []byte{':'})
	return key, bytes.TrimSpace(value), ok && len(key) > 0
}

func malformed(what string, text []byte) error {
	const most = 80
	if len(text) > most {
		text = text[:most]
	}
	return fmt.Errorf("%s %q: %w", what, text, ErrFormat)
}

// unsigned is an integer type that a /proc file prints without a sign.
type unsigned interface {
	~uint8 | ~uint16 | ~uint32 | ~uint64
}

type signed interface {
	~int8 | ~int16 | ~int32 | ~int64
}

// uintOf parses b, all of it, into T; what does not fit T is an error.
func uintOf[T unsigned](b []byte, base int) (T, error) {
	v, err := strconv.ParseUint(string(b), base, 64)
	if err != nil || uint64(T(v)) != v {
		return 0, malformed("number", b)
	}
	return T(v), nil
}

func intOf[T signed](b []byte) (T, error) {
	v, err := strconv.ParseInt(string(b), 10, 64)
	if err != nil || int64(T(v)) != v {
		return 0, malformed("number", b)
	}
	return T(v), nil
}

// hexOf parses 0x... .
func hexOf[T unsigned](b []byte) (T, error) {
	digits, ok := bytes.CutPrefix(b, []byte("0x"))
	if !ok {
		return 0, malformed("hexadecimal number", b)
	}
	return uintOf[T](digits, 16)
}

// kilobytes parses "12 kB" into bytes.
func kilobytes(b []byte) (uint64, error) {
	num, unit := word(b)
	v, err := uintOf[uint64](num, 10)
	if err != nil {
		return 0, err
	}
	if string(unit) != "kB" || v > math.MaxUint64/1024 {
		return 0, malformed("size", b)
	}
	return v * 1024, nil
}

// list parses the words of b one by one. No words give nil.
func list[T any](b []byte, parse func([]byte) (T, error)) ([]T, error) {
	var out []T
	for {
		var w []byte
		if w, b = word(b); len(w) == 0 {
			return out, nil
		}
		v, err := parse(w)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
}

func decimal[T unsigned](b []byte) (T, error) { return uintOf[T](b, 10) }

// parseStrings splits strings that each end in a NUL (cmdline, environ). A
// program may have overwritten the area: a missing last NUL is allowed.
func parseStrings(data []byte) ([]string, error) {
	if len(data) == 0 {
		return nil, nil
	}
	data, _ = bytes.CutSuffix(data, []byte{0})
	parts := bytes.Split(data, []byte{0})
	out := make([]string, len(parts))
	for i, s := range parts {
		out[i] = string(s)
	}
	return out, nil
}
