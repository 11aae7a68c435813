package main

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"propeller/httpapi"
	"propeller/queue/journal"
)

// state is what a daemon keeps in its state_dir: the journal of buried jobs,
// and the socket by which `propeller jobs` asks it. Pushes depend on none of it.
type state struct {
	dir  string
	log  *slog.Logger
	hold *httpapi.State // nil: the folder cannot be used, or there is none

	current atomic.Pointer[journal.Journal] // nil: not open (yet)
	stop    context.CancelFunc
	opening sync.WaitGroup
}

// journalEvery is how long a journal that could not be opened is left alone: a
// command that works on the queue without a daemon may have it for a minute.
const journalEvery = 10 * time.Second

// openState opens what there is in dir; "" is for a daemon without. An error is
// one of the configuration: another daemon has the folder, or its path is too
// long. What the file system refuses is logged, and the daemon runs without.
func openState(dir string, log *slog.Logger) (*state, error) {
	s := &state{dir: dir, log: log, stop: func() {}}
	if dir == "" {
		return s, nil
	}
	hold, err := httpapi.Open(dir)
	switch {
	case errors.Is(err, httpapi.ErrInUse), errors.Is(err, httpapi.ErrPath):
		return nil, err
	case err != nil:
		log.Error("state_dir cannot be used: no journal of buried jobs, no socket", "err", err)
		return s, nil
	}
	s.hold = hold
	if err := s.openJournal(); err != nil {
		log.Error("the journal of buried jobs cannot be opened; tried again", "every", journalEvery, "err", err)
		var ctx context.Context
		ctx, s.stop = context.WithCancel(context.Background())
		s.opening.Go(func() { s.retry(ctx) })
	}
	return s, nil
}

func (s *state) openJournal() error {
	j, err := journal.Open(s.dir, journal.Options{Log: s.log})
	if err == nil {
		s.current.Store(j)
	}
	return err
}

// retry opens the journal as soon as that is possible.
func (s *state) retry(ctx context.Context) {
	tick := time.NewTicker(journalEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if s.openJournal() == nil {
			s.log.Info("the journal of buried jobs is open")
			return
		}
	}
}

// journal is the one at present, or nil.
func (s *state) journal() *journal.Journal { return s.current.Load() }

// serve makes the service that answers on the socket; nil if there is none.
func (s *state) serve(api *httpapi.API) *httpapi.Server {
	if s.hold == nil {
		return nil
	}
	server, err := httpapi.NewServer(s.hold, api.Socket(), s.log)
	if err != nil {
		s.log.Error("no socket in state_dir: propeller jobs works without the daemon only", "err", err)
		return nil
	}
	return server
}

// moved logs that a reload wants another folder, which takes a restart.
func (s *state) moved(dir string) {
	if s != nil && dir != s.dir {
		s.log.Warn("state_dir has changed; that takes effect at the next start", "from", s.dir, "to", dir)
	}
}

// close ends the journal, with what it has not written yet, and lets go of the
// folder.
func (s *state) close() {
	s.stop()
	s.opening.Wait()
	var err error
	if j := s.current.Load(); j != nil {
		err = j.Close()
	}
	if s.hold != nil {
		err = errors.Join(err, s.hold.Close())
	}
	if err != nil {
		s.log.Warn("closing state_dir", "err", err)
	}
}
