package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// h2load is nghttp2's load generator, the yardstick.
//
// It cannot vary a header, so that all its pushes have one apns-id, which costs
// a byte each where the others send 27 or more.
type h2load struct {
	addr   string
	dir    string      // of its files
	counts map[int]int // requests of one turn, by streams
}

func newH2load(addr, dir string) (*h2load, error) {
	h := &h2load{addr: addr, dir: dir, counts: make(map[int]int)}
	var uris bytes.Buffer
	for _, s := range shots() {
		fmt.Fprintf(&uris, "https://%s%s\n", addr, pathOf(s.token))
	}
	if err := os.WriteFile(h.file("uris"), uris.Bytes(), 0o600); err != nil {
		return nil, err
	}
	return h, os.WriteFile(h.file("payload"), payload(), 0o600)
}

func (h *h2load) file(name string) string { return filepath.Join(h.dir, name) }

// calibrate finds how many requests take about d.
func (h *h2load) calibrate(ctx context.Context, streams int, d time.Duration) error {
	probe, err := h.run(ctx, streams, max(50*streams, 2000))
	if err != nil {
		return err
	}
	rate := float64(probe.Pushes) / probe.Elapsed.Seconds()
	h.counts[streams] = max(streams, int(rate*d.Seconds()))
	return nil
}

// measure runs h2load for about as long as it was calibrated for.
func (h *h2load) measure(ctx context.Context, streams int) (figures, error) {
	return h.run(ctx, streams, h.counts[streams])
}

func (h *h2load) run(ctx context.Context, streams, count int) (figures, error) {
	args := []string{
		"--clients=1", "--threads=1",
		"--requests=" + strconv.Itoa(count),
		"--max-concurrent-streams=" + strconv.Itoa(streams),
		"--input-file=" + h.file("uris"),
		"--data=" + h.file("payload"),
		"--header=apns-topic: " + topic,
		"--header=apns-push-type: " + pushType,
		"--header=apns-id: " + shots()[0].id,
		"--header=apns-priority: " + strconv.Itoa(priority),
		"--header=apns-expiration: " + strconv.Itoa(expiration),
	}
	if streams == 1 {
		_ = os.Remove(h.file("log")) // h2load appends to it
		args = append(args, "--log-file="+h.file("log"))
	}
	cmd := exec.CommandContext(ctx, "h2load", args...)
	cmd.SysProcAttr = dieWithParent()
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		return figures{}, fmt.Errorf("h2load: %w: %s", err, lastLines(strings.TrimSpace(string(out))))
	}
	f, err := parseH2load(string(out), count)
	if err != nil {
		return f, err
	}
	f.CPU = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	if streams == 1 {
		err = h.latency(&f)
	}
	return f, err
}

var (
	h2loadRate = regexp.MustCompile(`(?m)^finished in [^,]+, ([0-9.]+) req/s`)
	h2load2xx  = regexp.MustCompile(`(?m)^status codes: ([0-9]+) 2xx`)
)

// parseH2load reads what h2load printed about so many requests.
func parseH2load(out string, count int) (figures, error) {
	rate, ok := h2loadRate.FindStringSubmatch(out), h2load2xx.FindStringSubmatch(out)
	if rate == nil || ok == nil {
		return figures{}, fmt.Errorf("h2load: no rate or status in its output: %s", lastLines(out))
	}
	if ok[1] != strconv.Itoa(count) {
		return figures{}, fmt.Errorf("h2load: %s of %d requests got status 200: %s", ok[1], count, lastLines(out))
	}
	perSecond, err := strconv.ParseFloat(rate[1], 64)
	if err != nil || perSecond <= 0 {
		return figures{}, fmt.Errorf("h2load: rate %q: not a number above 0", rate[1])
	}
	elapsed := time.Duration(float64(count) / perSecond * float64(time.Second))
	return figures{Pushes: int64(count), All: int64(count), Elapsed: elapsed}, nil
}

// latency reads the log of a run: a line for each request, the third column the
// time it took in microseconds (man h2load).
func (h *h2load) latency(f *figures) error {
	log, err := os.ReadFile(h.file("log"))
	if err != nil {
		return err
	}
	var times []time.Duration
	for line := range strings.Lines(string(log)) {
		columns := strings.Fields(line)
		if len(columns) < 3 {
			return fmt.Errorf("h2load: line %q of its log: want three columns", line)
		}
		us, err := strconv.Atoi(columns[2])
		if err != nil {
			return fmt.Errorf("h2load: line %q of its log: %w", line, err)
		}
		times = append(times, time.Duration(us)*time.Microsecond)
	}
	if len(times) == 0 {
		return fmt.Errorf("h2load: its log is empty")
	}
	slices.Sort(times)
	f.P50, f.P99 = times[len(times)/2], times[len(times)*99/100]
	return nil
}
