package httpapi

import (
	"crypto/sha256"
	"sync"
	"time"
)

// Bounds of the answers kept.
const (
	keepFor = 24 * time.Hour
	// maxKept and maxKeptBytes: with either reached the oldest leave. 50,000
	// answers to one notification each take some 20 MB.
	maxKept      = 50_000
	maxKeptBytes = 32 << 20
	keptOverhead = 300 // bytes of an entry besides its answer, about
)

// answers remembers how requests with an Idempotency-Key were answered.
type answers struct {
	mu    sync.Mutex
	byKey map[string]*kept
	order []*kept // oldest first, but for some under way; those that were not kept may be among them
	bytes int
}

// kept is one answer.
type kept struct {
	key    string
	sum    [sha256.Size]byte // of the request's body
	at     time.Time
	done   bool
	answer answer
}

// found is what there is for a key.
type found int

const (
	answerNew     found = iota // nothing: the caller is the first, and must call finish
	answerPending              // the first is at work
	answerOther                // the answer to another body
	answerKept
)

// begin looks a key up, or takes it.
func (k *answers) begin(key string, sum [sha256.Size]byte, now time.Time) (*kept, found) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.dropOld(now)
	e := k.byKey[key]
	switch {
	case e != nil && e.sum != sum:
		return nil, answerOther
	case e != nil && !e.done:
		return nil, answerPending
	case e != nil:
		return e, answerKept
	}
	if k.byKey == nil {
		k.byKey = make(map[string]*kept)
	}
	e = &kept{key: key, sum: sum, at: now}
	k.byKey[key] = e
	k.order = append(k.order, e)
	k.bytes += keptOverhead
	return e, answerNew
}

// finish gives the answer of a request for which begin returned answerNew.
// Without keep the next request with the key is the first again.
func (k *answers) finish(e *kept, a answer, keep bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !keep {
		delete(k.byKey, e.key) // it leaves order in its time
		return
	}
	e.done, e.answer = true, a
	k.bytes += len(a.body)
}

// dropOld makes room for one more. Those under way, which are few, stay.
func (k *answers) dropOld(now time.Time) {
	n := 0
	for end := len(k.order); n < end; n++ {
		e := k.order[n]
		if now.Sub(e.at) < keepFor && len(k.order)-n < maxKept && k.bytes < maxKeptBytes {
			break
		}
		if k.byKey[e.key] == e && !e.done {
			k.order = append(k.order, e)
			continue
		}
		k.bytes -= keptOverhead + len(e.answer.body)
		if k.byKey[e.key] == e {
			delete(k.byKey, e.key)
		}
	}
	clear(k.order[:n])
	k.order = k.order[n:]
}
