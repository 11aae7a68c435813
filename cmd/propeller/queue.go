package main

import (
	"log/slog"

	"propeller/queue"
	"propeller/queue/beanstalk"
)

// openQueue connects to the queue that the configuration names.
func openQueue(urls []string, log *slog.Logger) (queue.Queue, error) {
	addrs := make([]string, len(urls))
	for i, u := range urls {
		addr, err := beanstalk.ParseURL(u)
		if err != nil {
			return nil, err
		}
		addrs[i] = addr
	}
	return beanstalk.Open(beanstalk.Options{Addrs: addrs, Log: log})
}
