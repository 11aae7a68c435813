package supervisor

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"

	"propeller/apnsconn"
	"propeller/apnsconn/apnstest"
	"propeller/config"
	"propeller/worker"
)

// dialer returns the workers' Dial for an app.
func (s *Supervisor) dialer(c *config.App) worker.Dial {
	dc := apnsconn.Config{
		Addr: c.Addr, Proxy: c.Proxy.URL(), RootCAs: c.RootCAs, InFlight: c.InFlight, PushTimeout: c.PushTimeout,
	}
	if c.SigningKey != nil {
		dc.Token = s.tokens.of(c.SigningKey)
	}
	if c.Mock() {
		dc.Addr = s.mock.Addr
	}
	return func(ctx context.Context, onChange func()) (worker.Conn, error) {
		dc := dc
		dc.OnChange = onChange
		if c.Certificate != nil {
			cert, err := c.Certificate.TLS()
			if err != nil {
				return nil, err
			}
			dc.Certificate = &cert
		}
		if c.Mock() {
			dc.RootCAs = s.mock.CertPool()
			if dc.Token == nil {
				cert := s.mock.ClientCert(c.Topic)
				dc.Certificate = &cert
			}
		}
		conn, err := apnsconn.Dial(ctx, dc)
		if err != nil {
			return nil, err // not a nil *Conn in an interface
		}
		return conn, nil
	}
}

// tokens holds the one ProviderToken of each key, for all apps that use the key and across
// reloads: Apple refuses a key whose tokens change too often. It never shrinks, so that a key that
// is removed and added again finds its token. Entries are small, and people add keys by hand.
type tokens map[tokenKey]*apnsconn.ProviderToken

type tokenKey struct {
	team, id    string
	fingerprint [sha256.Size]byte
}

func (t tokens) of(k *apnsconn.Key) *apnsconn.ProviderToken {
	at := tokenKeyOf(k)
	if t[at] == nil {
		t[at] = apnsconn.NewProviderToken(k)
	}
	return t[at]
}

// startMock starts the built-in APNs stand-in if an app of cfg needs it. It listens on loopback
// only, and stays until the daemon ends. It accepts every push unless the token asks for another
// answer (apnstest.TokenCodes).
func (s *Supervisor) startMock(cfg *config.Config) error {
	if s.mock != nil || !slices.ContainsFunc(cfg.Apps, func(a config.App) bool { return a.Mock() }) {
		return nil
	}
	m, err := apnstest.Start(apnstest.Options{Record: -1, Script: apnstest.TokenCodes, OnRequest: func(r *apnstest.Request) {
		s.o.Log.Info("mock apns: push", "topic", r.Header.Get("apns-topic"), "token", r.Token[:min(8, len(r.Token))], "status", r.Answer.Status, "reason", r.Answer.Reason)
	}})
	if err != nil {
		return fmt.Errorf("supervisor: server \"mock\": %w", err)
	}
	s.o.Log.Info("mock apns listens", "addr", m.Addr)
	s.mock = m
	return nil
}
