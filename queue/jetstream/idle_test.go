package jetstream

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// BenchmarkIdleTubes reports what 1000 tubes without jobs cost in a process of
// their own: resident memory and processor time. It has no other meaning.
func BenchmarkIdleTubes(b *testing.B) {
	exe, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	for range b.N {
		cmd := exec.Command(exe)
		cmd.Env = append(os.Environ(), helperIdle+"="+b.TempDir())
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		if err != nil {
			b.Fatal(err)
		}
		var resident, percent float64
		var goroutines int
		if _, err := fmt.Sscan(string(out), &resident, &percent, &goroutines); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(resident, "MB")
		b.ReportMetric(percent, "%core")
		b.ReportMetric(float64(goroutines), "goroutines")
	}
}

// idle is the process: it prints MB, percent of a core, goroutines.
func idle() int {
	q, err := open(Options{URL: embeddedIn(os.Getenv(helperIdle))})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var wg sync.WaitGroup
	for i := range 1000 {
		c, err := q.Consume(fmt.Sprintf("com.example.app%d", i))
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		wg.Go(func() { _, _ = c.Receive(ctx, 500) })
	}
	time.Sleep(5 * time.Second) // to become idle
	before := cpuTime()
	const watched = 20 * time.Second
	time.Sleep(watched)
	percent := 100 * (cpuTime() - before).Seconds() / watched.Seconds()
	fmt.Printf("%.1f %.2f %d\n", resident(), percent, runtime.NumGoroutine())
	cancel()
	wg.Wait()
	_ = q.Close()
	return 0
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// resident is the process's memory in MB.
func resident() float64 {
	f, err := os.Open("/proc/self/status")
	if err != nil {
		return 0
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var kb float64
		if strings.HasPrefix(lines.Text(), "VmRSS:") {
			_, _ = fmt.Sscanf(lines.Text(), "VmRSS: %f kB", &kb)
			return kb / 1024
		}
	}
	return 0
}
