package shim

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crshim/crshim/core"
)

// TestUnpackHostile has archives reach for what is outside of the root, and say what cannot be. Nothing of it is made.
func TestUnpackHostile(t *testing.T) {
	own := func(h tar.Header) *tar.Header {
		h.Uid, h.Gid, h.Mode, h.Format, h.ModTime = os.Geteuid(), os.Getegid(), 0o755, tar.FormatPAX, time.Unix(1, 0)
		return &h
	}
	dir := own(tar.Header{Typeflag: tar.TypeDir, Name: "./dir/"})
	toOutside := own(tar.Header{Typeflag: tar.TypeSymlink, Name: "./out", Linkname: "../outside"})
	file := func(name string) *tar.Header { return own(tar.Header{Typeflag: tar.TypeReg, Name: name, Size: 4}) }
	sparse := func(size, extents string) *tar.Header {
		h := file("./sparse")
		h.PAXRecords = map[string]string{core.ArchiveSize: size, core.ArchiveExtents: extents}
		return h
	}
	for name, heads := range map[string][]*tar.Header{
		"parent":            {file("../outside/new")},
		"deep parent":       {dir, file("./dir/../../outside/new")},
		"absolute":          {file("/outside/new")},
		"root itself":       {file(".")},
		"dots":              {file("./dir/..")},
		"through a link":    {toOutside, file("./out/new")},
		"onto a link":       {toOutside, file("./out")},
		"directory by link": {toOutside, own(tar.Header{Typeflag: tar.TypeDir, Name: "./out/new/"})},
		"link from outside": {own(tar.Header{Typeflag: tar.TypeLink, Name: "./new", Linkname: "../outside/there"})},
		"link through link": {toOutside, own(tar.Header{Typeflag: tar.TypeLink, Name: "./new", Linkname: "./out/there"})},
		"twice":             {file("./a"), file("./a")},
		"no directory":      {file("./none/a")},
		"unknown type":      {own(tar.Header{Typeflag: 'x' + 1, Name: "./new"})},
		"negative size":     {sparse("-1", "0,4")},
		"behind the end":    {sparse("10", "8,4")},
		"beyond all":        {sparse("9223372036854775807", "9223372036854775806,4")},
		"backwards":         {sparse("100", "50,2 10,2")},
		"too little":        {sparse("100", "50,2")},
		"too much":          {sparse("100", "50,20")},
		"no extent":         {sparse("100", "x")},
	} {
		t.Run(name, func(t *testing.T) {
			work := t.TempDir()
			root, outside := filepath.Join(work, "root"), filepath.Join(work, "outside")
			for _, dir := range []string{root, outside} {
				if err := os.Mkdir(dir, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.WriteFile(filepath.Join(outside, "there"), []byte("mine"), 0o600); err != nil {
				t.Fatal(err)
			}
			var archive bytes.Buffer
			w := tar.NewWriter(&archive)
			for _, h := range heads {
				err := w.WriteHeader(h)
				if err == nil && h.Typeflag == tar.TypeReg {
					_, err = w.Write([]byte("text"))
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			fd, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(fd)
			if err := unpack(&archive, fd); err == nil {
				t.Error("it is taken")
			} else if !strings.Contains(err.Error(), heads[len(heads)-1].Name) {
				t.Errorf("%v does not name %s", err, heads[len(heads)-1].Name)
			}
			left, err := os.ReadDir(outside)
			if err != nil || len(left) != 1 {
				t.Errorf("outside are %v, %v", left, err)
			}
			if info, err := os.Stat(filepath.Join(outside, "there")); err != nil || info.Mode() != 0o600 || info.Size() != 4 {
				t.Errorf("the file outside is %v, %v", info, err)
			}
		})
	}
}

// TestUnpackTruncated has an archive end anywhere.
func TestUnpackTruncated(t *testing.T) {
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	h := &tar.Header{Typeflag: tar.TypeReg, Name: "./file", Size: 600, Mode: 0o644, Uid: os.Geteuid(), Gid: os.Getegid(), Format: tar.FormatPAX}
	if err := w.WriteHeader(h); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(make([]byte, 600)); err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{1, 511, 513, archive.Len() - 100} {
		root, err := os.Open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		if err := unpack(bytes.NewReader(archive.Bytes()[:n]), int(root.Fd())); err == nil {
			t.Errorf("%d bytes of it are taken", n)
		}
		if err := root.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
