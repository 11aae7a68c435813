package main

import (
	"bufio"
	"bytes"
	"context"
	"os"
	"os/exec"
	"runtime"
	"strings"
)

// machine says where the figures are from.
type machine struct {
	cpu     string // model
	cores   int
	kernel  string
	goVer   string
	nghttp2 string
	load    string // processes that wanted to run in the last minute, before ours did
}

func thisMachine(ctx context.Context) machine {
	m := machine{cpu: cpuModel(), cores: runtime.NumCPU(), goVer: runtime.Version(), load: loadAverage()}
	m.kernel = said(ctx, "uname", "-srm")
	m.nghttp2 = said(ctx, "nghttpd", "--version")
	return m
}

// said is the first line that a program prints.
func said(ctx context.Context, name string, args ...string) string {
	out, err := exec.CommandContext(ctx, name, args...).Output()
	if err != nil {
		return "unknown (" + err.Error() + ")"
	}
	line, _, _ := bytes.Cut(out, []byte("\n"))
	return string(line)
}

// cpuModel is the processor's name as Linux tells it; elsewhere its kind.
func cpuModel() string {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return runtime.GOARCH
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if key, value, _ := strings.Cut(lines.Text(), ":"); strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH // not every architecture has a name there
}

// loadAverage is the load of the last minute as Linux tells it.
func loadAverage() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	minute, _, _ := strings.Cut(string(text), " ")
	return minute
}
