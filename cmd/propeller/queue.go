package main

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"time"

	"propeller/queue"
	"propeller/queue/beanstalk"
	"propeller/queue/jetstream"
)

// openQueue connects to the queue that the configuration names; an embedded
// one is started. urls are as package config gives them: one URL, or those of
// several beanstalkd servers.
func openQueue(urls []string, log *slog.Logger) (queue.Queue, error) {
	q, err := open(urls, log, false)
	return q, explainInUse(err, stopHolder)
}

// visitQueue is openQueue for a command that looks in: an embedded queue that a
// daemon runs is used through that daemon's listen address, if it has one. instead
// says what to do when it is somebody's and that does not help: stopHolder,
// askHolder.
func visitQueue(urls []string, instead string) (queue.Queue, error) {
	q, err := open(urls, slog.New(slog.DiscardHandler), true)
	return q, explainInUse(err, instead)
}

const (
	stopHolder = "stop it first"
	askHolder  = "stop it, or name its state_dir with --state-dir: it is asked through the socket there"
)

func open(urls []string, log *slog.Logger, visit bool) (queue.Queue, error) {
	if onBeanstalkd(urls) {
		o, err := beanstalkOptions(urls)
		if err != nil {
			return nil, err
		}
		o.Log = log
		return beanstalk.Open(o)
	}
	if len(urls) != 1 {
		return nil, errors.New("queue: only beanstalkd servers make a list")
	}
	o, err := jetstream.Parse(urls[0])
	if err != nil {
		return nil, err
	}
	o.Log, o.Attach = log, visit
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

// An embedded queue's folder is somebody's alone. Commands have it for
// milliseconds, and a daemon that ends for not much more: whoever comes then
// waits so long, and looks so often.
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

// onBeanstalkd reports whether the URLs are of beanstalkd servers.
func onBeanstalkd(urls []string) bool {
	return len(urls) > 0 && strings.HasPrefix(urls[0], "beanstalk:")
}

func beanstalkOptions(urls []string) (beanstalk.Options, error) {
	o := beanstalk.Options{Addrs: make([]string, len(urls))}
	for i, u := range urls {
		addr, err := beanstalk.ParseURL(u)
		if err != nil {
			return o, err
		}
		o.Addrs[i] = addr
	}
	return o, nil
}

// explainInUse adds to the error of an embedded queue that is somebody's what
// to do about it. Others are returned as they are, nil too.
func explainInUse(err error, instead string) error {
	switch holder(err) {
	case "":
		return err
	case self(): // a reload
		return fmt.Errorf("%w, which is this one: other options of an embedded queue take a restart", err)
	}
	return fmt.Errorf("%w: %s", err, instead)
}
