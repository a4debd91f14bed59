package tests

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// poolFile says how many pages the huge page pool has.
const poolFile = "/proc/sys/vm/nr_hugepages"

// hugePages adds to the pool for those scenarios that use it, if we may, and
// takes as much away when all tests have ended: others may do so at the same time.
var hugePages struct {
	once  sync.Once
	added int
}

const wantedPages = 48

func addHugePages() {
	hugePages.once.Do(func() {
		before, after, err := changePool(wantedPages)
		if err == nil {
			hugePages.added = after - before
		}
	})
}

// dropHugePages undoes it.
func dropHugePages() error {
	if hugePages.added == 0 {
		return nil
	}
	before, after, err := changePool(-hugePages.added)
	if err == nil && before-after != hugePages.added {
		err = fmt.Errorf("%s is %d, not %d", poolFile, after, before-hugePages.added)
	}
	return err
}

func changePool(by int) (before, after int, err error) {
	f, err := os.OpenFile(poolFile, os.O_RDWR, 0)
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return 0, 0, err
	}
	read := func() int {
		text, readErr := os.ReadFile(poolFile)
		n, numErr := strconv.Atoi(strings.TrimSpace(string(text)))
		if readErr != nil || numErr != nil {
			err = fmt.Errorf("read %s: %q, %w", poolFile, text, readErr)
		}
		return n
	}
	if before = read(); err != nil {
		return 0, 0, err
	}
	if _, err := f.WriteString(strconv.Itoa(before + by)); err != nil {
		return 0, 0, err
	}
	after = read()
	return before, after, err
}
