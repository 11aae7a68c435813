package worker

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"
	"unique"
)

const (
	// tokenLimit is how many device tokens an app's tokenCache holds. One takes 130 bytes, so
	// a full cache takes 8.5 MB; the memory is released when the last of them is an hour old.
	tokenLimit = 65_536
	// tokenTime is how long a device token is remembered at most.
	tokenTime = time.Hour
)

// tokenCache is what APNs has lately said of device tokens: which are dead, and
// which take no push before a time. Each 4xx makes APNs slow the connection
// down, so such a token is better not sent again. It holds a limited number of
// tokens, the oldest leave first, and each for at most one hour.
//
// What is known of a token holds for the apns-topic of the push that was
// answered: a token may be good for the app's alerts and refused for its calls.
//
// It remembers nothing of "", the token of a broadcast.
//
// Tokens are compared as they are written: callers pass them in lower case.
type tokenCache struct {
	limit int
	base  time.Time // times are kept as durations since, by the clock that is never set
	seeds [4]maphash.Seed

	count atomic.Int64 // of known; 0 lets look and delivered end at once

	mu     sync.RWMutex
	known  map[tokenKey]*cachedToken // nil when empty
	order  cachedToken               // ring of the known, order.next the oldest told
	latest time.Duration             // since base: from then on nothing known holds any more
}

// tokenKey stands for a topic and a device token: 128 bits of hashes with seeds of this
// process's own. Were two tokens to share one, a push would be dropped as dead;
// with 65,536 tokens known and 200,000 looks a second that is to be expected
// once in 10^20 years, and nobody outside can choose tokens to make it happen.
type tokenKey [2]uint64

// cachedToken is what is known of one token.
type cachedToken struct {
	older, newer *cachedToken
	key          tokenKey
	reason       unique.Handle[string] // a handful of reasons over all entries
	status       int32
	said         bool          // at is APNs' own
	at           int64         // Unix milliseconds, APNs' own precision
	dead         time.Duration // since tokenCache.base: dead until then; 0 = not dead
	wait         time.Duration // since tokenCache.base: takes no push before; 0 = takes
}

// tokenState is what is remembered of a device token. The zero value: nothing.
type tokenState struct {
	dead   bool          // APNs called it dead within the last hour
	reason string        // APNs' reason for that
	status int           // the HTTP status of that answer
	since  time.Time     // since when, by APNs, to the millisecond; zero = it did not say
	at     time.Time     // since, or else when APNs called it dead
	wait   time.Duration // it takes no push before that has passed; 0 = takes
}

// newTokenCache returns an empty cache for up to limit tokens.
func newTokenCache(limit int) *tokenCache {
	c := &tokenCache{limit: limit, base: time.Now()}
	for i := range c.seeds {
		c.seeds[i] = maphash.MakeSeed()
	}
	c.empty()
	return c
}

// setDead remembers for an hour from now that APNs called a token dead, with that
// reason and HTTP status. since is the answer's own time; zero: it has none.
func (c *tokenCache) setDead(topic, token, reason string, status int, since time.Time) {
	c.tell(topic, token, func(e *cachedToken, now time.Duration) {
		e.said = !since.IsZero()
		if !e.said {
			since = time.Now()
		}
		e.reason, e.status, e.at = unique.Make(reason), int32(status), since.UnixMilli()
		e.dead = now + tokenTime
	})
}

// throttle remembers that a token takes no push before until, or before an hour
// from now if that is sooner.
func (c *tokenCache) throttle(topic, token string, until time.Time) {
	if !until.After(time.Now()) {
		return
	}
	c.tell(topic, token, func(e *cachedToken, now time.Duration) {
		e.wait = min(until.Sub(c.base), now+tokenTime)
	})
}

// look says what is remembered of a token.
func (c *tokenCache) look(topic, token string, now time.Time) (v tokenState) {
	if c.count.Load() == 0 {
		return tokenState{}
	}
	at := now.Sub(c.base)
	c.mu.RLock()
	over := at >= c.latest
	if e := c.known[c.key(topic, token)]; e != nil {
		v = e.state(at)
	}
	c.mu.RUnlock()
	if over {
		c.forgetAll(at)
	}
	return v
}

// delivered forgets a token: APNs takes it again.
func (c *tokenCache) delivered(topic, token string) {
	if c.count.Load() == 0 {
		return
	}
	key := c.key(topic, token)
	c.mu.RLock()
	e := c.known[key]
	c.mu.RUnlock()
	if e == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.known[key]; e != nil {
		c.forget(e)
	}
}

// len is how many tokens are remembered.
func (c *tokenCache) len() int {
	return int(c.count.Load())
}

func (c *tokenCache) key(topic, token string) tokenKey {
	return tokenKey{
		maphash.String(c.seeds[0], token) ^ maphash.String(c.seeds[2], topic),
		maphash.String(c.seeds[1], token) ^ maphash.String(c.seeds[3], topic),
	}
}

// tell adds to what is known of a token by set, and makes it the newest.
func (c *tokenCache) tell(topic, token string, set func(e *cachedToken, now time.Duration)) {
	if token == "" {
		return
	}
	key, now := c.key(topic, token), time.Since(c.base)
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.known[key]
	if e == nil {
		e = &cachedToken{key: key}
	} else {
		c.forget(e)
	}
	set(e, now)
	c.latest = max(c.latest, e.dead, e.wait)
	for oldest := c.order.newer; oldest != &c.order && (len(c.known) >= c.limit || oldest.past(now)); oldest = c.order.newer {
		c.forget(oldest)
	}
	c.remember(e)
}

// remember puts e in as the newest.
func (c *tokenCache) remember(e *cachedToken) {
	if c.known == nil {
		c.known = make(map[tokenKey]*cachedToken)
	}
	c.known[e.key] = e
	e.older, e.newer = c.order.older, &c.order
	e.older.newer, c.order.older = e, e
	c.count.Store(int64(len(c.known)))
}

func (c *tokenCache) forget(e *cachedToken) {
	delete(c.known, e.key)
	e.older.newer, e.newer.older = e.newer, e.older
	c.count.Store(int64(len(c.known)))
}

// forgetAll empties the cache if nothing in it holds at now any more, so that
// an app without trouble pays for none.
func (c *tokenCache) forgetAll(now time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now >= c.latest {
		c.empty()
	}
}

func (c *tokenCache) empty() {
	c.known, c.latest = nil, 0 // a map never gives its room back otherwise
	c.order.older, c.order.newer = &c.order, &c.order
	c.count.Store(0)
}

// past says that nothing of e holds at now.
func (e *cachedToken) past(now time.Duration) bool { return now >= max(e.dead, e.wait) }

func (e *cachedToken) state(now time.Duration) (v tokenState) {
	if now < e.dead {
		v = tokenState{dead: true, reason: e.reason.Value(), status: int(e.status), at: time.UnixMilli(e.at)}
		if e.said {
			v.since = v.at
		}
	}
	v.wait = max(0, e.wait-now)
	return v
}
