package main

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// dieWithParent makes the kernel end a child when this process dies, however
// it dies.
func dieWithParent() *syscall.SysProcAttr {
	// A group of its own: Ctrl-C reaches this program alone, which ends the
	// others in order.
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}

// mountSmall mounts an empty file system in memory.
func mountSmall(dir string, size int) error {
	return syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d,mode=700", size))
}

// unmount removes it, at once or when nobody uses it any more.
func unmount(dir string) error { return syscall.Unmount(dir, syscall.MNT_DETACH) }

// epollWaitAMD64 is the system call that architectures younger than amd64 lack.
const epollWaitAMD64 = 232

// waitsForEvents says whether a process of one thread, which SIGSTOP has been
// sent to, is in epoll_wait, so that it has no work in hand.
func waitsForEvents(pid int) bool {
	for range 1000 {
		// proc_pid_syscall(5): "running", or the number of the system call that it is
		// in, or -1 outside of any. It comes out of none before it is continued.
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/syscall", pid))
		if err != nil {
			return false
		}
		first, _, _ := strings.Cut(strings.TrimSpace(string(text)), " ")
		if first == "running" { // not stopped yet
			time.Sleep(20 * time.Microsecond)
			continue
		}
		n, err := strconv.Atoi(first)
		return err == nil && (n == syscall.SYS_EPOLL_PWAIT || runtime.GOARCH == "amd64" && n == epollWaitAMD64)
	}
	return false
}
