package httpapi

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// Limits of a connection. A client on this machine needs a fraction of them.
const (
	readTime   = 10 * time.Second
	writeTime  = maxTime + 10*time.Second // the answer comes after the work
	idleTime   = time.Minute
	maxHeader  = 16 << 10
	finishTime = 5 * time.Second // for requests under way at the end
)

// Server is a suture service that answers on a Unix socket.
type Server struct {
	state   *State
	first   net.Listener // of the first Serve; nil after it
	handler http.Handler
	log     *slog.Logger
}

// NewServer opens the socket of a state_dir, on which Serve will answer by h.
func NewServer(s *State, h http.Handler, log *slog.Logger) (*Server, error) {
	ln, err := s.Listen()
	if err != nil {
		return nil, err
	}
	return &Server{state: s, first: ln, handler: h, log: log}, nil
}

// String names the server in suture's events.
func (*Server) String() string { return "socket" }

// Serve answers until ctx ends.
func (s *Server) Serve(ctx context.Context) error {
	ln := s.first
	if s.first = nil; ln == nil { // a restart: the listener before was closed
		var err error
		if ln, err = s.state.Listen(); err != nil {
			return err
		}
	}
	srv := &http.Server{
		Handler: s.handler, ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
		ReadTimeout: readTime, WriteTimeout: writeTime, IdleTimeout: idleTime, MaxHeaderBytes: maxHeader,
	}
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(ln) }()
	select {
	case err := <-ended:
		return errors.Join(err, srv.Close())
	case <-ctx.Done():
	}
	finish, cancel := context.WithTimeout(context.Background(), finishTime)
	defer cancel()
	err := srv.Shutdown(finish)
	if err != nil {
		err = srv.Close()
	}
	<-ended
	if err != nil {
		s.log.Warn("closing the socket", "err", err)
	}
	return ctx.Err()
}
