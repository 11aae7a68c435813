//go:build !linux

package bench

import (
	"runtime"
	"syscall"
	"time"
)

// endWithParent has no equivalent here: a killed run may leave its processes
// behind. Ctrl-C is not for them.
func endWithParent() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// What follows cannot be told here without other means.

func machineIdle() (time.Duration, bool) { return 0, false }

func forgetPeak() {}

func memory() int64 { return 0 }

func openFiles() int { return 0 }

// peakMemory is the most memory that this process had resident, in bytes.
func peakMemory() int64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	if runtime.GOOS == "darwin" {
		return int64(u.Maxrss) // bytes there, KiB elsewhere (getrusage(2))
	}
	return int64(u.Maxrss) << 10
}
