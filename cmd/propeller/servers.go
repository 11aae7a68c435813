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
	dir    string
	log    *slog.Logger
	folder *httpapi.State // nil: the folder cannot be used, or there is none
}

// openState opens the state_dir, or else the queue's folder; a daemon may have neither.
// An error is a fault of the configuration: another daemon has the folder, every user may
// write there, or its path is too long. Errors of the file system are logged, and the
// daemon runs without its socket.
func openState(cfg *config.Config, log *slog.Logger) (*state, error) {
	dir, key := cfg.StateDir, "state_dir"
	if dir == cfg.Queue.Dir {
		key = "queue"
	}
	s := &state{dir: dir, log: log}
	if dir == "" {
		return s, nil
	}
	folder, err := httpapi.Open(dir)
	switch {
	case errors.Is(err, httpapi.ErrInUse), errors.Is(err, httpapi.ErrPath), errors.Is(err, files.ErrShared):
		return nil, fmt.Errorf("%s: %w", key, err)
	case err != nil:
		log.Error(key+" cannot be used: propeller status, jobs and send cannot reach the daemon", "err", err)
		return s, nil
	}
	s.folder = folder
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
		s.log.Warn("cannot rename the buried.db of an earlier version", "err", err)
		return
	}
	_ = os.Remove(filepath.Join(s.dir, "buried.mark")) // it marked that there was a buried.db
	s.log.Info("the buried.db of an earlier version is not read: jobs buried by that version are listed without their reasons", "file", old+".old")
}

// serve makes the service that answers on the socket; nil if there is none.
func (s *state) serve(api *httpapi.API) *httpapi.Server {
	if s.folder == nil {
		return nil
	}
	server, err := httpapi.NewServer(s.folder, api.Socket(), s.log)
	if err != nil {
		s.log.Error("cannot create the socket in state_dir: propeller status, jobs and send cannot reach the daemon", "err", err)
		return nil
	}
	return server
}

// moved logs that a reload wants another folder, which takes a restart.
func (s *state) moved(dir string) {
	if s != nil && dir != s.dir {
		s.log.Warn("state_dir has changed; the change takes effect at the next start", "from", s.dir, "to", dir)
	}
}

// close releases the folder.
func (s *state) close() {
	if s.folder == nil {
		return
	}
	if err := s.folder.Close(); err != nil {
		s.log.Warn("closing state_dir", "err", err)
	}
}

// web is the daemon's HTTP server, as the configuration's http has it.
type web struct {
	log    *slog.Logger
	first  config.HTTP     // where it listens: of the start
	server *httpapi.Server // nil: there is none
	api    *httpapi.API
}

// openWeb opens the listener, before anything runs. Without http.listen
// there is no listener.
func openWeb(c config.HTTP, log *slog.Logger) (*web, error) {
	w := &web{log: log, first: c}
	if c.Listen == "" {
		return w, nil
	}
	var err error
	w.server, err = httpapi.NewWeb(httpapi.Web{Listen: c.Listen, TLSCert: c.TLSCert, TLSKey: c.TLSKey}, log)
	if err == nil {
		warnNoKeys(c, log)
	}
	return w, err
}

// warnNoKeys says what it means that there are no keys.
func warnNoKeys(c config.HTTP, log *slog.Logger) {
	if c.Listen != "" && c.AuthToken.IsZero() && len(c.Keys) == 0 {
		log.Warn("http has no keys: any client on this machine is an admin; put no proxy in front of it, or give http.auth_token or http.keys", "listen", c.Listen)
	}
}

// serve makes the service that answers by api; nil if there is none.
func (w *web) serve(api *httpapi.API) *httpapi.Server {
	w.api = api
	api.Use(webSettings(w.first))
	if w.server != nil {
		w.server.Answer(api.Network())
		w.server.Shared(api.Trusts)
	}
	return w.server
}

// close closes a listener that was never served.
func (w *web) close() {
	if w.server != nil {
		_ = w.server.Close() // what Serve has closed, it need not
	}
}

// changed takes over what a reload may change, and logs what takes a restart.
func (w *web) changed(c config.HTTP) {
	if w == nil {
		return
	}
	w.api.Use(webSettings(c))
	warnNoKeys(c, w.log)
	if c.Listen != w.first.Listen || c.TLSCert != w.first.TLSCert || c.TLSKey != w.first.TLSKey {
		w.log.Warn("http.listen, tls_cert or tls_key has changed; the change takes effect at the next start", "from", w.first.Listen, "to", c.Listen)
	}
}

// webRoles are the configuration's roles.
var webRoles = map[string]httpapi.Role{ // never written to
	config.RoleRead: httpapi.RoleRead, config.RoleSend: httpapi.RoleSend, config.RoleAdmin: httpapi.RoleAdmin,
}

func webSettings(c config.HTTP) httpapi.Settings {
	s := httpapi.Settings{TrustedProxies: c.TrustedProxies, BasePath: c.BasePath, PProf: c.PProf, HSTS: c.HSTS, Closed: c.Listen == ""}
	if !c.AuthToken.IsZero() {
		s.Keys = append(s.Keys, httpapi.Key{Name: config.AuthTokenName, Token: c.AuthToken.Reveal(), Role: httpapi.RoleAdmin})
	}
	for _, k := range c.Keys {
		s.Keys = append(s.Keys, httpapi.Key{Name: k.Name, Token: k.Token.Reveal(), Role: webRoles[k.Role], Apps: k.Apps, Topics: k.Topics, Rate: k.Rate})
	}
	return s
}
