package main

import (
	"log/slog"

	"propeller/config"
	"propeller/httpapi"
)

// web is the daemon's HTTP server, as the configuration's http has it.
type web struct {
	log    *slog.Logger
	first  config.HTTP     // where it listens: of the start
	server *httpapi.Server // nil: there is none
	api    *httpapi.API
}

// openWeb opens the listener, before anything runs. Without http.listen there
// is none.
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

// close lets go of a listener that nobody has served.
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
		w.log.Warn("http.listen, tls_cert or tls_key has changed; that takes effect at the next start", "from", w.first.Listen, "to", c.Listen)
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
		s.Keys = append(s.Keys, httpapi.Key{Name: k.Name, Token: k.Token.Reveal(), Role: webRoles[k.Role], Topics: k.Topics, Rate: k.Rate})
	}
	return s
}
