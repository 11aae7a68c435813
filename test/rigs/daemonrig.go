package main

import (
	"context"
	"errors"
	"fmt"
	"os"
)

// daemonRig is a daemon with its queue and its stand-in, and what they were found to do.
type daemonRig struct {
	s        *settings
	dir      string
	bin      string
	arrivals *arrivals
	d        *daemon
	rows     [][2]string
}

func (r *daemonRig) open(ctx context.Context) (err error) {
	if r.dir, err = os.MkdirTemp("", "propeller-rigs-"); err != nil {
		return err
	}
	if r.bin = r.s.daemon; r.bin == "" {
		r.s.say("building the daemon")
		if r.bin, err = buildDaemon(ctx, r.dir); err != nil {
			return err
		}
	}
	if r.arrivals, err = newArrivals(); err != nil {
		return err
	}
	r.d, err = r.newDaemon()
	return err
}

func (r *daemonRig) close() {
	if r.d != nil {
		r.d.close()
	}
	if r.arrivals != nil {
		r.arrivals.apns.Close()
	}
	_ = os.RemoveAll(r.dir) // it is in the system's folder for such
}

// newDaemon is a daemon on a queue of its own, with the key and the roots for all its apps.
func (r *daemonRig) newDaemon() (*daemon, error) {
	d, err := newDaemon(r.s.queue, r.bin)
	if err != nil {
		return nil, err
	}
	key, err := newP8()
	if err == nil {
		err = errors.Join(os.WriteFile(d.path("rig.p8"), key, 0o600), os.WriteFile(d.path("apns.pem"), r.arrivals.apns.CertPEM(), 0o600))
	}
	if err != nil {
		d.close()
		return nil, err
	}
	return d, nil
}

// defaults begins the list of apps in a configuration, with the keys that all of them have.
func (r *daemonRig) defaults(more string) string {
	return fmt.Sprintf("defaults: {server: \"https://%s\", ca_file: apns.pem, key: rig.p8, key_id: ABC123DEFG, team_id: DEF123GHIJ%s}\napps:\n", r.arrivals.apns.Addr(), more)
}

// row adds a line of the table.
func (r *daemonRig) row(name, value string) { r.rows = append(r.rows, [2]string{name, value}) }
