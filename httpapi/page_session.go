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
	// maxSessions: with more, the oldest ends. Only who has a key begins one.
	maxSessions = 1000
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
	if len(s.byID) >= maxSessions {
		s.dropOldest()
	}
	id = rand.Text()
	s.byID[sha256.Sum256([]byte(id))] = visit{key, now.Add(sessionTime)}
	return id
}

func (s *sessions) dropOldest() {
	var oldest [sha256.Size]byte
	var until time.Time
	for id, one := range s.byID {
		if until.IsZero() || one.until.Before(until) {
			oldest, until = id, one.until
		}
	}
	delete(s.byID, oldest)
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
