package supervisor

import (
	"fmt"
	"slices"

	"propeller/apnsconn/apnstest"
	"propeller/config"
)

// startMock starts the built-in APNs stand-in if an app of cfg wants it. It
// listens on loopback only, and stays until the daemon ends. It takes all pushes
// but those whose token asks for something else (apnstest.TokenCodes).
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
