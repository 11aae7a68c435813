package jetstream

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/nats-io/nkeys"
)

// advised adds to why the queue is away what an operator can do, where the
// server's words do not say.
func (q *client) advised(err error) error {
	if err == nil {
		return nil
	}
	if do := q.advice(err); do != "" {
		return fmt.Errorf("%w: %s", err, do)
	}
	return err
}

// advices are what to do about what servers say (nats-server: errors.go,
// errors.json). They go on by themselves when it is done.
var advices = []struct{ said, do string }{
	{"maximum account active connections exceeded", "raise the connections that the queue's account may have, or end others"},
	{"maximum connections exceeded", "raise the server's max_connections, or end others"},
	{"authentication revoked", "these credentials were revoked: put others in their place"},
	{"account authentication expired", "the queue's account has to be renewed"},
	{"jetstream not enabled", "enable JetStream for the queue's account"},
	{"no responders", "JetStream is not enabled for the queue's account, or its servers have no leader"},
	{"maximum number of streams reached", "raise the streams that the queue's account may have: it needs 2"},
	{"insufficient storage resources", "raise the storage of the queue's account or servers"},
}

func (q *client) advice(err error) string {
	text := strings.ToLower(err.Error())
	for _, a := range advices {
		if strings.Contains(text, a.said) {
			return a.do
		}
	}
	if !strings.Contains(text, "authorization violation") && !strings.Contains(text, "authentication expired") {
		return ""
	}
	switch file := q.opts.CredsFile; {
	case file == "":
		return "the server does not take the queue's user, password or token"
	case expired(file):
		return fmt.Sprintf("the credentials in %s have expired: put new ones into that file", file)
	default:
		return fmt.Sprintf("the server does not take the credentials in %s", file)
	}
}

// expired says whether the credentials in a file are of the past. The server
// calls them only wrong.
func expired(file string) bool {
	text, err := os.ReadFile(file)
	if err != nil {
		return false
	}
	token, err := nkeys.ParseDecoratedJWT(text)
	if err != nil {
		return false
	}
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return false
	}
	var claims struct {
		Expires int64 `json:"exp"`
	}
	body, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil || json.Unmarshal(body, &claims) != nil {
		return false
	}
	return claims.Expires != 0 && time.Now().Unix() >= claims.Expires
}

// turnedAway says whether err is a server's word that it does not let us in.
func turnedAway(err error) bool {
	if err == nil {
		return false
	}
	text := strings.ToLower(err.Error())
	for _, said := range []string{"authorization violation", "authentication expired", "authentication revoked", "connections exceeded"} {
		if strings.Contains(text, said) {
			return true
		}
	}
	return false
}

// explain notes why the servers do not let us in again: nats.go keeps that until
// it is asked. Once a second will do.
func (l *link) explain() {
	l.mu.Lock()
	cn, was := l.cn, l.err
	l.mu.Unlock()
	if cn == nil || was == nil || cn.nc.IsConnected() {
		return
	}
	if err := cn.nc.LastError(); turnedAway(err) {
		if err = unavailable(err); was.Error() != l.q.advised(err).Error() {
			l.set(err)
		}
	}
}
