package supervisor

import (
	"crypto/sha256"

	"propeller/apnsconn"
)

// tokens holds the one ProviderToken of each key, for all apps that use it and
// across reloads: Apple refuses a key whose tokens change too often. It never
// shrinks, so that a key that is taken out and put back finds its token again;
// an entry is small, and people make them by hand.
type tokens map[tokenKey]*apnsconn.ProviderToken

type tokenKey struct {
	team, id    string
	fingerprint [sha256.Size]byte
}

func (t tokens) of(k *apnsconn.Key) *apnsconn.ProviderToken {
	at := tokenKey{k.Team, k.ID, k.Fingerprint}
	if t[at] == nil {
		t[at] = apnsconn.NewProviderToken(k)
	}
	return t[at]
}
