package bench

import (
	"bytes"
	"os"
	"strconv"
	"syscall"
	"time"
)

// endWithParent makes the kernel end the child when this process dies, however
// it dies. Ctrl-C is not for the child: it is needed until the end.
func endWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}

// machineIdle is for how long the machine's cores have been idle, all together,
// since it was booted; false if that cannot be told.
func machineIdle() (time.Duration, bool) {
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, false
	}
	line, _, _ := bytes.Cut(stat, []byte("\n"))
	fields := bytes.Fields(line)
	if len(fields) < 6 || string(fields[0]) != "cpu" {
		return 0, false
	}
	// The 4th and 5th number are idle and iowait, in ticks that are 1/100 s for
	// every program (man proc_stat, man 2 times).
	idle, err1 := strconv.ParseInt(string(fields[4]), 10, 64)
	wait, err2 := strconv.ParseInt(string(fields[5]), 10, 64)
	return time.Duration(idle+wait) * (time.Second / 100), err1 == nil && err2 == nil
}

// forgetPeak makes peakMemory begin anew, where the system can.
func forgetPeak() {
	_ = os.WriteFile("/proc/self/clear_refs", []byte("5"), 0) // man proc_pid_clear_refs
}

// peakMemory is the most memory that this process had resident, in bytes; 0 if
// that cannot be told.
func peakMemory() int64 { return statusKiB("VmHWM:") << 10 }

// memory is what it has resident now.
func memory() int64 { return statusKiB("VmRSS:") << 10 }

func statusKiB(key string) int64 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	_, rest, _ := bytes.Cut(status, []byte(key))
	fields := bytes.Fields(rest)
	if len(fields) == 0 {
		return 0
	}
	n, err := strconv.ParseInt(string(fields[0]), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// openFiles is how many file descriptors this process has open; 0 if that
// cannot be told.
func openFiles() int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	return len(entries) - 1 // the folder itself
}
