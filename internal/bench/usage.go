package bench

import (
	"os"
	"syscall"
	"time"

	"github.com/prometheus/procfs"
)

// Usage is what a measurement has taken.
type Usage struct {
	Time      time.Duration // that has passed
	CPU       time.Duration // of this process
	Idle      time.Duration // the machine's cores, together
	IdleKnown bool
}

// Measure begins a measurement, which used ends.
func Measure() (used func() Usage) {
	begun, cpu := time.Now(), processCPU()
	idle, known := machineIdle()
	return func() Usage {
		u := Usage{Time: time.Since(begun), CPU: processCPU() - cpu}
		now, stillKnown := machineIdle()
		u.Idle, u.IdleKnown = now-idle, known && stillKnown
		return u
	}
}

// Per is d for each of n, in µs.
func Per(d time.Duration, n int64) float64 {
	return float64(d) / float64(time.Microsecond) / float64(n)
}

// processCPU is the user and system time that this process has used so far.
func processCPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0 // cannot happen: both arguments are valid
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// machineIdle is for how long the machine's cores have been idle, all together,
// since it was booted; false where there is no /proc.
func machineIdle() (time.Duration, bool) {
	fs, err := procfs.NewDefaultFS()
	if err != nil {
		return 0, false
	}
	stat, err := fs.Stat()
	if err != nil {
		return 0, false
	}
	return time.Duration((stat.CPUTotal.Idle + stat.CPUTotal.Iowait) * float64(time.Second)), true
}

// forgetPeak resets peakMemory, where the system allows it.
func forgetPeak() {
	_ = os.WriteFile("/proc/self/clear_refs", []byte("5"), 0) // man proc_pid_clear_refs
}

// peakMemory is the most memory that this process had resident, in bytes; 0 where
// there is no /proc.
func peakMemory() uint64 {
	self, err := procfs.Self()
	if err != nil {
		return 0
	}
	status, err := self.NewStatus()
	if err != nil {
		return 0
	}
	return status.VmHWM
}
