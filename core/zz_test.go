package core

import (
	"os"
	"testing"
	"time"

	"github.com/crshim/crshim/tracer"
)

func TestZZ(t *testing.T) {
	if os.Getenv("ZZ") == "" {
		t.Skip("x")
	}
	for _, dir := range []string{"/tmp/w", "/dev/shm"} {
		pid := start(t, "/tmp/w/big", os.Getenv("ZZ"))
		time.Sleep(2500 * time.Millisecond)
		var e Engine
		for range 3 {
			f, _ := os.Create(dir + "/img.big")
			a := time.Now()
			d, err := e.Checkpoint(CheckpointRequest{Target: pid, PID: pid, Out: f, OutFD: -1})
			if err != nil {
				t.Fatal(err)
			}
			el := time.Since(a)
			t.Logf("%s ckpt %v %.2f GB/s %v", dir, el, float64(d.Bytes)/el.Seconds()/1e9, d.Timing)
			f.Seek(0, 0)
			a = time.Now()
			o, err := e.Open(f)
			if err != nil {
				t.Fatal(err)
			}
			b, err := o.Into(func(tr *tracer.Tracer) (*tracer.Tracee, error) { return tr.Blank(tracer.BlankOptions{}) })
			if err != nil {
				t.Fatal(err)
			}
			el = time.Since(a)
			t.Logf("restart %v %.2f GB/s %v", el, float64(d.Bytes)/el.Seconds()/1e9, b.Timing)
			end(t, b.PID)
			f.Close()
			os.Remove(dir + "/img.big")
		}
		end(t, pid)
	}
}
