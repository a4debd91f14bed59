package tracer

import (
	"encoding/hex"
	"strings"
)

// Machine code stands here as a listing: bytes, and behind the semicolon the
// instruction in the syntax of the GNU assembler. A test assembles the right
// column and compares.
type listing string

// assemble returns the left column.
func (l listing) assemble() []byte {
	var code []byte
	for line := range strings.Lines(string(l)) {
		digits, _, _ := strings.Cut(line, ";")
		b, err := hex.DecodeString(strings.Join(strings.Fields(digits), ""))
		if err != nil {
			panic(err) // a constant of ours
		}
		code = append(code, b...)
	}
	return code
}

// offset returns where the instruction that bears the label begins.
func (l listing) offset(label string) uint64 {
	before, _, found := strings.Cut(string(l), "; "+label+":")
	if !found {
		panic("no label " + label)
	}
	return uint64(len(listing(before[:strings.LastIndexByte(before, '\n')+1]).assemble()))
}
