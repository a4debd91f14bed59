package seccomp

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"

	libseccomp "github.com/seccomp/libseccomp-golang"
	"golang.org/x/sys/unix"
)

// Filter is a program of classic BPF over struct seccomp_data.
type Filter []unix.SockFilter

// archOffset is where struct seccomp_data of <linux/seccomp.h> holds the architecture.
const archOffset = 4

// Build makes the filter that hands the given numbers to a listener, whether they are called by x86-64 or by i386, and
// allows everything else.
func Build(numbers []int) (Filter, error) {
	native, err := single(numbers)
	if err != nil {
		return nil, fmt.Errorf("build filter: %w", err)
	}
	if len(native) > 0xff {
		return nil, fmt.Errorf("build filter: %d instructions are too many for one jump", len(native))
	}
	compat := make(Filter, len(native))
	for i, ins := range native {
		if ins.Code == unix.BPF_JMP|unix.BPF_JEQ|unix.BPF_K && ins.K == unix.AUDIT_ARCH_X86_64 {
			ins.K = unix.AUDIT_ARCH_I386
		}
		compat[i] = ins
	}
	// Jumps are relative, so the two programs stand behind each other as they are.
	f := Filter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: archOffset},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.AUDIT_ARCH_I386, Jt: uint8(len(native))},
	}
	return append(append(f, native...), compat...), nil
}

// single lets libseccomp build the filter of x86-64 alone.
func single(numbers []int) (Filter, error) {
	ctx, err := libseccomp.NewFilter(libseccomp.ActAllow)
	if err != nil {
		return nil, err
	}
	defer ctx.Release()
	// The default for x32 and foreign architectures is to kill.
	if err := ctx.SetBadArchAction(libseccomp.ActAllow); err != nil {
		return nil, fmt.Errorf("set action for other architectures: %w", err)
	}
	for _, number := range numbers {
		if err := ctx.AddRuleExact(libseccomp.ScmpSyscall(number), libseccomp.ActNotify); err != nil {
			return nil, fmt.Errorf("add system call %d: %w", number, err)
		}
	}
	return export(ctx)
}

// export has libseccomp write its program into a memory file: its export to memory came with version 2.6.
func export(ctx *libseccomp.ScmpFilter) (Filter, error) {
	fd, err := unix.MemfdCreate("filter", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	file := os.NewFile(uintptr(fd), "filter")
	defer func() { _ = file.Close() }()
	if err := ctx.ExportBPF(file); err != nil {
		return nil, fmt.Errorf("export filter: %w", err)
	}
	const insSize = 8 // struct sock_filter
	raw, err := io.ReadAll(io.NewSectionReader(file, 0, insSize*unix.BPF_MAXINSNS))
	if err != nil {
		return nil, err
	}
	if len(raw) == 0 || len(raw)%insSize != 0 {
		return nil, fmt.Errorf("export filter: %d bytes are no program", len(raw))
	}
	var f Filter
	for ; len(raw) > 0; raw = raw[insSize:] {
		f = append(f, unix.SockFilter{
			Code: binary.NativeEndian.Uint16(raw),
			Jt:   raw[2],
			Jf:   raw[3],
			K:    binary.NativeEndian.Uint32(raw[4:]),
		})
	}
	return f, nil
}
