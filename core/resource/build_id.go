package resource

import (
	"bytes"
	"encoding/binary"
)

// buildID finds the GNU build id in the first page of an ELF file, nil if
// there is none (elf(5); NT_GNU_BUILD_ID is note type 3 of owner "GNU").
func buildID(page []byte) []byte {
	const ptNote, ntGNUBuildID = 4, 3
	if len(page) < 64 || !bytes.HasPrefix(page, []byte("\x7fELF\x02\x01")) {
		return nil
	}
	le := binary.LittleEndian
	phoff, phentsize, phnum := le.Uint64(page[32:]), uint64(le.Uint16(page[54:])), uint64(le.Uint16(page[56:]))
	if phentsize < 56 {
		return nil
	}
	size := uint64(len(page))
	for i := range phnum {
		at := phoff + i*phentsize
		if phoff > size || at+56 > size {
			return nil
		}
		if le.Uint32(page[at:]) != ptNote {
			continue
		}
		offset, length := le.Uint64(page[at+8:]), le.Uint64(page[at+32:])
		if offset > size || length > size-offset {
			continue
		}
		for notes := page[offset : offset+length]; len(notes) >= 16; {
			nameLen, descLen, kind := uint64(le.Uint32(notes)), uint64(le.Uint32(notes[4:])), le.Uint32(notes[8:])
			desc := 12 + (nameLen+3)&^3
			next := desc + (descLen+3)&^3
			if next > uint64(len(notes)) {
				break
			}
			if kind == ntGNUBuildID && bytes.Equal(notes[12:12+nameLen], []byte("GNU\x00")) {
				return notes[desc : desc+descLen]
			}
			notes = notes[next:]
		}
	}
	return nil
}
