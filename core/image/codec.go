package image

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"reflect"
	"strings"
)

// append adds the payload of rec, a struct of type s.Type, to b.
func (s *Spec) append(b []byte, rec reflect.Value) ([]byte, error) {
	start := len(b)
	for i := range s.fields {
		var err error
		if b, err = s.fields[i].append(b, rec.Field(i)); err != nil {
			return nil, fmt.Errorf("field %s: %w", s.fields[i].Name, err)
		}
	}
	if n := len(b) - start; n > MaxPayload {
		return nil, fmt.Errorf("payload of %d bytes is longer than %d", n, MaxPayload)
	}
	return b, nil
}

func (f *field) append(b []byte, v reflect.Value) ([]byte, error) {
	switch {
	case f.Name == "_":
		return append(b, make([]byte, f.size)...), nil
	case f.tail == tailString:
		text := v.String()
		if i := strings.IndexByte(text, 0); i >= 0 {
			return nil, fmt.Errorf("string has a NUL at byte %d", i)
		}
		b = append(append(b, text...), 0)
		if n := f.pad - len(text) - 1; n > 0 {
			b = append(b, make([]byte, n)...)
		}
		return b, nil
	case f.tail == tailBytes:
		return append(b, v.Bytes()...), nil
	}
	return binary.Append(b, binary.LittleEndian, v.Interface())
}

// decode returns a pointer to a new struct made from payload, which it does
// not keep, and how many zero bytes followed what the struct knows.
func (s *Spec) decode(payload []byte) (rec any, extra int, err error) {
	if least := s.least(); len(payload) < least {
		return nil, 0, fmt.Errorf("payload of %d bytes is shorter than %d", len(payload), least)
	}
	if missing := s.fixed - len(payload); missing > 0 {
		payload = append(bytes.Clone(payload), make([]byte, missing)...)
	}
	rest := payload[s.fixed:]
	v := reflect.New(s.Type)
	for i := range s.fields {
		f := &s.fields[i]
		if f.Name == "_" {
			continue // the code of 2009 left padding as it was in memory
		}
		if f.tail != notTail {
			if err := f.decodeTail(rest, v.Elem().Field(i)); err != nil {
				return nil, 0, fmt.Errorf("field %s: %w", f.Name, err)
			}
			rest = nil
			continue
		}
		if _, err := binary.Decode(payload[f.offset:f.offset+f.size], binary.LittleEndian, v.Elem().Field(i).Addr().Interface()); err != nil {
			return nil, 0, fmt.Errorf("field %s: %w", f.Name, err)
		}
	}
	// A longer struct of a later version is the same as ours if what it adds
	// is zero: the rule of the kernel's copy_struct_from_user.
	if i := nonZero(rest); i >= 0 {
		return nil, 0, fmt.Errorf("byte %d of the payload is not known here and not zero", s.fixed+i)
	}
	return v.Interface(), len(rest), nil
}

func (s *Spec) least() int {
	if s.MinLen > 0 {
		return s.MinLen
	}
	return s.fixed
}

func (f *field) decodeTail(b []byte, v reflect.Value) error {
	switch f.tail {
	case tailString:
		n := bytes.IndexByte(b, 0)
		if n < 0 {
			return fmt.Errorf("string of %d bytes has no NUL at its end", len(b))
		}
		if i := nonZero(b[n:]); i >= 0 {
			return fmt.Errorf("string of %d bytes goes on behind its NUL at byte %d", len(b), n)
		}
		v.SetString(string(b[:n]))
	case tailBytes:
		v.SetBytes(append([]byte(nil), b...)) // none is nil, as for entries
	case tailEntries:
		if len(b)%f.size != 0 {
			return fmt.Errorf("%d bytes are not a whole number of entries of %d", len(b), f.size)
		}
		if len(b) == 0 {
			return nil
		}
		v.Set(reflect.MakeSlice(f.Type, len(b)/f.size, len(b)/f.size))
		if _, err := binary.Decode(b, binary.LittleEndian, v.Interface()); err != nil {
			return err
		}
	}
	return nil
}

// appendHeader adds struct cr_hdr to b.
func appendHeader(b []byte, kind Kind, length int, parent uint32) []byte {
	b = binary.LittleEndian.AppendUint16(b, uint16(kind))
	b = binary.LittleEndian.AppendUint16(b, uint16(length))
	return binary.LittleEndian.AppendUint32(b, parent)
}

// EncodePIDs returns the raw trailer of TREE: one entry for each task, a
// parent before its children.
func EncodePIDs(pids []PIDs) []byte {
	b := make([]byte, 0, pidsSize*len(pids))
	for _, p := range pids {
		for _, id := range []int32{p.VPID, p.VTGID, p.VPPID, 0} {
			b = binary.LittleEndian.AppendUint32(b, uint32(id))
		}
	}
	return b
}

// DecodePIDs is the reverse of EncodePIDs. It fails if b is not a whole
// number of entries.
func DecodePIDs(b []byte) ([]PIDs, error) {
	if len(b)%pidsSize != 0 {
		return nil, fmt.Errorf("decode pids: %d bytes are not a whole number of entries of %d: %w", len(b), pidsSize, ErrFormat)
	}
	pids := make([]PIDs, len(b)/pidsSize)
	if _, err := binary.Decode(b, binary.LittleEndian, pids); err != nil {
		return nil, fmt.Errorf("decode pids: %w", err)
	}
	return pids, nil
}

// nonZero returns the index of the first byte that is not zero, or -1.
func nonZero(b []byte) int {
	for i, c := range b {
		if c != 0 {
			return i
		}
	}
	return -1
}
