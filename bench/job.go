package main

import (
	"bufio"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"time"
)

// job is what a sender's process has to do.
type job struct {
	Sender  string
	Feed    feed
	Streams int
	Addr    string
	Roots   []byte // PEM
	Warm    time.Duration
	For     time.Duration
	Hold    bool // measure memory of pushes in flight, at a server that does not answer
}

// figures are what came of it.
type figures struct {
	Pushes  int64         // ended within the measurement
	All     int64         // ended at all, warm-up included
	Elapsed time.Duration // of the measurement
	CPU     time.Duration // user and system time of the process meanwhile
	Allocs  uint64        // heap objects
	Bytes   uint64        // heap bytes
	P50     time.Duration // of one push; with one stream only
	P99     time.Duration
	Held    float64 // bytes of memory per push in flight; with job.Hold only
}

// held is what a sender's process says when all pushes have been sent, and
// waits for a line then.
const held = "held\n"

// jobTimeout bounds a job beyond its warm-up and measurement.
const jobTimeout = 20 * time.Second

// senderMain is a sender's process. It returns the exit status.
func senderMain(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	err := func() error {
		if len(args) != 1 {
			return errors.New("want one job in JSON")
		}
		var j job
		if err := json.Unmarshal([]byte(args[0]), &j); err != nil {
			return err
		}
		f, err := j.run(stdin, stdout)
		if err != nil {
			return err
		}
		return json.NewEncoder(stdout).Encode(f)
	}()
	if err != nil {
		fmt.Fprintln(stderr, err)
		return 1
	}
	return 0
}

func (j job) run(stdin io.Reader, stdout io.Writer) (figures, error) {
	s, err := j.dial()
	if err != nil {
		return figures{}, err
	}
	defer s.close()
	// The first push opens what is opened late, and lets a connection show how
	// many streams there are.
	if err := s.push(0); err != nil {
		return figures{}, fmt.Errorf("first push: %w", err)
	}
	switch {
	case j.Hold:
		return j.hold(s, stdin, stdout)
	case j.Streams == 1:
		return j.one(s)
	}
	return j.many(s)
}

func (j job) dial() (*sender, error) {
	ctx, cancel := context.WithTimeout(context.Background(), jobTimeout)
	defer cancel()
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(j.Roots) {
		return nil, errors.New("no certificate to trust")
	}
	switch j.Sender {
	case keyApnsconn:
		return dialApnsconn(ctx, j, roots)
	case keyAPNs2:
		return newAPNs2(j.Addr, roots)
	case keyClientConn:
		return dialClientConn(ctx, j.Addr, roots)
	}
	return nil, fmt.Errorf("sender %q: not known", j.Sender)
}

// many measures many pushes at once: a window in the midst of an even load.
func (j job) many(s *sender) (figures, error) {
	l := &load{streams: j.Streams, feed: j.Feed}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.load(l)
	}()
	l.wait(0, j.Warm)
	var m meter
	m.start(l.ended.Load())
	l.wait(m.pushes, j.For)
	f := m.stop(l.ended.Load)
	l.stopped.Store(true)
	<-ended // should answers not come, the parent ends this process
	f.All = l.ended.Load()
	return f, l.err()
}

// one measures one push at a time: how long each takes on a connection that
// is otherwise quiet.
func (j job) one(s *sender) (figures, error) {
	// Many times the fastest push there is. Beyond it, only the usage is measured.
	times := make([]time.Duration, 0, 1<<17)
	i := 0
	for begin := time.Now(); i < 10 || time.Since(begin) < j.Warm; i++ {
		if err := s.push(i); err != nil {
			return figures{}, err
		}
	}
	warm := i
	var m meter
	m.start(0)
	for begin := time.Now(); i < warm+10 || begin.Sub(m.begin) < j.For; i++ {
		if err := s.push(i); err != nil {
			return figures{}, err
		}
		end := time.Now()
		if len(times) < cap(times) {
			times = append(times, end.Sub(begin))
		}
		begin = end
	}
	f := m.stop(func() int64 { return int64(i - warm) })
	f.All = int64(i)
	slices.Sort(times)
	f.P50, f.P99 = times[len(times)/2], times[len(times)*99/100]
	return f, nil
}

// hold measures the memory of pushes in flight: heap and stacks with all of
// them sent and none answered, less the same before, after a collection each.
func (j job) hold(s *sender, stdin io.Reader, stdout io.Writer) (figures, error) {
	before := memoryInUse()
	l := &load{streams: j.Streams, feed: j.Feed}
	go s.load(l) // ends with the process
	if _, err := io.WriteString(stdout, held); err != nil {
		return figures{}, err
	}
	if _, err := bufio.NewReader(stdin).ReadString('\n'); err != nil {
		return figures{}, fmt.Errorf("waiting for the server to have them all: %w", err)
	}
	after := memoryInUse()
	if err := l.err(); err != nil {
		return figures{}, err
	}
	return figures{Held: (float64(after) - float64(before)) / float64(j.Streams)}, nil
}

// memoryInUse is the memory of live objects and of goroutines' stacks, in bytes.
func memoryInUse() uint64 {
	runtime.GC() // twice: what a sync.Pool holds goes with the second
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}

// meter measures what the process uses from start to stop.
type meter struct {
	begin  time.Time
	pushes int64
	cpu    time.Duration
	mem    runtime.MemStats
}

func (m *meter) start(pushes int64) {
	runtime.ReadMemStats(&m.mem)
	m.cpu = cpuTime()
	m.pushes = pushes
	m.begin = time.Now()
}

func (m *meter) stop(pushes func() int64) figures {
	f := figures{Elapsed: time.Since(m.begin), Pushes: pushes() - m.pushes, CPU: cpuTime() - m.cpu}
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	f.Allocs, f.Bytes = mem.Mallocs-m.mem.Mallocs, mem.TotalAlloc-m.mem.TotalAlloc
	return f
}
