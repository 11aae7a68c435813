package beanstalk

import (
	"cmp"
	"errors"
	"log/slog"
	"time"
)

const (
	// ttr is the time to run of jobs put by this process: how long a worker of any
	// program may hold one without a sign of life.
	ttr = 120 * time.Second
	// reservers is how many reserve commands one consumer keeps under way per server
	// when a tube is full: jobs per second × round trip in seconds.
	reservers = 32
	// answerTime is how long a server may leave a command unanswered before its
	// connection is given up.
	answerTime = 10 * time.Second
)

// Options configure Open.
type Options struct {
	// Addrs are the servers, host:port, each once. Names are looked up at
	// every connect.
	Addrs []string
	// Log gets one line per change of a connection's state. nil: no log.
	Log *slog.Logger

	ttr, timeout time.Duration // tests have them shorter
}

// withDefaults returns o complete.
func (o Options) withDefaults() (Options, error) {
	if len(o.Addrs) == 0 {
		return o, errors.New("beanstalk: no server address")
	}
	o.ttr, o.timeout = cmp.Or(o.ttr, ttr), cmp.Or(o.timeout, answerTime)
	o.Log = cmp.Or(o.Log, slog.New(slog.DiscardHandler))
	return o, nil
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
