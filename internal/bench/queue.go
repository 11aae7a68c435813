package bench

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	gobeanstalk "github.com/beanstalkd/go-beanstalk"

	"propeller/config"
	"propeller/queue"
	"propeller/queue/beanstalk"
	"propeller/queue/jetstream"
	"propeller/queue/queueurl"
)

// Values of --queue besides URLs.
const (
	ownBeanstalkd = "beanstalkd"
	ownEmbedded   = "embedded"
)

// engine is a queue that an operator can ask, as all are.
type engine interface {
	queue.Queue
	queue.Admin
}

// asEngine takes the result of an adapter's Open.
func asEngine(q queue.Queue, err error) (engine, error) {
	if err != nil {
		return nil, err
	}
	e, ok := q.(engine)
	if !ok {
		return nil, errors.Join(errors.New("bench: this queue cannot be asked for its jobs"), q.Close())
	}
	return e, nil
}

// benchQueue is the queue of a run.
type benchQueue struct {
	engine
	what    string   // for the report
	servers []string // addresses of beanstalkds, which can say what they use
	inside  bool     // its processor time is this process's
	own     bool     // it ends with the run, and all its jobs with it
	end     func() error
}

// openBenchQueue starts or reaches the queue that --queue names.
func openBenchQueue(ctx context.Context, name string, log *slog.Logger) (*benchQueue, error) {
	if name == "" {
		name = ownEmbedded
		if _, err := findBeanstalkd(); err == nil {
			name = ownBeanstalkd
		}
	}
	switch name {
	case ownBeanstalkd:
		return startBeanstalkd(ctx, log)
	case ownEmbedded:
		return startEmbedded(log)
	}
	u, err := config.ParseQueue(name, config.Options{})
	if err != nil {
		return nil, err
	}
	return reachQueue(u, log)
}

func openQueue(u queueurl.URL, log *slog.Logger) (queue.Queue, error) {
	if u.Scheme == "beanstalk" {
		return beanstalk.Open(beanstalk.Options{Addrs: u.Servers, Log: log})
	}
	return jetstream.Open(jetstream.Options{URL: u, Log: log})
}

// reachQueue opens a queue that is there already, or an embedded one in a
// folder that is.
func reachQueue(u queueurl.URL, log *slog.Logger) (*benchQueue, error) {
	q, err := asEngine(openQueue(u, log))
	if err != nil {
		return nil, err
	}
	b := &benchQueue{engine: q, end: q.Close}
	switch u.Scheme {
	case "beanstalk":
		b.what, b.servers = strings.ReplaceAll(u.String(), ",", ", "), u.Servers
	case "embedded":
		b.what, b.inside = "embedded, in "+u.Dir, true
	default:
		b.what = "NATS cluster"
	}
	return b, nil
}

func startEmbedded(log *slog.Logger) (*benchQueue, error) {
	dir, err := os.MkdirTemp("", "propeller-bench-")
	if err != nil {
		return nil, err
	}
	q, err := asEngine(jetstream.Open(jetstream.Options{URL: queueurl.URL{Scheme: "embedded", Dir: filepath.Join(dir, "queue")}, Log: log}))
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return &benchQueue{
		engine: q, what: "embedded, in a temporary folder, written through to disk once a second", inside: true, own: true,
		end: func() error { return errors.Join(q.Close(), os.RemoveAll(dir)) },
	}, nil
}

// Ports are drawn from below the ranges that systems hand out by themselves, so
// that none is taken between the choice and the start.
const (
	lowPort, highPort = 15000, 32000
	portAttempts      = 20
	beanstalkdTime    = 10 * time.Second // for a started server to answer
)

// startBeanstalkd starts a server on a port of its own. Jobs are small enough
// for its default limit.
func startBeanstalkd(ctx context.Context, log *slog.Logger) (*benchQueue, error) {
	bin, err := findBeanstalkd()
	if err != nil {
		return nil, err
	}
	for range portAttempts {
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(lowPort+rand.IntN(highPort-lowPort)))
		var p *exec.Cmd
		if p, err = runBeanstalkd(ctx, bin, addr); err != nil {
			continue
		}
		end := func() error {
			_ = p.Process.Kill() // it has nothing to save
			_ = p.Wait()         // killed, as it should be
			return nil
		}
		b, err := reachQueue(queueurl.URL{Scheme: "beanstalk", Servers: []string{addr}}, log)
		if err != nil {
			return nil, errors.Join(err, end())
		}
		b.what, b.own = "beanstalkd, started for this run, without a log on disk", true
		b.end = func() error { return errors.Join(b.Close(), end()) }
		return b, nil
	}
	return nil, fmt.Errorf("%s does not start: %w", bin, err)
}

func findBeanstalkd() (string, error) {
	if bin, err := exec.LookPath("beanstalkd"); err == nil {
		return bin, nil
	}
	// Debian puts it where the PATH of a plain user may not look.
	for _, bin := range []string{"/usr/bin/beanstalkd", "/usr/sbin/beanstalkd", "/usr/local/bin/beanstalkd", "/opt/homebrew/bin/beanstalkd"} {
		if _, err := os.Stat(bin); err == nil {
			return bin, nil
		}
	}
	return "", errors.New("beanstalkd is not installed: name a queue with --queue, or take --queue embedded")
}

// runBeanstalkd starts a server and waits until it, and no other, answers.
func runBeanstalkd(ctx context.Context, bin, addr string) (*exec.Cmd, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	p := exec.Command(bin, "-l", host, "-p", port)
	p.SysProcAttr = endWithParent()
	if err := p.Start(); err != nil {
		return nil, err
	}
	for end := time.Now().Add(beanstalkdTime); ; time.Sleep(2 * time.Millisecond) {
		var stats map[string]string
		stats, err = beanstalkdStats(addr)
		switch pid := strings.Trim(stats["pid"], `"`); {
		case err == nil && pid == strconv.Itoa(p.Process.Pid):
			return p, nil
		case err == nil:
			err = fmt.Errorf("port %s belongs to process %s", port, pid)
		case ctx.Err() != nil:
			err = ctx.Err()
		case time.Now().Before(end):
			continue
		}
		_ = p.Process.Kill()
		_ = p.Wait() // killed, as it should be
		return nil, err
	}
}

func beanstalkdStats(addr string) (map[string]string, error) {
	nc, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return nil, err
	}
	defer nc.Close()
	if err := nc.SetDeadline(time.Now().Add(beanstalkdTime)); err != nil {
		return nil, err
	}
	return gobeanstalk.NewConn(nc).Stats()
}

// cpu is the processor time that the queue's own processes have used so far;
// false when that cannot be told.
func (q *benchQueue) cpu() (time.Duration, bool) {
	var sum time.Duration
	for _, addr := range q.servers {
		stats, err := beanstalkdStats(addr)
		if err != nil {
			return 0, false
		}
		for _, key := range []string{"rusage-utime", "rusage-stime"} {
			seconds, err := strconv.ParseFloat(strings.TrimSpace(stats[key]), 64)
			if err != nil {
				return 0, false
			}
			sum += time.Duration(seconds * float64(time.Second))
		}
	}
	return sum, len(q.servers) > 0 || q.inside
}

// forTree is the queue for the workers, who must not close it.
func (q *benchQueue) forTree() engine { return shared{q.engine} }

type shared struct{ engine }

func (shared) Close() error { return nil }
