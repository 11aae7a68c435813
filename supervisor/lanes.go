package supervisor

import (
	"crypto/sha256"
	"maps"

	"propeller/apnsconn"
	"propeller/config"
	"propeller/worker"
)

// lanes holds what apps share that have the same topic, server and credential: what APNs has shown
// about those. It stays with them across reloads: an app that changes in other ways keeps it, one
// that moves to another credential finds what is known of that one, and when no app uses a
// credential any more it is forgotten.
type lanes map[laneKey]*worker.Lanes

// laneKey is what apps must have in common to be lanes. Of a certificate the leaf counts: APNs says
// the same whatever intermediates come with it.
type laneKey struct {
	topic, server, addr string
	certificate         [sha256.Size]byte // zero without
	key                 tokenKey          // zero without
}

func laneKeyOf(c *config.App) laneKey {
	k := laneKey{topic: c.Topic, server: c.Server, addr: c.Addr}
	if c.Certificate != nil {
		k.certificate = c.Certificate.Fingerprint
	}
	if c.SigningKey != nil {
		k.key = tokenKeyOf(c.SigningKey)
	}
	return k
}

// of returns what an app shares with others.
func (l lanes) of(c *config.App) *worker.Lanes {
	k := laneKeyOf(c)
	if l[k] == nil {
		l[k] = worker.NewLanes()
	}
	return l[k]
}

// forget drops what no app shares any more. Workers that still drain keep theirs.
func (l lanes) forget(apps map[string]*app) {
	used := make(map[laneKey]bool, len(l))
	for _, a := range apps {
		used[laneKeyOf(a.cfg)] = true
	}
	maps.DeleteFunc(l, func(k laneKey, _ *worker.Lanes) bool { return !used[k] })
}

func tokenKeyOf(k *apnsconn.Key) tokenKey { return tokenKey{k.Team, k.ID, k.Fingerprint} }
