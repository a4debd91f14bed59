package shim

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

//go:embed include
var includeFiles embed.FS

// includeTree is what a compiler's -I names.
func includeTree() fs.FS {
	tree, err := fs.Sub(includeFiles, "include")
	if err != nil {
		panic(err) // the name above is a valid path
	}
	return tree
}

// cachedInclude returns the directory of the C header in the user's cache. The binary holds the header, so that it works
// wherever it is copied; the directory is named for the content, so that two releases do not disturb each other.
func cachedInclude() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	hash := sha256.New()
	if err := eachInclude(func(name string, data []byte) error {
		fmt.Fprintf(hash, "%s %d\n%s", name, len(data), data)
		return nil
	}); err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "crshim", "include-"+hex.EncodeToString(hash.Sum(nil))[:16])
	if includeIsAt(dir) {
		return dir, nil
	}
	if err := writeInclude(dir); err != nil {
		return "", err
	}
	return dir, nil
}

// includeIsAt tells whether dir holds the header already.
func includeIsAt(dir string) bool {
	return eachInclude(func(name string, data []byte) error {
		have, err := os.ReadFile(filepath.Join(dir, name))
		if err == nil && !bytes.Equal(have, data) {
			err = errors.New("differs")
		}
		return err
	}) == nil
}

// writeInclude writes the header below dir. Each file appears whole: another crshim cc may be compiling with it.
func writeInclude(dir string) error {
	return eachInclude(func(name string, data []byte) error {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		file, err := os.CreateTemp(filepath.Dir(path), ".new-")
		if err != nil {
			return err
		}
		_, err = file.Write(data)
		err = errors.Join(err, file.Chmod(0o644), file.Close())
		if err == nil {
			err = os.Rename(file.Name(), path)
		}
		if err != nil {
			err = errors.Join(err, os.Remove(file.Name()))
		}
		return err
	})
}

func eachInclude(f func(name string, data []byte) error) error {
	tree := includeTree()
	return fs.WalkDir(tree, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := fs.ReadFile(tree, name)
		if err != nil {
			return err
		}
		return f(name, data)
	})
}
