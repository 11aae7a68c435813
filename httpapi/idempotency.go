package httpapi

import (
	linked "container/list"
	"context"
	"crypto/sha256"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// Bounds of the answers kept.
const (
	keepFor = 24 * time.Hour
	// maxKeptBytes, 32 MiB, bounds them all. When it is reached, the oldest answer of the
	// client with the most leaves, so that no client is pushed below an equal share.
	maxKeptBytes = maxKept * minKeptBytes
	// maxKept is how many small answers that is. Those to one notification each take
	// some 20 MB.
	maxKept      = 50_000
	minKeptBytes = 671
	keptOverhead = 400 // bytes of an entry besides its answer, about
)

// answers remembers how requests with an Idempotency-Key were answered.
type answers struct {
	mu        sync.Mutex
	shelves   map[string]*shelf // by the client's name
	bytes     int               // of those that are not under way, which are bounded elsewhere
	forgotten *atomic.Int64     // answers that left before their time; nil: not counted
}

// shelf is what one client has of the answers.
type shelf struct {
	byKey map[string]*kept
	order linked.List // of *kept, oldest first, but for some under way
	bytes int         // of those that are not under way
}

// kept is one answer.
type kept struct {
	key    string
	of     *shelf
	client string
	at     time.Time
	place  *linked.Element
	sum    [sha256.Size]byte // of the request's body
	done   bool
	answer answer
}

// size is what the answer counts in the bounds.
func (e *kept) size() int { return max(minKeptBytes, keptOverhead+len(e.answer.body)) }

// found is what there is for a key.
type found int

const (
	answerNew     found = iota // nothing: the caller is the first, and must call finish
	answerPending              // the first is at work
	answerOther                // the answer to another body
	answerKept
)

// begin looks up a key of a client, or takes it.
func (k *answers) begin(client, key string, sum [sha256.Size]byte, now time.Time) (*kept, found) {
	k.mu.Lock()
	defer k.mu.Unlock()
	of := k.shelves[client]
	if of != nil {
		k.dropOld(of, now)
	}
	if of = k.shelves[client]; of == nil {
		of = &shelf{byKey: make(map[string]*kept)}
	}
	e := of.byKey[key]
	switch {
	case e != nil && e.sum != sum:
		return nil, answerOther
	case e != nil && !e.done:
		return nil, answerPending
	case e != nil:
		return e, answerKept
	}
	if k.shelves == nil {
		k.shelves = make(map[string]*shelf)
	}
	k.shelves[client] = of
	e = &kept{key: key, of: of, client: client, sum: sum, at: now}
	of.byKey[key] = e
	e.place = of.order.PushBack(e)
	return e, answerNew
}

// finish gives the answer of a request for which begin returned answerNew.
// Without keep nothing of it stays, and the next request with the key is the first again.
func (k *answers) finish(e *kept, a answer, keep bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !keep {
		k.drop(e)
		return
	}
	e.done, e.answer = true, a
	k.grow(e, e.size())
	k.makeRoom(time.Now())
}

func (k *answers) grow(e *kept, by int) {
	e.of.bytes += by
	k.bytes += by
}

func (k *answers) drop(e *kept) {
	if e.done {
		k.grow(e, -e.size())
	}
	e.of.order.Remove(e.place)
	delete(e.of.byKey, e.key)
	if len(e.of.byKey) == 0 {
		delete(k.shelves, e.client)
	}
}

// oldest is the shelf's oldest answer; nil if all are under way, which are few. Those it
// meets move back.
func (s *shelf) oldest() *kept {
	for range s.order.Len() {
		e := s.order.Front().Value.(*kept)
		if e.done {
			return e
		}
		s.order.MoveToBack(e.place)
	}
	return nil
}

// dropOld drops a shelf's answers whose time is over.
func (k *answers) dropOld(s *shelf, now time.Time) {
	for e := s.oldest(); e != nil && now.Sub(e.at) >= keepFor; e = s.oldest() {
		k.drop(e)
	}
}

// makeRoom keeps the bounds.
func (k *answers) makeRoom(now time.Time) {
	if k.bytes <= maxKeptBytes {
		return
	}
	for _, s := range k.shelves {
		k.dropOld(s, now)
	}
	for k.bytes > maxKeptBytes {
		e := k.largest().oldest()
		if e == nil {
			return
		}
		k.drop(e)
		if k.forgotten != nil {
			k.forgotten.Add(1)
		}
	}
}

func (k *answers) largest() (most *shelf) {
	for _, s := range k.shelves {
		if most == nil || s.bytes > most.bytes {
			most = s
		}
	}
	return most
}

// idempotencyKey is the header of a request that is carried out once.
const idempotencyKey = "Idempotency-Key"

// maxKeyLen bounds it in bytes.
const maxKeyLen = 255

// onlyOnce calls do to carry out a request whose body is body. If it has an
// Idempotency-Key, only the first with that key is carried out, and to its end if
// the client goes; repeats get its answer. do says whether that is to be kept.
func (a *API) onlyOnce(ctx context.Context, r *http.Request, c *client, body []byte, do func(context.Context) (out answer, keep bool)) (answer, *resultError) {
	key := r.Header.Get(idempotencyKey)
	refuse := func(status int, why string) (answer, *resultError) {
		return answer{}, &resultError{Status: status, Detail: idempotencyKey + ": " + why}
	}
	switch {
	case key == "":
		out, _ := do(ctx)
		return out, nil
	case len(key) > maxKeyLen:
		return refuse(http.StatusBadRequest, fmt.Sprintf("more than %d bytes", maxKeyLen))
	}
	ctx, cancel := withoutClient(ctx, r)
	defer cancel()
	e, found := a.answers.begin(c.name, key, sumOf(r, body), time.Now())
	switch found {
	case answerOther:
		return refuse(http.StatusUnprocessableEntity, "has been used for another request")
	case answerPending:
		return refuse(http.StatusConflict, "the first request with it is still in progress")
	case answerKept:
		out := e.answer
		out.replayed = true
		return out, nil
	}
	if !a.once.try(c.name, onceCost) {
		a.answers.finish(e, answer{}, false)
		return refuse(http.StatusServiceUnavailable, "too many requests at once, in all or with this key")
	}
	defer a.once.free(c.name, onceCost)
	// After a panic it is unknown what has been put.
	out, keep := Problem{Status: http.StatusInternalServerError, Detail: errPanic.Error(), Uncertain: true}.answer(), true
	defer func() { a.answers.finish(e, out, keep) }()
	out, keep = do(ctx)
	return out, nil
}

// sumOf tells a request from others: by what it asks for, and its body.
func sumOf(r *http.Request, body []byte) (sum [sha256.Size]byte) {
	h := sha256.New()
	fmt.Fprintf(h, "%s?%s\n", r.URL.Path, r.URL.RawQuery)
	h.Write(body)
	h.Sum(sum[:0])
	return sum
}
