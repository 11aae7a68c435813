package main

import (
	"sync"
	"sync/atomic"
	"time"
)

// sender is one of the libraries measured, with one connection open.
type sender struct {
	// push sends the ith push and waits for its answer. An answer other than 200
	// is an error.
	push func(i int) error
	// load keeps l.streams pushes in flight until l is stopped, and returns when
	// the last has ended.
	load func(l *load)
	// close ends the connection, and with it the pushes on it.
	close func()
}

// load is a stream of pushes without end.
type load struct {
	streams int
	feed    feed

	next    atomic.Int64 // the next push
	ended   atomic.Int64 // those answered
	stopped atomic.Bool
	failure atomic.Pointer[error] // the first one
}

// more returns the number of the next push, unless l was stopped.
func (l *load) more() (i int, ok bool) {
	if l.stopped.Load() {
		return 0, false
	}
	return int(l.next.Add(1)), true
}

// end counts a push that has ended. An error stops l.
func (l *load) end(err error) {
	if err != nil {
		l.failure.CompareAndSwap(nil, &err)
		l.stopped.Store(true)
		return
	}
	l.ended.Add(1)
}

// wait sleeps for d, and on until more than so many pushes have ended: on a busy
// machine none may within a short time. It returns early when l has failed.
func (l *load) wait(ended int64, d time.Duration) {
	const step = 10 * time.Millisecond
	for begin := time.Now(); !l.stopped.Load(); {
		left := d - time.Since(begin)
		if left <= 0 && l.ended.Load() > ended {
			return
		}
		if left <= 0 || left > step {
			left = step
		}
		time.Sleep(left)
	}
}

// err is the first failure.
func (l *load) err() error {
	if e := l.failure.Load(); e != nil {
		return *e
	}
	return nil
}

// callers is the load of a sender whose calls wait for the answer.
func callers(push func(i int) error) func(*load) {
	return func(l *load) {
		var wg sync.WaitGroup
		for range l.streams {
			wg.Go(func() {
				for {
					i, ok := l.more()
					if !ok {
						return
					}
					l.end(push(i))
				}
			})
		}
		wg.Wait()
	}
}
