package resource

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// findLinked gives mapped files whose name was removed another one that they have
// in the same directory. sem_open(3) of glibc makes a file under a passing name,
// links it to the one that was asked for, and removes the first, by which /proc
// calls the mapping for good. One that is not found so counts as deleted.
func (v *View) findLinked() {
	names := make(map[string]map[inodeID]string) // by directory
	for i := range v.Mappings {
		m := &v.Mappings[i]
		if !isDeletedMapping(m) {
			continue
		}
		dir := filepath.Dir(m.Name)
		if names[dir] == nil {
			names[dir] = v.regularIn(dir)
		}
		if name, ok := names[dir][mappedID(m)]; ok {
			m.Name, m.Deleted = filepath.Join(dir, name), false
		}
	}
}

// regularIn lists the regular files of a directory of the process.
func (v *View) regularIn(dir string) map[inodeID]string {
	files := make(map[inodeID]string)
	entries, err := os.ReadDir(v.reach(dir))
	if err != nil {
		return files // not ours to look into, or gone
	}
	for _, e := range entries {
		var st unix.Stat_t
		if e.Type().IsRegular() && unix.Lstat(filepath.Join(v.reach(dir), e.Name()), &st) == nil {
			files[inodeID{st.Dev, st.Ino}] = e.Name()
		}
	}
	return files
}
