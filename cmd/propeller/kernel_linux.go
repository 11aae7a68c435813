package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// monotonic is CLOCK_MONOTONIC, by which the service manager orders messages
// and its own requests; package time does not give it out.
func monotonic() (time.Duration, bool) {
	var ts unix.Timespec
	err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return time.Duration(ts.Nano()), err == nil
}

// inheritsOrphans is true if the kernel gives this process the children of
// others that end before them: process 1 of a container, or a child subreaper.
func inheritsOrphans() bool {
	if os.Getpid() == 1 {
		return true
	}
	var set int32
	// Not unix.Prctl: it takes a number, and does not keep what that points to in its place.
	_, _, errno := unix.Syscall(unix.SYS_PRCTL, unix.PR_GET_CHILD_SUBREAPER, uintptr(unsafe.Pointer(&set)), 0)
	return errno == 0 && set != 0
}

// reap takes the exit status of every child that ends, until ctx does, so that
// no zombie stays: a command run inside the container may leave processes
// behind. The daemon starts no processes itself; if it did, reap
// would take their status away from os/exec.
func reap(ctx context.Context, log *slog.Logger) {
	ended := make(chan os.Signal, 1) // SIGCHLD says that there are some, not how many
	signal.Notify(ended, syscall.SIGCHLD)
	defer signal.Stop(ended)
	for {
		reapEnded(log)
		select {
		case <-ctx.Done():
			return
		case <-ended:
		}
	}
}

// reapEnded reaps the children that have ended by now.
func reapEnded(log *slog.Logger) {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil || pid <= 0: // no children, or none that has ended
			return
		default:
			log.Debug("reaped an orphan", "pid", pid, "status", status.ExitStatus(), "signaled", status.Signaled())
		}
	}
}
