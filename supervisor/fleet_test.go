package supervisor

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"propeller/apnsconn/apnstest"
	"propeller/config"
	"propeller/queue"
	"propeller/queue/beanstalk"
	"propeller/queue/jetstream"
	"propeller/queue/queueurl"
)

// fleetTopic is the app of these tests: one tube for all daemons.
const fleetTopic = "com.example.app"

// fleetFlight is in_flight of each of a daemon's two workers.
const fleetFlight = 30

// ackWait is how soon the jobs of a daemon that died return: in production two
// minutes, which no test waits for.
const ackWait = 2 * time.Second

// fleet is several daemons on one queue, and the APNs stand-in that sees what
// all of them send.
type fleet struct {
	t       *testing.T
	dir     string
	url     string
	apns    *apnstest.Server
	q       queue.Queue // of the producer
	members []*fleetDaemon
}

// fleetDaemon is a daemon in this process, with connections of its own.
type fleetDaemon struct {
	sup  *Supervisor
	log  *logBuffer
	stop context.CancelFunc
	done chan error
}

func newFleet(t *testing.T, url string, o apnstest.Options) *fleet {
	t.Helper()
	f := &fleet{t: t, dir: t.TempDir(), url: url, apns: apnstest.NewServer(o)}
	t.Cleanup(f.apns.Close)
	for name, data := range map[string][]byte{"ca.pem": f.apns.CACertPEM(), "app.pem": f.apns.ClientCertPEM(fleetTopic)} {
		if err := os.WriteFile(filepath.Join(f.dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	u, err := config.ParseQueue(url, config.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if f.q, err = openFleetQueue(u, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.q.Close() })
	return f
}

// openFleetQueue is what cmd/propeller does, with the short ackWait.
func openFleetQueue(u queueurl.URL, log *slog.Logger) (queue.Queue, error) {
	if u.Scheme != "beanstalk" {
		return jetstream.Open(jetstream.Options{URL: u, AckWait: ackWait, Log: log})
	}
	return beanstalk.Open(beanstalk.Options{Addrs: u.Servers, Log: log})
}

// fleetConfig is the configuration of each daemon.
func fleetConfig(dir, url, server string) (*config.Config, error) {
	urls := []string{url}
	if strings.HasPrefix(url, "beanstalk:") {
		urls = strings.Split(url, ",")
	}
	text := fmt.Sprintf(`{queue: [%s], shutdown_timeout: 20s,
		defaults: {server: %q, ca_file: ca.pem, cert: app.pem, retry: {min: 1s, max: 2s}},
		apps: [{topic: %s, workers: 2, in_flight: %d}]}`, `"`+strings.Join(urls, `", "`)+`"`, server, fleetTopic, fleetFlight)
	return config.Parse("test.yaml", []byte(text), config.Options{Dir: dir})
}

// daemon starts a daemon in this process.
func (f *fleet) daemon() *fleetDaemon {
	f.t.Helper()
	cfg, err := fleetConfig(f.dir, f.url, f.apns.URL)
	if err != nil {
		f.t.Fatal(err)
	}
	m := &fleetDaemon{log: new(logBuffer), done: make(chan error, 1)}
	log := slog.New(slog.NewTextHandler(m.log, nil))
	m.sup, err = New(cfg, Options{Log: log, OpenQueue: func(u queueurl.URL) (queue.Queue, error) { return openFleetQueue(u, log) }})
	if err != nil {
		f.t.Fatal(err)
	}
	var ctx context.Context
	ctx, m.stop = context.WithCancel(context.Background())
	go func() { m.done <- m.sup.Serve(ctx) }()
	f.members = append(f.members, m)
	f.t.Cleanup(func() {
		m.stop()
		select {
		case err := <-m.done:
			if err != nil {
				f.t.Errorf("Serve: %v", err)
			}
		case <-time.After(patience):
			f.t.Error("a daemon did not stop")
		}
		if f.t.Failed() {
			f.t.Logf("log of a daemon:\n%s", m.log.String())
		}
	})
	return m
}

// finished is how many jobs the daemon has settled.
func (m *fleetDaemon) finished() (n int64) {
	for _, a := range m.sup.Status() {
		for _, w := range a.Workers {
			n += w.Finished
		}
	}
	return n
}

// put puts job i, again until the queue has it. It reports how often it failed.
func (f *fleet) put(i int) (failures int) {
	for end := time.Now().Add(patience); ; failures++ {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		_, err := f.q.Put(ctx, fleetTopic, []byte(jobBody(i)), queue.PutOptions{})
		cancel()
		if err == nil {
			return failures
		}
		if time.Now().After(end) {
			f.t.Errorf("put: %v", err)
			return failures
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// arrived is how often the stand-in saw each of the pushes 0…n-1.
func (f *fleet) arrived(n int) (times []int, all bool) {
	number := make(map[string]int, n)
	for i := range n {
		number[token(i)] = i
	}
	times = make([]int, n)
	for _, token := range f.apns.Tokens() {
		if i, ok := number[token]; ok {
			times[i]++
		} else {
			f.t.Errorf("a push to %s, which nobody put", token)
		}
	}
	for _, k := range times {
		if k == 0 {
			return times, false
		}
	}
	return times, true
}

// wait waits until all of n pushes have arrived and nothing is left of the
// tube, and returns how many came more than once.
func (f *fleet) wait(n int) (repeats int) {
	f.t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		times, all := f.arrived(n)
		if all {
			for _, k := range times {
				repeats += k - 1
			}
			break
		}
		if time.Now().After(end) {
			lost := 0
			for _, k := range times {
				if k == 0 {
					lost++
				}
			}
			f.t.Fatalf("%d of %d pushes have not arrived", lost, n)
		}
	}
	admin := f.q.(queue.Admin)
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		st, err := admin.TubeStats(context.Background(), fleetTopic)
		if err == nil && st == (queue.TubeStats{}) {
			return repeats
		}
		if time.Now().After(end) {
			f.t.Fatalf("left in the tube: %+v, %v", st, err)
		}
	}
}

// longestGap is the longest time between two pushes, and when it began.
func (f *fleet) longestGap() (gap time.Duration, from time.Time) {
	var last time.Time
	for _, r := range f.apns.Requests() {
		if !last.IsZero() && r.At.Sub(last) > gap {
			gap, from = r.At.Sub(last), last
		}
		if r.At.After(last) {
			last = r.At
		}
	}
	return gap, from
}

// A daemon in a process of its own, to be killed: this test binary with the
// variable set.
const daemonVariable = "PROPELLER_TEST_DAEMON"

type daemonOrder struct{ Dir, URL, Server string }

// daemonProcess starts such a daemon.
func (f *fleet) daemonProcess() *exec.Cmd {
	f.t.Helper()
	order, err := json.Marshal(daemonOrder{f.dir, f.url, f.apns.URL})
	if err != nil {
		f.t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), daemonVariable+"="+string(order))
	cmd.Stderr = os.Stderr
	if _, err = cmd.StdinPipe(); err == nil {
		err = cmd.Start()
	}
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd
}

// beDaemon is the program of such a daemon. It ends with the process that
// started it.
func beDaemon() bool {
	text := os.Getenv(daemonVariable)
	if text == "" {
		return false
	}
	var o daemonOrder
	err := json.Unmarshal([]byte(text), &o)
	if err == nil {
		var cfg *config.Config
		if cfg, err = fleetConfig(o.Dir, o.URL, o.Server); err == nil {
			log := slog.New(slog.DiscardHandler)
			var sup *Supervisor
			sup, err = New(cfg, Options{Log: log, OpenQueue: func(u queueurl.URL) (queue.Queue, error) { return openFleetQueue(u, log) }})
			if err == nil {
				ctx, stop := context.WithCancel(context.Background())
				go func() {
					_, _ = io.Copy(io.Discard, os.Stdin)
					stop()
				}()
				err = sup.Serve(ctx)
			}
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "daemon:", err)
	}
	return true
}
