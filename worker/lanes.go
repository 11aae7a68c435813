package worker

import (
	"slices"
	"time"
)

// Lanes is what apps share that have the same topic, server and credential: what APNs has shown
// about the credential and about device tokens. Such apps are lanes, each with a tube, workers
// and a pace of its own. An App that follows another one by a reload shares it too.
type Lanes struct {
	breaker breaker
	guard   *guard
	tokens  *tokenCache
	members mailboxes // of the workers of all lanes
}

// NewLanes returns the Lanes of a topic, server and credential of which nothing is known yet.
func NewLanes() *Lanes {
	l := &Lanes{tokens: newTokenCache(tokenLimit)}
	l.guard = newGuard(&l.members)
	l.breaker.mailboxes, l.breaker.guard = &l.members, l.guard
	return l
}

// Breaker says whether APNs refuses the credential or the device tokens, why, and since when.
func (l *Lanes) Breaker() BreakerState { return l.breaker.State() }

// join takes in a worker's run, until leave.
func (l *Lanes) join(r *run) {
	l.members.join(&r.box)
	l.breaker.sit(&r.seat, r.w.index)
}

func (l *Lanes) leave(r *run) {
	l.breaker.rise(&r.seat)
	l.members.leave(&r.box)
}

// seat is a worker's place in the order in which the workers of all lanes may probe. All of it is
// under breaker.mu.
type seat struct {
	index int // of the worker in its app
	place int // 0 may probe first
}

// sit gives a worker a place: behind those with the same index, so that the first worker of each
// lane comes early.
func (b *breaker) sit(s *seat, index int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s.index = index
	i := len(b.seats)
	for i > 0 && b.seats[i-1].index > index {
		i--
	}
	b.seats = slices.Insert(b.seats, i, s)
	b.number()
}

// rise takes a worker's place away, and those behind it move up. If it was to send a probe, the
// others need not wait for it.
func (b *breaker) rise(s *seat) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.seats = slices.DeleteFunc(b.seats, func(o *seat) bool { return o == s })
	if b.dialer == s {
		b.dialer, b.dialUntil = nil, time.Time{}
	}
	b.number()
}

// number numbers the places. b.mu is held.
func (b *breaker) number() {
	for i, s := range b.seats {
		s.place = i
	}
}
