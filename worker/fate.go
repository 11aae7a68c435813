package worker

import (
	"time"

	"propeller/apnsconn"
)

// Observer is told what becomes of jobs, for people who ask. It must not wait,
// and may be called from any goroutine.
type Observer interface {
	// Observe tells of a job, by the id that its producer was given: the rests of
	// one with several tokens are told of under that one's.
	Observe(job string, f Fate)
}

// Fate is what has become of a job, or of some of its tokens, since it was last
// told.
type Fate struct {
	Tried bool // it is being sent, anew

	// How many of its tokens have ended for good: taken by APNs, refused as dead,
	// set aside with the job, too late.
	Delivered, Dead, Buried, Expired int
	Back                             int           // how many come again
	Pause                            time.Duration // of those, at least

	Status int    // of APNs' last answer; 0 when there was none
	Reason string // of what was not delivered: APNs', or ours in words
	APNsID string // of the last push
}

// observe tells the app's observer.
func (t *task) observe(f Fate) {
	o := t.r.w.cfg.Observer
	if o == nil {
		return
	}
	id := t.job.ID()
	if t.decoded.origin != nil {
		id = t.decoded.origin.job
	}
	o.Observe(id, f)
}

// observePushed tells how the pushes of a job have ended, but for those that are
// to be buried, which is told when that is done.
func (t *task) observePushed(s *tally) {
	if t.r.w.cfg.Observer == nil {
		return
	}
	f := Fate{Delivered: s.delivered, Dead: len(s.dead), Expired: len(s.late), Back: s.back(), Pause: s.pause}
	for _, ended := range [...][]*push{s.again, s.later, s.dead} { // the last that there are count
		if len(ended) > 0 {
			f.take(&ended[0].outcome)
		}
	}
	t.observe(f)
}

// take notes the answer that stands for the others.
func (f *Fate) take(o *apnsconn.Outcome) {
	f.Status, f.APNsID, f.Reason = o.Status, o.APNsID, o.Reason
	if f.Reason == "" && o.Class != apnsconn.Delivered {
		f.Reason = why(*o)
	}
}

// addressed is how many tokens the job has; 1 for a channel, and for a job that
// cannot be read.
func (t *task) addressed() int { return max(1, len(t.decoded.Tokens)) }
