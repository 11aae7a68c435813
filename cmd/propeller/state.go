package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"propeller/config"
	"propeller/httpapi"
	"propeller/internal/files"
)

// state is what a daemon keeps in its state_dir: the socket that `propeller jobs` uses.
// Pushes do not depend on it.
type state struct {
	dir  string
	log  *slog.Logger
	hold *httpapi.State // nil: the folder cannot be used, or there is none
}

// openState opens what there is in the state_dir, or else in the queue's folder; a
// daemon may have neither. An error is one of the configuration: another daemon has the
// folder, everybody may write there, or its path is too long. What the file system
// refuses is logged, and the daemon runs without.
func openState(cfg *config.Config, log *slog.Logger) (*state, error) {
	dir, key := cfg.StateDir, "state_dir"
	if dir == cfg.Queue.Dir {
		key = "queue"
	}
	s := &state{dir: dir, log: log}
	if dir == "" {
		return s, nil
	}
	hold, err := httpapi.Open(dir)
	switch {
	case errors.Is(err, httpapi.ErrInUse), errors.Is(err, httpapi.ErrPath), errors.Is(err, files.ErrShared):
		return nil, fmt.Errorf("%s: %w", key, err)
	case err != nil:
		log.Error(key+" cannot be used: no socket", "err", err)
		return s, nil
	}
	s.hold = hold
	s.putAside()
	return s, nil
}

// putAside renames the file in which earlier versions kept the reasons of buried jobs.
// Now the jobs carry their reasons.
func (s *state) putAside() {
	old := filepath.Join(s.dir, "buried.db")
	if missing(old) {
		return
	}
	if err := os.Rename(old, old+".old"); err != nil {
		s.log.Warn("the buried.db of an earlier version cannot be renamed", "err", err)
		return
	}
	_ = os.Remove(filepath.Join(s.dir, "buried.mark")) // it marked that there was a buried.db
	s.log.Info("the buried.db of an earlier version is not read: jobs buried by that version are listed without their reasons", "file", old+".old")
}

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

// close lets go of the folder.
func (s *state) close() {
	if s.hold == nil {
		return
	}
	if err := s.hold.Close(); err != nil {
		s.log.Warn("closing state_dir", "err", err)
	}
}
