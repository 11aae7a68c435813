package main

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"time"

	"propeller/queue"
	"propeller/queue/beanstalk"
	"propeller/queue/jetstream"
	"propeller/queue/queueurl"
)

// adapter opens the queue at a URL. visit: for a short command, not for a daemon.
type adapter func(u queueurl.URL, log *slog.Logger, visit bool) (queue.Queue, error)

// adapters are the engines, by the schemes of their URLs (queueurl has how these are
// written). Never written to.
var adapters = map[string]adapter{
	"beanstalk": openBeanstalk,
	"embedded":  openJetStream,
	"nats":      openJetStream,
	"tls":       openJetStream,
}

func openBeanstalk(u queueurl.URL, log *slog.Logger, _ bool) (queue.Queue, error) {
	return beanstalk.Open(beanstalk.Options{Addrs: u.Servers, Log: log})
}

func openJetStream(u queueurl.URL, log *slog.Logger, visit bool) (queue.Queue, error) {
	o := jetstream.Options{URL: u, Log: log, Attach: visit}
	if !visit {
		o.Still = func(error) { os.Exit(exitFailed) } // it was logged, and an orderly end would wait for it
	}
	for end := time.Now().Add(folderTime); ; time.Sleep(folderRetry) {
		q, err := jetstream.Open(o)
		if err == nil {
			return q, nil
		}
		if who := holder(err); who == "" || who == self() || time.Now().After(end) {
			return nil, err
		}
	}
}

// openQueue connects to the queue that the configuration names; an embedded
// one is started.
func openQueue(u queueurl.URL, log *slog.Logger) (queue.Queue, error) {
	q, err := open(u, log, false)
	return q, explainInUse(err, stopHolder)
}

// visitQueue is openQueue for a short command: it uses an embedded queue that a daemon
// runs through that daemon's listen address, if it has one. Otherwise the error ends with
// instead, which says what to do: stopHolder or askHolder.
func visitQueue(u queueurl.URL, instead string) (queue.Queue, error) {
	q, err := open(u, slog.New(slog.DiscardHandler), true)
	return q, explainInUse(err, instead)
}

const (
	stopHolder = "stop it first"
	askHolder  = "stop it, or give its state_dir with --state-dir to ask it through the socket there"
)

func open(u queueurl.URL, log *slog.Logger, visit bool) (queue.Queue, error) {
	with, ok := adapters[u.Scheme]
	if !ok {
		return nil, errors.New("queue: no adapter for " + u.String())
	}
	return with(u, log, visit)
}

// An embedded queue's folder belongs to one process at a time. Commands have it for
// milliseconds, and a stopping daemon for little more: openJetStream tries again every
// folderRetry, for up to folderTime.
const (
	folderTime  = 3 * time.Second
	folderRetry = 50 * time.Millisecond
)

// holder is the process that has an embedded queue, as far as it is known; ""
// if err says something else.
func holder(err error) string {
	used, ok := errors.AsType[*jetstream.InUseError](err)
	if !ok {
		return ""
	}
	return cmp.Or(used.Holder, "unknown")
}

func self() string { return strconv.Itoa(os.Getpid()) }

// explainInUse adds to the error of an embedded queue that another process has what to do
// about it. Other errors are returned as they are, nil too.
func explainInUse(err error, instead string) error {
	switch holder(err) {
	case "":
		return err
	case self(): // a reload
		return fmt.Errorf("%w, which is this one: restart it to change the options of an embedded queue", err)
	}
	return fmt.Errorf("%w: %s", err, instead)
}
