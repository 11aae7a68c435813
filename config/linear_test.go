package config

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// costly are files of about n bytes that take much to read, for their size.
func costly(n int) map[string]string {
	many := func(head, each string) string {
		var b strings.Builder
		b.WriteString(head)
		for i := 0; b.Len() < n; i++ {
			fmt.Fprintf(&b, each, i)
		}
		return b.String()
	}
	return map[string]string{
		"unknown keys of apps": many("apps:\n", " - {tpic%d: a}\n"),
		"unknown keys":         many("", "k%d: 1\n"),
		"unknown keys of one":  many("apps:\n- topic: a\n", "  k%d: 1\n"),
		"empty apps":           "apps: [" + strings.Repeat("{},", n/3) + "]",
		"no apps":              "apps: [" + strings.Repeat("~,", n/2) + "]",
		"tags":                 many("", "%%TAG !%d! b\n") + "--- a",
		"apps":                 many("apps:\n", " - {topic: com.example.app%d, server: mock, workers: 2, push_timeout: 30s}\n"),
		"queues":               "queue: [" + strings.Repeat("a,", n/2) + "]",
	}
}

func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// growth is by how much more of the process's time four times the text takes.
func growth(small, large string) float64 {
	var took [2][]time.Duration
	for range 3 {
		for i, text := range []string{small, large} {
			runs, began := 0, cpu()
			for runs == 0 || cpu()-began < 5*time.Millisecond {
				_, _ = Parse("x.yaml", []byte(text), Options{Lenient: true})
				runs++
			}
			took[i] = append(took[i], (cpu()-began)/time.Duration(runs))
		}
	}
	return float64(slices.Min(took[1])) / float64(max(1, slices.Min(took[0])))
}

// What a file takes to read grows with its size, not with the square of it.
func TestFilesAreReadInLinearTime(t *testing.T) {
	const n = 8 << 10
	small, large := costly(n), costly(4*n)
	for shape := range small {
		by := 9.0
		for range 4 { // others on the machine may disturb one measurement
			if by > 8 {
				by = growth(small[shape], large[shape])
			}
		}
		if by > 8 {
			t.Errorf("%s: %.1f times as much for 4 times the size", shape, by)
		}
	}
}

// Nor does a file of the largest size take memory without measure, whatever is in it.
func TestLargestFilesTakeBoundedMemory(t *testing.T) {
	const most = 600 << 20
	for shape, text := range costly(maxFile - 200) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := Parse("x.yaml", []byte(text), Options{Lenient: true})
		runtime.ReadMemStats(&after)
		if got := after.TotalAlloc - before.TotalAlloc; got > most {
			t.Errorf("%s: %d MiB", shape, got>>20)
		}
		if shape != "apps" && err == nil {
			t.Errorf("%s: is taken", shape)
		}
		if shape == "apps" && err != nil {
			t.Errorf("%.300v", err)
		}
	}
}

// 10,000 apps fit in a file; 20,001 are none that one daemon serves.
func TestManyApps(t *testing.T) {
	t.Parallel()
	list := func(n int) string {
		var b strings.Builder
		b.WriteString("apps:\n")
		for i := range n {
			fmt.Fprintf(&b, " - {topic: a.b%d, server: mock}\n", i)
		}
		return b.String()
	}
	cfg, err := Parse("x.yaml", []byte(list(10_000)), Options{})
	if err != nil || len(cfg.Apps) != 10_000 {
		t.Fatal(err)
	}
	if _, err := Parse("x.yaml", []byte(list(20_001)), Options{}); err == nil || !strings.Contains(err.Error(), "has 20001 entries, and at most 20000 are served") {
		t.Error(err)
	}
}
