package image

import (
	"bytes"
	"errors"
	"io"
	"testing"
)

// The price of the records of one mapping, written and read.
func BenchmarkMapping(b *testing.B) {
	put := func(w *Writer) error {
		return errors.Join(w.Put(0, &VMA{Type: VMAFile}), w.Put(0, &FName{Name: "/usr/lib/x86_64-linux-gnu/libc.so.6"}), w.EndPages())
	}
	begin := func(w *Writer) {
		if err := errors.Join(putHead(w, 1), w.Put(0, &Task{}), w.Put(1, &MM{})); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("write", func(b *testing.B) {
		w := NewWriter(io.Discard, table)
		begin(w)
		b.ReportAllocs()
		for b.Loop() {
			if err := put(w); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("read", func(b *testing.B) {
		var out bytes.Buffer
		w := NewWriter(&out, table)
		begin(w)
		for range b.N {
			if err := put(w); err != nil {
				b.Fatal(err)
			}
		}
		if err := w.Flush(); err != nil {
			b.Fatal(err)
		}
		r := NewReader(NewStreamSource(&out), table)
		b.ReportAllocs()
		b.ResetTimer()
		for range 3*b.N + 6 {
			if _, err := r.Next(); err != nil {
				b.Fatal(err)
			}
		}
	})
}
