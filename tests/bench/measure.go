package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ordinaryCall is what a call costs that crshim does not catch.
func (b *bench) ordinaryCall() error {
	const calls = "2000000"
	ways := [3][]string{
		{b.program, "getppid", "none", calls},
		{b.program, "getppid", "allow", calls},
		{b.crshim, "run", b.program, "getppid", "none", calls},
	}
	var series [3][]float64
	for range b.rounds {
		for _, i := range rand.Perm(len(ways)) {
			out, err := b.output(ways[i][0], ways[i][1:]...)
			if err != nil {
				return err
			}
			ns, err := strconv.ParseFloat(strings.TrimPrefix(strings.TrimSpace(out), "getppid "), 64)
			if err != nil {
				return err
			}
			series[i] = append(series[i], ns)
		}
	}
	b.row("getppid(), filter of one ALLOW", series[1], "no filter", series[0], false, "")
	b.row("getppid() under crshim", series[2], "filter of one ALLOW", series[1], false, "1.0")
	return nil
}

// tiny is a process of 1 MiB, by the calls and by the tool; beside the tool,
// criu where it works.
func (b *bench) tiny() error {
	if err := b.tinyCalls(); err != nil {
		return err
	}
	h, err := b.hold("hold", "1")
	if err != nil {
		return err
	}
	defer func() { _ = h.end() }() // gone already after the last dump
	pid := strconv.Itoa(h.pid)
	criu := "criu"
	if err := exec.CommandContext(b, criu, "check").Run(); err != nil {
		criu = ""
	}
	img, dir := filepath.Join(b.dir, "tiny.img"), filepath.Join(b.dir, "criu")
	var save, peerSave, back, peerBack []float64
	for range b.rounds {
		ns, err := b.timed(b.crshim, "checkpoint", pid, "-o", img)
		if err != nil {
			return err
		}
		save = append(save, ns)
		if criu != "" {
			if err := os.MkdirAll(dir, 0o700); err != nil {
				return err
			}
			if ns, err = b.timed(criu, "dump", "-t", pid, "-D", dir, "--shell-job", "--leave-running"); err != nil {
				return err
			}
			peerSave = append(peerSave, ns)
		}
	}
	if err := h.end(); err != nil {
		return err
	}
	for range b.rounds {
		pidfile := filepath.Join(b.dir, "pid")
		ns, err := b.timed(b.crshim, "restart", "--detach", "--pidfile", pidfile, img)
		if err != nil {
			return err
		}
		back = append(back, ns)
		if err := endByFile(pidfile); err != nil {
			return err
		}
		if criu != "" {
			if ns, err = b.timed(criu, "restore", "-d", "-D", dir, "--shell-job", "--pidfile", pidfile); err != nil {
				return err
			}
			peerBack = append(peerBack, ns)
			if err := endByFile(pidfile); err != nil {
				return err
			}
		}
	}
	if criu == "" {
		b.note("crshim checkpoint PID, 1 MiB", save, "(no working criu here)", "")
		b.note("crshim restart IMAGE, 1 MiB", back, "(no working criu here)", "")
		return nil
	}
	b.row("crshim checkpoint PID, 1 MiB", save, "criu dump", peerSave, false, "")
	b.row("crshim restart IMAGE, 1 MiB", back, "criu restore", peerBack, false, "")
	return nil
}

// tinyCalls times the calls as their caller sees them.
func (b *bench) tinyCalls() error {
	out := filepath.Join(b.dir, "times")
	rounds := strconv.Itoa(4 * b.rounds)
	if _, err := b.output(b.crshim, "run", b.program, "save", "1", b.dir, out, rounds); err != nil {
		return err
	}
	saved, err := b.times(out)
	if err != nil {
		return err
	}
	if _, err := b.output(b.crshim, "run", b.program, "back", b.dir, out, rounds); err != nil {
		return err
	}
	backed, err := b.times(out)
	if err != nil {
		return err
	}
	b.note("checkpoint() of itself, 1 MiB", saved["checkpoint"], "", "< 4 ms")
	b.note("restart(), 1 MiB", backed["restart"], "", "< 4 ms")
	return nil
}

// endByFile ends a detached process by the pid in a file.
func endByFile(name string) error {
	text, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return err
	}
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		return err
	}
	// It is our child if whoever made it has ended, and somebody else's if not.
	for unix.Kill(pid, 0) == nil {
		if _, err := unix.Wait4(pid, nil, unix.WNOHANG, nil); err != nil && !errors.Is(err, unix.ECHILD) {
			return fmt.Errorf("wait for %d: %w", pid, err)
		}
		time.Sleep(time.Millisecond)
	}
	return os.Remove(name)
}

// file compares a checkpoint with the process's own write() of the same
// bytes, and a restart with its own read() into fresh memory.
func (b *bench) file(dir, size string) error {
	work, err := os.MkdirTemp(dir, "crshim-bench.")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	out := filepath.Join(work, "times")
	rounds := strconv.Itoa(b.rounds)
	if _, err := b.output(b.crshim, "run", b.program, "save", size, work, out, rounds); err != nil {
		return err
	}
	saved, err := b.times(out)
	if err != nil {
		return err
	}
	if _, err := b.output(b.crshim, "run", b.program, "back", work, out, rounds); err != nil {
		return err
	}
	backed, err := b.times(out)
	if err != nil {
		return err
	}
	where := fmt.Sprintf("%s MiB, %s", size, filepath.Clean(dir))
	b.row("checkpoint(), "+where, saved["checkpoint"], "own write()", saved["write"], true, ">= 0.9")
	b.row("restart(), "+where, backed["restart"], "own read()", backed["read"], true, ">= 2.5")
	return nil
}

// pipe is the same into a pipe, for somebody else's process.
func (b *bench) pipe(size string) error {
	h, err := b.hold("hold", size)
	if err != nil {
		return err
	}
	defer func() { _ = h.end() }() // ended by Kill, which is no news
	out := filepath.Join(b.dir, "times")
	for range b.rounds {
		if err := devNull(exec.CommandContext(b, b.crshim, "run", b.program, "call", strconv.Itoa(h.pid), out)); err != nil {
			return err
		}
		if err := devNull(exec.CommandContext(b, b.program, "pipe", size, "1", out)); err != nil {
			return err
		}
	}
	all, err := b.times(out)
	if err != nil {
		return err
	}
	b.row("checkpoint(), "+size+" MiB, pipe", all["checkpoint"], "own write()", all["write"], true, ">= 0.9")
	return nil
}

// linear compares four times as many of something with a quarter.
func (b *bench) linear(kind, name string, many int) error {
	var save, back [2][]float64
	for range b.rounds {
		for i, n := range []int{many, many / 4} {
			h, err := b.hold(kind, strconv.Itoa(n))
			if err != nil {
				return err
			}
			img, pidfile := filepath.Join(b.dir, kind+".img"), filepath.Join(b.dir, "pid")
			ns, err := b.timed(b.crshim, "checkpoint", strconv.Itoa(h.pid), "-o", img)
			if err != nil {
				return err
			}
			save[i] = append(save[i], ns)
			if err := h.end(); err != nil {
				return err
			}
			if ns, err = b.timed(b.crshim, "restart", "--detach", "--pidfile", pidfile, img); err != nil {
				return err
			}
			back[i] = append(back[i], ns)
			if err := endByFile(pidfile); err != nil {
				return err
			}
		}
	}
	b.row(fmt.Sprintf("checkpoint, %d %s", many, name), save[0], "a quarter of them", save[1], false, "<= 4")
	b.row(fmt.Sprintf("restart, %d %s", many, name), back[0], "a quarter of them", back[1], false, "<= 4")
	return nil
}
