package jetstream

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"propeller/queue/lease"
)

// farFuture is after every call.
var farFuture = time.Unix(1<<40, 0)

// renewLoop keeps reservations alive, repeats acknowledgements that were not heard,
// and ends requests that nobody answers. One goroutine does it for all tubes.
func (q *client) renewLoop() {
	tick := time.NewTicker(min(q.opts.AckWait/8, q.opts.timeout/4, time.Second))
	defer tick.Stop()
	for {
		select {
		case <-q.ctx.Done():
			return
		case now := <-tick.C:
			q.pulse.beat(now, q.opts.AckWait)
			if q.calls.fail(now, errNoAnswer) > 0 {
				q.doubt()
			}
			q.link.explain()
			if cn, settles := q.link.alive(); cn != nil {
				for _, t := range q.allTubes() {
					t.renew(cn, now, settles)
					if settles {
						t.keep(cn, now)
					}
				}
			}
		}
	}
}

// doubt has it examined why there was no answer.
func (q *client) doubt() {
	if q.embedded != nil {
		q.embedded.suspect()
	} else {
		q.link.look()
	}
}

func (q *client) allTubes() []*tube {
	q.mu.Lock()
	defer q.mu.Unlock()
	return slices.Collect(maps.Values(q.tubes))
}

// renew is one round for a tube; if settles is set, also one for its finished jobs.
func (t *tube) renew(cn *conn, now time.Time, settles bool) {
	var due []*job
	t.mu.Lock()
	for j := range t.tombstones.Due(now, 2*t.q.opts.AckWait) {
		t.jobs.End(&j.Lease, lease.Settled)
	}
	if settles {
		for j := range t.late.Due(now, min(t.q.opts.timeout, t.q.opts.AckWait/2)) {
			j.Lease.Touch(now)
			due = append(due, j)
		}
	}
	late := len(due)
	for c := range t.consumers {
		for j := range c.reserved.Due(now, t.q.opts.AckWait/2) {
			if !j.touching {
				j.touching = true
				due = append(due, j)
			}
		}
	}
	t.mu.Unlock()
	for i, j := range due {
		if i < late {
			j.send(cn, wordAck, now, j.heard)
		} else {
			j.send(cn, wordTouch, now, j.renewed)
		}
	}
}

// send sends a word about the job. then is called with the outcome.
func (j *job) send(cn *conn, word []byte, now time.Time, then func(sent time.Time, err error)) {
	q := j.c.t.q
	id, reply := q.calls.start(&call{until: now.Add(q.opts.timeout), done: func(_ *nats.Msg, err error) { then(now, err) }})
	if err := cn.publish(&nats.Msg{Subject: j.address(), Reply: reply, Data: word}); err != nil && q.calls.end(id) != nil {
		then(now, err)
	}
}

// heard: the server knows, or not, that a late job is finished.
func (j *job) heard(_ time.Time, err error) {
	if err == nil {
		j.c.t.q.finished.add(j.d.numbered())
		j.c.t.mu.Lock()
		defer j.c.t.mu.Unlock()
		j.entombLocked(time.Now())
	}
}

// renewed: the server knows, or not, that a job is still held.
func (j *job) renewed(sent time.Time, err error) {
	t := j.c.t
	t.mu.Lock()
	was := j.touching
	j.touching = false
	if err == nil {
		j.signLocked(sent)
	}
	lost := err != nil && was && j.reservedLocked() && time.Now().After(j.until)
	t.mu.Unlock()
	if lost {
		t.q.opts.Log.Warn("reservation lost while its job was held: the queue did not answer in time",
			"tube", t.name, "job", j.ID())
	}
}

// pulse shows that this process has stood still: frozen, or on a machine that was. Jobs have
// lain in its socket meanwhile, and nothing in them says for how long. By now the server may
// have served them to somebody else, and it takes a late acknowledgement in silence.
type pulse struct {
	mu    sync.Mutex
	last  time.Time // the renewal loop's last beat
	until time.Time // what comes until then may have lain here
}

// drainTime is how long it takes at most to read what has lain in the socket.
const drainTime = 5 * time.Second

// beat is called by the renewal loop at least once a second.
func (p *pulse) beat(now time.Time, ackWait time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seeLocked(now, ackWait)
	p.last = now
}

// stoodStill says whether a job that comes now may have lain here until its reservation ended.
func (p *pulse) stoodStill(now time.Time, ackWait time.Duration) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seeLocked(now, ackWait)
	return now.Before(p.until)
}

func (p *pulse) seeLocked(now time.Time, ackWait time.Duration) {
	if !p.last.IsZero() && now.Sub(p.last) > ackWait/2 {
		p.until = now.Add(drainTime)
	}
}
