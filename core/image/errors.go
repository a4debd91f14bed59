package image

import (
	"errors"
	"fmt"
)

// What is wrong with an image, for errors.Is.
var (
	// ErrFormat is any image whose bytes are not those of a valid image.
	ErrFormat = errors.New("invalid image")

	// ErrTruncated is an image that ends before its TAIL.
	ErrTruncated = errors.New("image ends early")

	// ErrSum is an ErrFormat: the checksum does not match.
	ErrSum = errors.New("checksum does not match")

	// ErrUnknown is an ErrFormat: a record of unknown kind that must not be
	// left out.
	ErrUnknown = errors.New("record of unknown kind")
)

// FormatError says where an image is wrong. It is ErrFormat.
type FormatError struct {
	Offset int64  // of the record, as Reader.Offset counts
	Kind   Kind   // of the record; 0 if it has none yet
	Name   string // of the kind, or its number
	Reason string
	Err    error // ErrSum, ErrUnknown or nil
}

// Error returns "invalid image: VMA record at offset 1234: REASON".
func (e *FormatError) Error() string {
	if e.Name == "" {
		return fmt.Sprintf("%v: at offset %d: %s", ErrFormat, e.Offset, e.Reason)
	}
	return fmt.Sprintf("%v: %s record at offset %d: %s", ErrFormat, e.Name, e.Offset, e.Reason)
}

// Unwrap makes e an ErrFormat and what Err says.
func (e *FormatError) Unwrap() []error {
	if e.Err == nil {
		return []error{ErrFormat}
	}
	return []error{ErrFormat, e.Err}
}

// RemoteError is an ERROR record met in an image: who wrote it failed, and
// says why.
type RemoteError struct {
	Record Error
}

// Error returns the text of the writer.
func (e *RemoteError) Error() string {
	return "the writer of the image failed: " + e.Record.Text
}
