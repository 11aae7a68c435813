package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

// TestMain lets the test program be the sender's process too, as bench is.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == senderCommand {
		os.Exit(senderMain(os.Args[2:], os.Stdin, os.Stdout, os.Stderr))
	}
	// Under the race detector each sender would sleep for a second at its end.
	if err := os.Setenv("GORACE", "atexit_sleep_ms=0"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

// short is the whole table in its shortest form.
var short = []string{"-rounds=1", "-duration=50ms", "-warm=20ms", "-streams=3,120"}

// TestWholeTable runs the program as make bench does. It says nothing of speed.
func TestWholeTable(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	var out, progress bytes.Buffer
	if err := command(t.Context(), append(short, "-md"), &out, &progress); err != nil {
		t.Fatalf("%v\n%s", err, &progress)
	}
	t.Logf("\n%s", &out)
	rows := make(map[string][]string)
	for line := range strings.Lines(out.String()) {
		if cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|"); len(cells) > 1 {
			for i := range cells {
				cells[i] = strings.TrimSpace(cells[i])
			}
			rows[cells[0]+" "+cells[1]] = cells
		}
	}
	for _, c := range plan([]int{3, 120}) {
		row := rows[c.label()+" "+itoa(c.streams)]
		if len(row) != 11 {
			t.Errorf("no row for %s with %d streams", c.label(), c.streams)
			continue
		}
		wanted := map[int]bool{2: true, 4: true} // rate, CPU
		if c.sender != keyH2load {
			wanted[6], wanted[7] = true, true // allocations
		}
		wanted[8] = c.holdsInFlight()
		wanted[9], wanted[10] = c.streams == 1, c.streams == 1 // latency
		for i, want := range wanted {
			if got := strings.ContainsAny(row[i], "0123456789"); got != want {
				t.Errorf("%s, %d streams: column %d is %q", c.label(), c.streams, i, row[i])
			}
			if want && row[i] == "0" {
				t.Errorf("%s, %d streams: column %d is 0", c.label(), c.streams, i)
			}
		}
	}
	for _, want := range []string{"rate / h2load's at 120 streams", "CPU per push / apns2's", "go1.", "nghttp2/"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("output lacks %q", want)
		}
	}
	nothingLeft(t, dir)
}

// TestStopped: a run that is interrupted ends at once with the reason, and
// leaves nothing behind.
func TestStopped(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	// The first line of progress is that of the first round.
	progress := writerFunc(func(p []byte) (int, error) {
		if bytes.Contains(p, []byte("round 1")) {
			cancel()
		}
		return len(p), nil
	})
	err := command(ctx, []string{"-duration=1m"}, io.Discard, progress)
	if err == nil || !strings.Contains(err.Error(), "context canceled") {
		t.Errorf("got %v, want what stopped it", err)
	}
	nothingLeft(t, dir)
}

func nothingLeft(t *testing.T, dir string) {
	t.Helper()
	left, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range left {
		if strings.HasPrefix(entry.Name(), "propeller-bench-") {
			t.Errorf("left behind: %s", entry.Name())
		}
	}
}

func TestFlags(t *testing.T) {
	t.Parallel()
	for _, args := range []string{
		"-rounds=0", "-rounds=101", "-duration=1ms", "-duration=2m", "-warm=-1s",
		"-streams=", "-streams=1", "-streams=961", "-streams=ten", "-streams=2,,3", "-x", "more",
	} {
		if o, err := parseFlags([]string{args}, io.Discard); err == nil {
			t.Errorf("%s: taken as %+v", args, o)
		}
	}
	o, err := parseFlags([]string{"-streams=900,2,900", "-rounds=3"}, io.Discard)
	if err != nil || len(o.streams) != 2 || o.streams[0] != 2 || o.streams[1] != 900 || o.rounds != 3 {
		t.Errorf("got %+v, %v", o, err)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
