package procfs

import (
	"runtime"
	"structs"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// pmScanArg is equivalent to struct pm_scan_arg of <linux/fs.h>, Linux 6.7.
type pmScanArg struct {
	_                 structs.HostLayout
	size              uint64
	flags             uint64
	start             uint64
	end               uint64
	walkEnd           uint64 // out: where the walk stopped, if vec was filled
	vec               uint64
	vecLen            uint64
	maxPages          uint64
	categoryInverted  uint64
	categoryMask      uint64
	categoryAnyofMask uint64
	returnMask        uint64
}

// pageRegion is equivalent to struct page_region of <linux/fs.h>.
type pageRegion struct {
	_          structs.HostLayout
	start      uint64
	end        uint64
	categories uint64
}

const (
	pmScanWPMatching   = 1 << 0 // PM_SCAN_WP_MATCHING
	pmScanCheckWPAsync = 1 << 1 // PM_SCAN_CHECK_WPASYNC

	// pagemapScanIoctl is PAGEMAP_SCAN, _IOWR('f', 16, struct pm_scan_arg).
	pagemapScanIoctl = 3<<30 | unsafe.Sizeof(pmScanArg{})<<16 | 'f'<<8 | 16
)

// pagemapScan fills vec, which must live on the heap, and returns how many
// regions it holds.
func pagemapScan(fd int, arg *pmScanArg, vec []pageRegion) (int, error) {
	arg.size = uint64(unsafe.Sizeof(*arg))
	arg.vec = uint64(uintptr(unsafe.Pointer(unsafe.SliceData(vec))))
	arg.vecLen = uint64(len(vec))
	n, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), pagemapScanIoctl,
		uintptr(unsafe.Pointer(arg)))
	runtime.KeepAlive(vec)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// PagemapScanSupported says whether the kernel has PAGEMAP_SCAN, Linux 6.7.
// It asks once.
var PagemapScanSupported = sync.OnceValue(func() bool {
	fd, err := unix.Open(root+"/self/pagemap", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	// An empty range: an older kernel does not know the request at all.
	_, err = pagemapScan(fd, &pmScanArg{}, nil)
	return err == nil
})

// scanKnows are the categories that PAGEMAP_SCAN knows. It refuses others.
var scanKnows = sync.OnceValue(func() PageCategory {
	const all, since615 = ^PageCategory(0), Guard
	fd, err := unix.Open(root+"/self/pagemap", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return all // the next scan tells why
	}
	defer unix.Close(fd)
	if _, err := pagemapScan(fd, &pmScanArg{returnMask: uint64(since615)}, nil); err != nil {
		return all &^ since615
	}
	return all
})
