package beanstalk

import (
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"slices"
	"strconv"
	"time"
)

// DefaultPort is beanstalkd's port.
const DefaultPort = 11300

// Defaults of Options.
const (
	DefaultTTR       = 120 * time.Second
	DefaultReservers = 32
	DefaultTimeout   = 10 * time.Second
)

// Options configure Open. The zero value of every field but Addrs is fine.
type Options struct {
	// Addrs are the servers, host:port, each once. Names are looked up at
	// every connect.
	Addrs []string

	// TTR is the time to run of jobs put by this process: how long a worker
	// of any program may hold one without a sign of life. Whole seconds,
	// rounded up; 0 means DefaultTTR.
	TTR time.Duration

	// Reservers is how many reserve commands one consumer keeps under way per
	// server when a tube is full (1 to 256; 0 means DefaultReservers). Wanted:
	// jobs per second × round trip in seconds.
	Reservers int

	// Timeout is how long a server may leave a command unanswered before its
	// connection is given up. 0 means DefaultTimeout.
	Timeout time.Duration

	// Log gets one line per change of a connection's state. nil: no log.
	Log *slog.Logger
}

// maxReservers bounds Options.Reservers: at 256 reserve commands under way the
// server itself is the limit.
const maxReservers = 256

// withDefaults returns o checked and complete.
func (o Options) withDefaults() (Options, error) {
	if len(o.Addrs) == 0 {
		return o, fmt.Errorf("beanstalk: no server address")
	}
	o.Addrs = slices.Clone(o.Addrs)
	for i, addr := range o.Addrs {
		if err := checkAddr(addr); err != nil {
			return o, err
		}
		if slices.Contains(o.Addrs[:i], addr) {
			return o, fmt.Errorf("beanstalk: address %q: given twice", addr)
		}
	}
	switch {
	case o.TTR < 0:
		return o, fmt.Errorf("beanstalk: TTR %v: must not be negative", o.TTR)
	case o.TTR > maxSeconds*time.Second:
		return o, fmt.Errorf("beanstalk: TTR %v: at most %d seconds", o.TTR, int64(maxSeconds))
	case o.Reservers < 0 || o.Reservers > maxReservers:
		return o, fmt.Errorf("beanstalk: %d reservers: must be 1 to %d", o.Reservers, maxReservers)
	case o.Timeout < 0:
		return o, fmt.Errorf("beanstalk: timeout %v: must not be negative", o.Timeout)
	}
	if o.TTR == 0 {
		o.TTR = DefaultTTR
	}
	if o.Reservers == 0 {
		o.Reservers = DefaultReservers
	}
	if o.Timeout == 0 {
		o.Timeout = DefaultTimeout
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o, nil
}

func checkAddr(addr string) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("beanstalk: address %q: want host:port: %w", addr, err)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("beanstalk: address %q: port must be 1 to 65535", addr)
	}
	if host == "" {
		return fmt.Errorf("beanstalk: address %q: host is missing", addr)
	}
	return nil
}

// ParseURL returns the host:port of a beanstalk://host[:port] URL. The port
// defaults to 11300. A URL with anything more (user, path, query) is an error.
func ParseURL(s string) (addr string, err error) {
	u, err := url.Parse(s)
	if err != nil {
		return "", fmt.Errorf("beanstalk: %w", err)
	}
	switch {
	case u.Scheme != "beanstalk":
		return "", fmt.Errorf("beanstalk: url %q: scheme must be beanstalk://", u.Redacted())
	case u.User != nil:
		return "", fmt.Errorf("beanstalk: url %q: beanstalkd knows no users or passwords", u.Redacted())
	case u.Hostname() == "":
		return "", fmt.Errorf("beanstalk: url %q: host is missing (beanstalk://host:%d)", s, DefaultPort)
	case (u.Path != "" && u.Path != "/") || u.RawQuery != "" || u.Fragment != "" || u.Opaque != "":
		return "", fmt.Errorf("beanstalk: url %q: only beanstalk://host:port, nothing after it", s)
	}
	port := u.Port()
	if port == "" {
		port = strconv.Itoa(DefaultPort)
	}
	addr = net.JoinHostPort(u.Hostname(), port)
	return addr, checkAddr(addr)
}

// maxSeconds is the longest time the protocol can say: delays and TTRs are
// unsigned 32-bit seconds (beanstalkd protocol.txt, put).
const maxSeconds = 1<<32 - 1

// wholeSeconds rounds d up to whole seconds: go-beanstalk cuts, so that half a
// second of delay would be none. The result is between 0 and maxSeconds.
func wholeSeconds(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	n := (d-1)/time.Second + 1 // (d+999ms)/1s without the overflow
	return min(n, maxSeconds) * time.Second
}
