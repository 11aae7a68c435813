package worker

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"
	"unique"
)

const (
	// memoryLimit is how many device tokens an app's Memory holds unless told
	// otherwise. One takes 130 bytes, so a full memory takes 8.5 MB; it is given
	// back when the last of them is an hour old.
	memoryLimit = 65_536
	// memoryTime is how long a device token is remembered at most.
	memoryTime = time.Hour
)

// Memory is what APNs has lately said of device tokens: which are dead, and
// which take no push before a time. Each 4xx makes APNs slow the connection
// down, so such a token is better not sent again. It holds a limited number of
// tokens, the oldest leave first, and each for at most one hour.
//
// What is known of a token holds for the apns-topic of the push that was
// answered: a token may be good for the app's alerts and refused for its calls.
//
// A Memory is shared by an app's workers. A nil Memory remembers nothing; none
// remembers anything of "", the token of a broadcast.
//
// Tokens are compared as they are written: callers pass them in lower case.
type Memory struct {
	limit int
	base  time.Time // times are kept as durations since, by the clock that is never set
	seeds [4]maphash.Seed

	count atomic.Int64 // of known; 0 lets Look and Delivered end at once

	mu     sync.RWMutex
	known  map[memoryKey]*memory // nil when empty
	order  memory                // ring of the known, order.next the oldest told
	latest time.Duration         // since base: from then on nothing known holds any more
}

// memoryKey stands for a topic and a device token: 128 bits of hashes with seeds of this
// process's own. Were two tokens to share one, a push would be dropped as dead;
// with 65,536 tokens known and 200,000 looks a second that is to be expected
// once in 10^20 years, and nobody outside can choose tokens to make it happen.
type memoryKey [2]uint64

// memory is what is known of one token.
type memory struct {
	older, newer *memory
	key          memoryKey
	reason       unique.Handle[string] // a handful of reasons over all entries
	status       int32
	said         bool          // at is APNs' own
	at           int64         // Unix milliseconds, APNs' own precision
	dead         time.Duration // since Memory.base: dead until then; 0 = not dead
	wait         time.Duration // since Memory.base: takes no push before; 0 = takes
}

// Verdict is what is remembered of a device token. The zero value: nothing.
type Verdict struct {
	Dead   bool          // APNs called it dead within the last hour
	Reason string        // APNs' reason for that
	Status int           // the HTTP status of that answer
	Since  time.Time     // since when, by APNs, to the millisecond; zero = it did not say
	At     time.Time     // Since, or else when APNs called it dead
	Wait   time.Duration // it takes no push before that has passed; 0 = takes
}

// NewMemory returns an empty memory for up to limit tokens; 0 means 65,536.
func NewMemory(limit int) *Memory {
	if limit <= 0 {
		limit = memoryLimit
	}
	m := &Memory{limit: limit, base: time.Now()}
	for i := range m.seeds {
		m.seeds[i] = maphash.MakeSeed()
	}
	m.empty()
	return m
}

// Dead remembers for an hour from now that APNs called a token dead, with that
// reason and HTTP status. since is the answer's own time; zero: it has none.
func (m *Memory) Dead(topic, token, reason string, status int, since time.Time) {
	m.tell(topic, token, func(e *memory, now time.Duration) {
		e.said = !since.IsZero()
		if !e.said {
			since = time.Now()
		}
		e.reason, e.status, e.at = unique.Make(reason), int32(status), since.UnixMilli()
		e.dead = now + memoryTime
	})
}

// Throttle remembers that a token takes no push before until, or before an hour
// from now if that is sooner.
func (m *Memory) Throttle(topic, token string, until time.Time) {
	if m == nil || !until.After(time.Now()) {
		return
	}
	m.tell(topic, token, func(e *memory, now time.Duration) {
		e.wait = min(until.Sub(m.base), now+memoryTime)
	})
}

// Look says what is remembered of a token.
func (m *Memory) Look(topic, token string, now time.Time) (v Verdict) {
	if m == nil || m.count.Load() == 0 {
		return Verdict{}
	}
	at := now.Sub(m.base)
	m.mu.RLock()
	over := at >= m.latest
	if e := m.known[m.key(topic, token)]; e != nil {
		v = e.verdict(at)
	}
	m.mu.RUnlock()
	if over {
		m.forgetAll(at)
	}
	return v
}

// Delivered forgets a token: APNs takes it again.
func (m *Memory) Delivered(topic, token string) {
	if m == nil || m.count.Load() == 0 {
		return
	}
	key := m.key(topic, token)
	m.mu.RLock()
	e := m.known[key]
	m.mu.RUnlock()
	if e == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if e := m.known[key]; e != nil {
		m.forget(e)
	}
}

// Len is how many tokens are remembered.
func (m *Memory) Len() int {
	if m == nil {
		return 0
	}
	return int(m.count.Load())
}

func (m *Memory) key(topic, token string) memoryKey {
	return memoryKey{
		maphash.String(m.seeds[0], token) ^ maphash.String(m.seeds[2], topic),
		maphash.String(m.seeds[1], token) ^ maphash.String(m.seeds[3], topic),
	}
}

// tell adds to what is known of a token by set, and makes it the newest.
func (m *Memory) tell(topic, token string, set func(e *memory, now time.Duration)) {
	if m == nil || token == "" {
		return
	}
	key, now := m.key(topic, token), time.Since(m.base)
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.known[key]
	if e == nil {
		e = &memory{key: key}
	} else {
		m.forget(e)
	}
	set(e, now)
	m.latest = max(m.latest, e.dead, e.wait)
	for oldest := m.order.newer; oldest != &m.order && (len(m.known) >= m.limit || oldest.past(now)); oldest = m.order.newer {
		m.forget(oldest)
	}
	m.remember(e)
}

// remember puts e in as the newest.
func (m *Memory) remember(e *memory) {
	if m.known == nil {
		m.known = make(map[memoryKey]*memory)
	}
	m.known[e.key] = e
	e.older, e.newer = m.order.older, &m.order
	e.older.newer, m.order.older = e, e
	m.count.Store(int64(len(m.known)))
}

func (m *Memory) forget(e *memory) {
	delete(m.known, e.key)
	e.older.newer, e.newer.older = e.newer, e.older
	m.count.Store(int64(len(m.known)))
}

// forgetAll empties the memory if nothing in it holds at now any more, so that
// an app without trouble pays for none.
func (m *Memory) forgetAll(now time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if now >= m.latest {
		m.empty()
	}
}

func (m *Memory) empty() {
	m.known, m.latest = nil, 0 // a map never gives its room back otherwise
	m.order.older, m.order.newer = &m.order, &m.order
	m.count.Store(0)
}

// past says that nothing of e holds at now.
func (e *memory) past(now time.Duration) bool { return now >= max(e.dead, e.wait) }

func (e *memory) verdict(now time.Duration) (v Verdict) {
	if now < e.dead {
		v = Verdict{Dead: true, Reason: e.reason.Value(), Status: int(e.status), At: time.UnixMilli(e.at)}
		if e.said {
			v.Since = v.At
		}
	}
	v.Wait = max(0, e.wait-now)
	return v
}
