package beanstalk

import (
	"sync"
	"time"
)

// link is a connection that is made when it is needed: for statistics, and as
// part of a putter.
type link struct {
	srv *server

	mu     sync.RWMutex // held for writing while connecting
	s      *session
	failed time.Time // of the last attempt to connect, if it failed
	err    error
}

// getLocked returns a session that was alive a moment ago, for a caller that
// arrived at the given time. Those who waited while an attempt to connect
// failed share its failure: else they would dial a dead address one after
// another. l.mu is held for writing.
func (l *link) getLocked(arrived time.Time) (*session, error) {
	if l.aliveLocked() {
		return l.s, nil
	}
	if l.err != nil && l.failed.After(arrived) {
		return nil, l.err
	}
	s, err := l.srv.connect(l.srv.ctx, nil)
	if err != nil {
		l.failed, l.err = time.Now(), err
		return nil, err
	}
	l.s, l.err = s, nil
	return s, nil
}

func (l *link) aliveLocked() bool {
	l.srv.mu.Lock()
	defer l.srv.mu.Unlock()
	return l.s.aliveLocked()
}

// run runs f, which may be run twice: a connection that stood idle may have
// died unnoticed, which only a command shows.
func (l *link) run(f func(*session) error) error {
	arrived := time.Now()
	var err error
	for range 2 {
		l.mu.Lock()
		s, cerr := l.getLocked(arrived)
		l.mu.Unlock()
		if cerr != nil {
			return cerr
		}
		if err = f(s); !isBroken(err) {
			return err
		}
	}
	return err
}
