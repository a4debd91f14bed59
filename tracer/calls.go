package tracer

import "golang.org/x/sys/unix"

// The usual system calls, as section 2 of the manual has them. Each adds one
// row. Addresses that lead to structures are Addr, from Bytes, String, Buffer
// or the task's own; 0 is NULL. What may be the result of an earlier row is an
// Arg.

func (p *Program) Openat(dirfd Arg, path string, flags int, mode uint32) *Row {
	return p.Call(unix.SYS_OPENAT, dirfd, Ptr(p.String(path)), Int(flags), Imm(mode))
}

func (p *Program) Close(fd Arg) *Row { return p.Call(unix.SYS_CLOSE, fd) }

func (p *Program) CloseRange(first, last uint32, flags int) *Row {
	return p.Call(unix.SYS_CLOSE_RANGE, Imm(first), Imm(last), Int(flags))
}

func (p *Program) Dup(fd Arg) *Row { return p.Call(unix.SYS_DUP, fd) }

func (p *Program) Dup3(oldfd, newfd Arg, flags int) *Row {
	return p.Call(unix.SYS_DUP3, oldfd, newfd, Int(flags))
}

func (p *Program) Fcntl(fd Arg, cmd int, arg Arg) *Row {
	return p.Call(unix.SYS_FCNTL, fd, Int(cmd), arg)
}

func (p *Program) Ioctl(fd Arg, request uint64, arg Arg) *Row {
	return p.Call(unix.SYS_IOCTL, fd, Imm(request), arg)
}

func (p *Program) Lseek(fd Arg, offset int64, whence int) *Row {
	return p.Call(unix.SYS_LSEEK, fd, Imm(offset), Int(whence))
}

func (p *Program) Ftruncate(fd Arg, length int64) *Row {
	return p.Call(unix.SYS_FTRUNCATE, fd, Imm(length))
}

func (p *Program) Fstat(fd Arg, stat Addr) *Row { return p.Call(unix.SYS_FSTAT, fd, Ptr(stat)) }

func (p *Program) Read(fd Arg, buf Addr, count uint64) *Row {
	return p.Call(unix.SYS_READ, fd, Ptr(buf), Imm(count))
}

func (p *Program) Write(fd Arg, buf Addr, count uint64) *Row {
	return p.Call(unix.SYS_WRITE, fd, Ptr(buf), Imm(count))
}

func (p *Program) Pread(fd Arg, buf Addr, count uint64, offset int64) *Row {
	return p.Call(unix.SYS_PREAD64, fd, Ptr(buf), Imm(count), Imm(offset))
}

func (p *Program) Pwrite(fd Arg, buf Addr, count uint64, offset int64) *Row {
	return p.Call(unix.SYS_PWRITE64, fd, Ptr(buf), Imm(count), Imm(offset))
}

func (p *Program) Readv(fd Arg, iov Addr, iovcnt int) *Row {
	return p.Call(unix.SYS_READV, fd, Ptr(iov), Int(iovcnt))
}

func (p *Program) Writev(fd Arg, iov Addr, iovcnt int) *Row {
	return p.Call(unix.SYS_WRITEV, fd, Ptr(iov), Int(iovcnt))
}

func (p *Program) Mmap(r Range, prot, flags int, fd Arg, offset uint64) *Row {
	return p.Call(unix.SYS_MMAP, Ptr(r.Start), Imm(r.Len()), Int(prot), Int(flags), fd, Imm(offset))
}

func (p *Program) Munmap(r Range) *Row {
	return p.Call(unix.SYS_MUNMAP, Ptr(r.Start), Imm(r.Len()))
}

func (p *Program) Mremap(old Range, size uint64, flags int, to Addr) *Row {
	return p.Call(unix.SYS_MREMAP, Ptr(old.Start), Imm(old.Len()), Imm(size), Int(flags), Ptr(to))
}

func (p *Program) Mprotect(r Range, prot int) *Row {
	return p.Call(unix.SYS_MPROTECT, Ptr(r.Start), Imm(r.Len()), Int(prot))
}

func (p *Program) Madvise(r Range, advice int) *Row {
	return p.Call(unix.SYS_MADVISE, Ptr(r.Start), Imm(r.Len()), Int(advice))
}

func (p *Program) Mlock2(r Range, flags int) *Row {
	return p.Call(unix.SYS_MLOCK2, Ptr(r.Start), Imm(r.Len()), Int(flags))
}

func (p *Program) Munlock(r Range) *Row {
	return p.Call(unix.SYS_MUNLOCK, Ptr(r.Start), Imm(r.Len()))
}

// Brk returns the new end of the heap, which is the old one if it failed.
func (p *Program) Brk(end Addr) *Row { return p.Call(unix.SYS_BRK, Ptr(end)) }

func (p *Program) Prctl(option int, args ...Arg) *Row {
	return p.Call(unix.SYS_PRCTL, append([]Arg{Int(option)}, args...)...)
}

func (p *Program) ArchPrctl(code int, addr uint64) *Row {
	return p.Call(unix.SYS_ARCH_PRCTL, Int(code), Imm(addr))
}

func (p *Program) SetTidAddress(tidptr Addr) *Row {
	return p.Call(unix.SYS_SET_TID_ADDRESS, Ptr(tidptr))
}

func (p *Program) SetRobustList(head Addr, length uint64) *Row {
	return p.Call(unix.SYS_SET_ROBUST_LIST, Ptr(head), Imm(length))
}

func (p *Program) Rseq(rseq Addr, length uint32, flags int, sig uint32) *Row {
	return p.Call(unix.SYS_RSEQ, Ptr(rseq), Imm(length), Int(flags), Imm(sig))
}

// RtSigaction takes structures of the kernel's own layout, 32 bytes each:
// handler, flags, restorer, mask.
func (p *Program) RtSigaction(sig unix.Signal, act, oldact Addr) *Row {
	return p.Call(unix.SYS_RT_SIGACTION, Int(int(sig)), Ptr(act), Ptr(oldact), Imm(8))
}

// RtSigprocmask changes the mask only until the program ends.
func (p *Program) RtSigprocmask(how int, set, oldset Addr) *Row {
	return p.Call(unix.SYS_RT_SIGPROCMASK, Int(how), Ptr(set), Ptr(oldset), Imm(8))
}

func (p *Program) Sigaltstack(ss, oldss Addr) *Row {
	return p.Call(unix.SYS_SIGALTSTACK, Ptr(ss), Ptr(oldss))
}

func (p *Program) Fchdir(fd Arg) *Row { return p.Call(unix.SYS_FCHDIR, fd) }

func (p *Program) Chdir(path string) *Row { return p.Call(unix.SYS_CHDIR, Ptr(p.String(path))) }

func (p *Program) Chroot(path string) *Row { return p.Call(unix.SYS_CHROOT, Ptr(p.String(path))) }

func (p *Program) Umask(mask uint32) *Row { return p.Call(unix.SYS_UMASK, Imm(mask)) }

func (p *Program) Personality(persona uint32) *Row {
	return p.Call(unix.SYS_PERSONALITY, Imm(persona))
}

func (p *Program) Getpid() *Row { return p.Call(unix.SYS_GETPID) }

func (p *Program) Gettid() *Row { return p.Call(unix.SYS_GETTID) }

// Kcmp takes process numbers as the task sees them.
func (p *Program) Kcmp(pid1, pid2 Arg, kind int, idx1, idx2 Arg) *Row {
	return p.Call(unix.SYS_KCMP, pid1, pid2, Int(kind), idx1, idx2)
}

// PidfdOpen takes a process number as the task sees it.
func (p *Program) PidfdOpen(pid Arg, flags int) *Row {
	return p.Call(unix.SYS_PIDFD_OPEN, pid, Int(flags))
}

func (p *Program) MemfdCreate(name string, flags int) *Row {
	return p.Call(unix.SYS_MEMFD_CREATE, Ptr(p.String(name)), Int(flags))
}

func (p *Program) Socketpair(domain, typ, protocol int, sv Addr) *Row {
	return p.Call(unix.SYS_SOCKETPAIR, Int(domain), Int(typ), Int(protocol), Ptr(sv))
}

func (p *Program) Recvmsg(fd Arg, msg Addr, flags int) *Row {
	return p.Call(unix.SYS_RECVMSG, fd, Ptr(msg), Int(flags))
}

func (p *Program) Setitimer(which int, value, old Addr) *Row {
	return p.Call(unix.SYS_SETITIMER, Int(which), Ptr(value), Ptr(old))
}

func (p *Program) Prlimit64(pid Arg, resource int, limit, old Addr) *Row {
	return p.Call(unix.SYS_PRLIMIT64, pid, Int(resource), Ptr(limit), Ptr(old))
}
