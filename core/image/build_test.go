package image

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"
)

// table is that of the format without resources.
var table = MustTable(slices.Concat(V13, Common)...)

// memory is a Mover of pages that lie in memory: into the writer, or out of
// the reader.
type memory struct {
	w    io.Writer // where Move writes
	r    io.Reader // or reads
	data []byte
}

func (m *memory) Move(n int64) error {
	if m.w != nil {
		_, err := m.w.Write(m.data[:n])
		return err
	}
	m.data = make([]byte, n)
	_, err := io.ReadFull(m.r, m.data)
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return ErrTruncated
	}
	return err
}

func (m *memory) Digest(n int64, h io.Writer) error {
	_, err := h.Write(m.data[:n])
	return err
}

// page returns n pages of contents that differ from each other.
func page(n int, seed byte) []byte {
	b := make([]byte, n*PageSize)
	for i := range b {
		b[i] = byte(i) ^ byte(i>>8) ^ byte(i/PageSize) ^ seed
	}
	return b
}

func addresses(start uint64, n int) []uint64 {
	addrs := make([]uint64, n)
	for i := range addrs {
		addrs[i] = start + uint64(i)*PageSize
	}
	return addrs
}

const sampleXstate = 576

// putTask writes one task with two mappings and two descriptors; runs are the
// lengths of the runs of pages of its first mapping.
func putTask(w *Writer, out io.Writer, vpid uint32, runs ...int) error {
	var errs []error
	put := func(parent uint32, rec any) { errs = append(errs, w.Put(parent, rec)) }
	put(0, &Task{ExitSignal: 17, CommLen: CommLen})
	put(0, Str{Text: "counter"})
	put(vpid, &MM{MapCount: 2, StartCode: 0x400000, EndCode: 0x401000, Brk: 0x500000})
	put(0, &VMA{Type: VMAFile, Start: 0x400000, End: 0x401000, Flags: VMRead | VMExec | VMMayRead})
	put(0, &FName{Name: "/bin/counter"})
	for i, n := range runs {
		errs = append(errs, w.Pages(addresses(0x400000, n), &memory{w: out, data: page(n, byte(i))}))
	}
	errs = append(errs, w.EndPages())
	put(0, &VMA{Type: VMAAnon, Start: 0x7ff000000000, End: 0x7ff000001000, Flags: VMRead | VMWrite | VMGrowsDown})
	errs = append(errs, w.EndPages())
	put(0, &MMContext{LDTEntrySize: 8})
	put(vpid, &Files{NFDs: 2})
	put(0, &FDEntry{ObjRef: 1, FD: 0})
	put(1, &FDData{Type: FDFile, Mode: 0xf, Flags: 0o100002, Pos: 42})
	put(0, &FName{Name: "/tmp/out"})
	put(0, &FDEntry{ObjRef: 1, FD: 3, CloseOnExec: 1})
	put(vpid, &Thread{GDTEntryTLSEntries: 3, SizeofTLSArray: 24})
	put(vpid, &CPU{AX: 0, OrigAX: ^uint64(0), IP: 0x400100, SP: 0x7ff000000800, UsedMath: 1})
	errs = append(errs, w.Raw(bytes.Repeat([]byte{0x5a}, sampleXstate)))
	return errors.Join(errs...)
}

// putHead writes all before the first task.
func putHead(w *Writer, tasks int) error {
	machine := Machine{PageSize: PageSize, XsaveSize: sampleXstate, CallProfile: 13}
	copy(machine.Arch[:], "x86_64")
	pids := make([]PIDs, tasks)
	for i := range pids {
		pids[i] = PIDs{VPID: int32(i + 1), VTGID: int32(i + 1), VPPID: int32(i)}
	}
	return errors.Join(
		w.Put(0, &Head{Magic: MagicHead, Major: 6, Minor: 18, Rev: Revision, Time: 1234567890, Flags: FlagCkpt}),
		w.Put(0, &HeadArch{HasFXSR: 1, HasXsave: 1, XstateSize: sampleXstate}),
		w.Put(0, machine),
		w.Put(0, Tree{Tasks: uint32(tasks)}),
		w.Raw(EncodePIDs(pids)),
	)
}

// sample returns an image of so many tasks.
func sample(t testing.TB, tasks int, runs ...int) []byte {
	t.Helper()
	var out bytes.Buffer
	w := NewWriter(&out, table)
	err := putHead(w, tasks)
	for i := range tasks {
		err = errors.Join(err, putTask(w, &out, uint32(i+1), runs...))
	}
	if err = errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	if w.Offset() != int64(out.Len()) {
		t.Fatalf("Offset is %d behind %d bytes", w.Offset(), out.Len())
	}
	return out.Bytes()
}

// boundaries returns the offset of each header of an image, PAD included.
func boundaries(t testing.TB, img []byte) []int {
	t.Helper()
	var at []int
	l := layout{pageSize: PageSize}
	for off := 0; off < len(img); {
		at = append(at, off)
		kind := Kind(binary.LittleEndian.Uint16(img[off:]))
		n := int(binary.LittleEndian.Uint16(img[off+2:]))
		s := table.Kind(kind)
		if s == nil {
			t.Fatalf("kind %v at %d", kind, off)
		}
		rec, _, err := s.decode(img[off+headerSize : off+headerSize+n])
		if err != nil {
			t.Fatal(err)
		}
		trailer, err := l.trailer(s, rec)
		if err = errors.Join(err, l.note(rec)); err != nil {
			t.Fatal(err)
		}
		off += headerSize + n + int(trailer)
	}
	return at
}

// names reads an image to its end and returns the names of its records.
func names(img []byte) ([]string, error) {
	r := NewReader(NewStreamSource(bytes.NewReader(img)), table)
	var all []string
	err := Walk(r, func(_ int, rec *Record) error {
		all = append(all, rec.Name())
		return nil
	})
	if err == nil && !r.Done() {
		err = fmt.Errorf("not done at the end")
	}
	return all, err
}
