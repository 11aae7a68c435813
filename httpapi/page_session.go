package httpapi

import (
	"crypto/rand"
	"crypto/sha256"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Bounds of sign-ins.
const (
	// sessionTime is a long shift.
	sessionTime = 12 * time.Hour
	// maxSessions: with more, the oldest ends. Only who has a key begins one.
	maxSessions = 1000
	// attemptBurst and attemptEvery bound the wrong keys that one address may
	// show: so many at once, then one each attemptEvery.
	attemptBurst = 10
	attemptEvery = 6 * time.Second
	// maxAddrs bounds the addresses that are told apart; those beyond share one
	// bound.
	maxAddrs = 1000
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

// attempts bounds how many wrong keys may be tried.
type attempts struct {
	mu     sync.Mutex
	byAddr map[string]*rate.Limiter // at most maxAddrs; without those that may try as often as anybody
	others *rate.Limiter            // of the addresses beyond
}

// allow says whether somebody at addr may show a key, and counts that as a wrong
// one until right is called.
func (a *attempts) allow(addr string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.of(network(addr)).Allow()
}

// right notes that the key was a right one.
func (a *attempts) right(addr string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.byAddr, network(addr))
}

func (a *attempts) of(addr string) *rate.Limiter {
	if l := a.byAddr[addr]; l != nil {
		return l
	}
	if a.byAddr == nil {
		a.byAddr, a.others = make(map[string]*rate.Limiter), newAttempts()
	}
	if len(a.byAddr) >= maxAddrs {
		for old, l := range a.byAddr {
			if l.Tokens() >= attemptBurst {
				delete(a.byAddr, old)
			}
		}
	}
	if len(a.byAddr) >= maxAddrs {
		return a.others
	}
	l := newAttempts()
	a.byAddr[addr] = l
	return l
}

func newAttempts() *rate.Limiter { return rate.NewLimiter(rate.Every(attemptEvery), attemptBurst) }

// network is what one client has: an IPv4 address, or the /64 of an IPv6 one.
func network(addr string) string {
	ip, err := netip.ParseAddr(addr)
	if err != nil || ip.Is4() || ip.Is4In6() {
		return addr
	}
	p, err := ip.WithZone("").Prefix(64)
	if err != nil {
		return addr
	}
	return p.String()
}
