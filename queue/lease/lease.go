// Package lease is what the queue adapters know of the jobs that this process holds: from the
// reserve that brought a job until it is settled, and for a while after that, because an engine
// may serve a finished job again. It never talks to an engine. The adapters do, and tell it
// what has happened; Wire is what it needs of them.
//
// A Table has no lock of its own: its caller's lock guards it, with the Leases, Lists and
// Owners that belong to it. These are the states of a job (columns), and what each event
// makes of it (rows); "." changes nothing:
//
//	             Waiting   Reserved  Settling  Late      Settled   Lost      Tombstone
//	Bind         bound     bound     bound     bound     .         .         touched
//	HandOut      Reserved  no        no        no        no        no        no
//	Unbind       Lost      unbound   unbound   unbound   .         .         .
//	Settle       twice     Settling  twice     twice     twice     lost      twice
//	Refused      .         .         Reserved  .         .         .         .
//	Postpone     .         .         Late      .         .         .         .
//	Revoke       Lost*     Lost*     no        no        no        no        no
//	Entomb       Settled+  Settled+  Settled+  Settled+  .         .         .
//	End(Settled) Settled   Settled   Settled   Settled   .         Settled   Settled
//	End(Lost)    Lost      Lost      Lost      Lost      .         .         Lost
//	Unlist       unlisted  unlisted  unlisted  unlisted  .         .         unlisted
//	Relist       listed    listed    listed    listed    .         .         .
//
// Add makes a new job Waiting, listed and on a list. The list that a job is on stands for the holder
// of its reservation: a beanstalkd connection, or a JetStream consumer. "Unbound" is a job
// whose reservation ended with its connection: it stays its receiver's, and Bind makes it
// reserved again when the engine serves it to this process once more. A job that nobody has
// received is forgotten instead: it comes again as a new one. "No" is false, "twice" is
// ErrSettled and "lost" is queue.ErrLost.
//
// A listed job is found by its number, so that it is not delivered a second time. It is
// unlisted before any command that makes it available to others: their reserve may be answered
// first. It is listed again if the command was not carried out, unless the number is
// another job's by then.
//
// * The job is unlisted, but stays on its list until the engine has answered that it is given
// back: until then its connection is not idle.
//
// + A Tombstone takes the place of the finished job. It keeps the number, so that the adapter
// can delete a job that is served again instead of delivering it.
package lease

import (
	"context"
	"errors"
	"iter"
	"sync"
	"time"

	"propeller/queue"
)

// State is the state of a job that this process has, or has had.
type State uint8

// The states of a job.
const (
	Waiting   State = iota // reserved, for Receive to hand out
	Reserved               // its receiver has it
	Settling               // a settle call is under way
	Late                   // the settle call has returned, but the engine has yet to be told
	Settled                // over, by its receiver's doing
	Lost                   // over, without its receiver's doing
	Tombstone              // stands for a finished job that may be served again
)

// ErrSettled is the error of a second settle call.
var ErrSettled = errors.New("already settled")

// Lease is this process's hold on a job. Adapters embed it in their job.
type Lease[J any] struct {
	Number  uint64    // the engine's number of the job
	Job     J         // the job that embeds it
	Owner   *Owner    // who received it
	Touched time.Time // when it was reserved or touched last

	state      State
	unbound    bool
	list       *List[J]
	prev, next *Lease[J]
}

// State returns the state of the job.
func (l *Lease[J]) State() State { return l.state }

// Over reports whether the job is no longer ours.
func (l *Lease[J]) Over() bool { return l.state >= Settled }

// Unsettled reports whether the job is held and no settle call is under way.
func (l *Lease[J]) Unsettled() bool { return l.state <= Reserved }

// On returns the list that the job is on, or nil.
func (l *Lease[J]) On() *List[J] { return l.list }

// Touch notes that the reservation was renewed, and moves the job to the end of its list.
func (l *Lease[J]) Touch(at time.Time) {
	l.Touched = at
	if l.list != nil {
		l.put(l.list)
	}
}

// put moves the job to the end of a list, or with nil off its list.
func (l *Lease[J]) put(on *List[J]) {
	if from := l.list; from != nil {
		if l.prev != nil {
			l.prev.next = l.next
		} else {
			from.first = l.next
		}
		if l.next != nil {
			l.next.prev = l.prev
		} else {
			from.last = l.prev
		}
		from.n--
	}
	l.list, l.prev, l.next = on, nil, nil
	if on == nil {
		return
	}
	if l.prev = on.last; l.prev != nil {
		l.prev.next = l
	} else {
		on.first = l
	}
	on.last = l
	on.n++
}

// setUnbound counts the job among its owner's unbound ones, or not.
func (l *Lease[J]) setUnbound(unbound bool) {
	if l.unbound == unbound {
		return
	}
	l.unbound = unbound
	if unbound {
		l.Owner.unbound++
	} else {
		l.Owner.unbound--
	}
}

// List is a list of jobs, the one touched least recently first. It links them through
// themselves: at 100,000 jobs a second a map would cost noticeable time.
type List[J any] struct {
	first, last *Lease[J]
	n           int
}

// Len returns the number of jobs.
func (on *List[J]) Len() int { return on.n }

// All yields the jobs in their order. A job may be taken off the list while it is yielded.
func (on *List[J]) All() iter.Seq[J] {
	return func(yield func(J) bool) {
		for l := on.first; l != nil; {
			next := l.next
			if !yield(l.Job) {
				return
			}
			l = next
		}
	}
}

// Due yields those jobs that were not touched for the given time.
func (on *List[J]) Due(now time.Time, age time.Duration) iter.Seq[J] {
	return func(yield func(J) bool) {
		for l := on.first; l != nil && now.Sub(l.Touched) >= age; {
			next := l.next
			if !yield(l.Job) {
				return
			}
			l = next
		}
	}
}

// Table finds the jobs that this process holds by their numbers. The zero Table is empty.
type Table[J any] struct {
	jobs map[uint64]*Lease[J]
}

// Find returns the job or the tombstone that has a number, or nil.
func (t *Table[J]) Find(id uint64) *Lease[J] { return t.jobs[id] }

// Len returns the number of jobs and tombstones that are listed.
func (t *Table[J]) Len() int { return len(t.jobs) }

// All yields the listed jobs and tombstones, in no order.
func (t *Table[J]) All() iter.Seq[*Lease[J]] {
	return func(yield func(*Lease[J]) bool) {
		for _, l := range t.jobs {
			if !yield(l) {
				return
			}
		}
	}
}

// Add lists a job that was just reserved.
func (t *Table[J]) Add(l *Lease[J], on *List[J], now time.Time) {
	l.state, l.Touched = Waiting, now
	l.put(on)
	t.list(l)
}

func (t *Table[J]) list(l *Lease[J]) {
	if t.jobs == nil {
		t.jobs = make(map[uint64]*Lease[J])
	}
	t.jobs[l.Number] = l
}

// Bind notes that on holds the reservation from now on.
func (t *Table[J]) Bind(l *Lease[J], on *List[J], now time.Time) {
	switch {
	case l.state == Tombstone:
		l.Touch(now)
	case !l.Over():
		l.setUnbound(false)
		l.Touched = now
		l.put(on)
	}
}

// HandOut gives a waiting job to its receiver. It reports whether the job was waiting.
func (t *Table[J]) HandOut(l *Lease[J]) bool {
	if l.state != Waiting {
		return false
	}
	l.state = Reserved
	return true
}

// Unbind notes that nobody has the reservation any more.
func (t *Table[J]) Unbind(l *Lease[J]) {
	switch {
	case l.state == Waiting:
		t.End(l, Lost)
	case l.state == Tombstone:
	case l.Over():
		l.put(nil)
	default:
		l.put(nil)
		l.setUnbound(true)
	}
}

// Settle begins a settle call.
func (t *Table[J]) Settle(l *Lease[J]) error {
	switch l.state {
	case Reserved:
		l.state = Settling
		return nil
	case Lost:
		return queue.ErrLost
	}
	return ErrSettled
}

// Refused notes that the engine has not settled the job: it is its receiver's, as before.
func (t *Table[J]) Refused(l *Lease[J]) {
	if l.state == Settling {
		l.state = Reserved
		t.Relist(l)
	}
}

// Postpone notes that the settle call returns before the engine could be told. The job
// moves to a list of such jobs.
func (t *Table[J]) Postpone(l *Lease[J], on *List[J]) {
	if l.state == Settling {
		l.state = Late
		l.setUnbound(false)
		l.put(on)
	}
}

// Revoke takes an unsettled job from its receiver, to be given back. It reports whether it was
// unsettled. End follows when the engine has answered.
func (t *Table[J]) Revoke(l *Lease[J]) bool {
	if !l.Unsettled() {
		return false
	}
	t.Unlist(l)
	l.state = Lost
	return true
}

// Entomb ends a job that was finished and may be served again. If it is listed, tomb takes its
// place at the end of a list of tombstones; beyond the limit the oldest are forgotten.
func (t *Table[J]) Entomb(l, tomb *Lease[J], on *List[J], most int, now time.Time) {
	if l.Over() {
		return
	}
	listed := t.jobs[l.Number] == l
	t.End(l, Settled)
	if !listed {
		return
	}
	tomb.Number, tomb.state, tomb.Touched = l.Number, Tombstone, now
	t.list(tomb)
	tomb.put(on)
	for on.n > most {
		t.End(on.first, Settled)
	}
}

// End removes every trace of a job or a tombstone, which is Settled or Lost from now on.
func (t *Table[J]) End(l *Lease[J], as State) {
	if t.jobs[l.Number] == l {
		delete(t.jobs, l.Number)
	}
	l.put(nil)
	l.setUnbound(false)
	if l.state != Settled {
		l.state = as
	}
}

// Unlist makes the next reserve of the job's number a new delivery.
func (t *Table[J]) Unlist(l *Lease[J]) {
	if t.jobs[l.Number] == l {
		delete(t.jobs, l.Number)
	}
}

// Relist undoes Unlist, unless the job is over, or another has its number.
func (t *Table[J]) Relist(l *Lease[J]) {
	if !l.Over() && t.jobs[l.Number] == nil {
		t.list(l)
	}
}

// Owner is a receiver of jobs. It counts what its Close and its engine need to know.
type Owner struct {
	unbound int
	calls   int
	idle    chan struct{} // closed when calls comes to 0; nil unless somebody waits
}

// Unbound returns how many of the owner's jobs have no reservation at present.
func (o *Owner) Unbound() int { return o.unbound }

// Calls returns the number of settle calls under way.
func (o *Owner) Calls() int { return o.calls }

// Enter counts a settle call that begins.
func (o *Owner) Enter() { o.calls++ }

// Leave counts a settle call that ends.
func (o *Owner) Leave() {
	if o.calls--; o.calls == 0 && o.idle != nil {
		close(o.idle)
		o.idle = nil
	}
}

// Await waits until no settle call is under way. mu is the caller's lock, which is not held.
func (o *Owner) Await(ctx context.Context, mu sync.Locker) error {
	mu.Lock()
	if o.calls == 0 {
		mu.Unlock()
		return nil
	}
	if o.idle == nil {
		o.idle = make(chan struct{})
	}
	idle := o.idle
	mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
