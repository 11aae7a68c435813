package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"

	"propeller/queue"
	"propeller/queue/beanstalk"
	"propeller/queue/jetstream"
)

// openQueue connects to the queue that the configuration names; an embedded
// one is started. urls are as package config gives them: one URL, or those of
// several beanstalkd servers.
func openQueue(urls []string, log *slog.Logger) (queue.Queue, error) { return open(urls, log, false) }

// visitQueue is openQueue for a command that looks in: an embedded queue that a
// daemon runs is used through that daemon's listen address, if it has one.
func visitQueue(urls []string) (queue.Queue, error) {
	return open(urls, slog.New(slog.DiscardHandler), true)
}

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
	q, err := jetstream.Open(o)
	return q, explainInUse(err)
}

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
// to do about it.
func explainInUse(err error) error {
	used, ok := errors.AsType[*jetstream.InUseError](err)
	switch {
	case !ok:
		return err
	case used.Holder == strconv.Itoa(os.Getpid()): // a reload
		return fmt.Errorf("%w, which is this one: other options of an embedded queue take a restart", err)
	}
	return fmt.Errorf("%w: stop it, or have it reached by the socket in its state_dir", err)
}
