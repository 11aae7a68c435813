package jetstream

import (
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/jwt/v2"

	"propeller/internal/neterr"
)

// saying is what servers say of why the queue is away (nats-server: errors.go,
// errors.json), and what to do about it. They go on by themselves when it is done.
type saying struct {
	said string
	away bool // they do not let us in
	do   string
}

// checkCredentials stands for what depends on them.
const checkCredentials = "check credentials"

var sayings = []saying{
	{"maximum account active connections exceeded", true, "raise the connections that the queue's account may have, or end others"},
	{"maximum connections exceeded", true, "raise the server's max_connections, or end others"},
	{"authentication revoked", true, "these credentials were revoked: put others in their place"},
	{"account authentication expired", true, "the queue's account has to be renewed"},
	{"authentication expired", true, checkCredentials},
	{"authorization violation", true, checkCredentials},
	{"jetstream not enabled", false, "enable JetStream for the queue's account"},
	{"no responders", false, "JetStream is not enabled for the queue's account, or its servers have no leader"},
	{"maximum number of streams reached", false, "raise the streams that the queue's account may have: it needs 2"},
	{"insufficient storage resources", false, "raise the storage of the queue's account or servers"},
}

// understand finds what is known about an error.
func understand(err error) saying {
	if err != nil {
		text := strings.ToLower(err.Error())
		for _, s := range sayings {
			if strings.Contains(text, s.said) {
				return s
			}
		}
	}
	return saying{}
}

// turnedAway says whether err is a server's word that it does not let us in.
func turnedAway(err error) bool { return understand(err).away }

// advised adds to why the queue is away what an operator can do, where the
// server's words do not say.
func (q *client) advised(err error) error {
	do := understand(err).do
	if do == checkCredentials {
		switch file := q.opts.Options["creds"]; {
		case file == "":
			do = "the server does not take the queue's user, password or token"
		case expired(file):
			do = fmt.Sprintf("the credentials in %s have expired: put new ones into that file", file)
		default:
			do = fmt.Sprintf("the server does not take the credentials in %s", file)
		}
	}
	if do == "" {
		return err
	}
	return fmt.Errorf("%w: %s", err, do)
}

// expired says whether the credentials in a file are of the past. The server
// calls them only wrong.
func expired(file string) bool {
	text, err := readFile(file)
	if err != nil {
		return false
	}
	token, err := jwt.ParseDecoratedJWT(text)
	if err != nil {
		return false
	}
	claims, err := jwt.DecodeUserClaims(token)
	return err == nil && claims.Expires != 0 && time.Now().Unix() >= claims.Expires
}

// explain notes why the servers cannot be reached, or do not let us in again: nats.go
// goes on trying and keeps that to itself. Once a second will do.
func (l *link) explain() {
	l.mu.Lock()
	cn, was := l.cn, l.err
	l.mu.Unlock()
	if cn == nil || was == nil || l.q.embedded != nil || cn.nc.IsConnected() {
		return
	}
	if err := cn.nc.LastError(); err != nil { // of one that was reached
		l.dials.fail(l.dials.reached(), err)
	}
	why := l.dials.why()
	if why == nil {
		return
	}
	if why = unavailable(why); !neterr.Same(was, l.q.advised(why)) {
		l.set(why)
	}
}
