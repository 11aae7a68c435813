package httpapi

import (
	"crypto/rand"
	"crypto/sha256"
	"sync"
	"time"
)

// Bounds of sign-ins.
const (
	// sessionTime is a long shift.
	sessionTime = 12 * time.Hour
	// maxSessions, and maxSessionsOfKey those of one key: with more, the oldest of the
	// same key ends, so that who may look only does not sign out who may do more.
	maxSessions      = 1000
	maxSessionsOfKey = 50
)

// keySum stands for a key: the hash of its token.
type keySum = [sha256.Size]byte

// sessions are the visits of those who have signed in. What is kept of the
// cookie is its hash.
type sessions struct {
	mu   sync.Mutex
	byID map[[sha256.Size]byte]visit // at most maxSessions
}

type visit struct {
	key   keySum
	until time.Time
}

// begin returns the secret of a new session of whoever has shown a key.
func (s *sessions) begin(key keySum, now time.Time) (id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byID == nil {
		s.byID = make(map[[sha256.Size]byte]visit)
	}
	s.makeRoom(key)
	id = rand.Text()
	s.byID[sha256.Sum256([]byte(id))] = visit{key, now.Add(sessionTime)}
	return id
}

// makeRoom ends a session if another one of key would be too many: the oldest of
// that key, or of all if it has none.
func (s *sessions) makeRoom(key keySum) {
	var oldest, oldestOwn [sha256.Size]byte
	own := 0
	for id, one := range s.byID {
		if was, ok := s.byID[oldest]; !ok || one.until.Before(was.until) {
			oldest = id
		}
		if one.key != key {
			continue
		}
		if was, ok := s.byID[oldestOwn]; !ok || one.until.Before(was.until) {
			oldestOwn = id
		}
		own++
	}
	switch full := len(s.byID) >= maxSessions; {
	case own >= maxSessionsOfKey, full && own > 0:
		delete(s.byID, oldestOwn)
	case full:
		delete(s.byID, oldest)
	}
}

// key says with which key the session was begun, if there is one.
func (s *sessions) key(id string, now time.Time) (key keySum, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sum := sha256.Sum256([]byte(id))
	one, ok := s.byID[sum]
	if ok && !now.Before(one.until) {
		delete(s.byID, sum)
		return key, false
	}
	return one.key, ok
}

func (s *sessions) end(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.byID, sha256.Sum256([]byte(id)))
}

// keep ends the sessions whose keys there are no more.
func (s *sessions) keep(known func(keySum) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, one := range s.byID {
		if !known(one.key) {
			delete(s.byID, id)
		}
	}
}
