package worker

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// doubtTime is how long a job with several tokens, of which all others have
// ended, waits for the guard's word on the last. In an app at work an answer
// that ends the doubt comes at once. Without one the job would stay reserved
// with hundreds of pushes delivered, which would all be repeated if the
// reservation were lost.
const doubtTime = 5 * time.Second

// doubts are the pushes of a fan-out whose answers the guard holds.
type doubts struct {
	n    atomic.Int32 // how many
	mu   sync.Mutex
	held []*push
	over *time.Timer // gives them back; set once
}

// doubt notes that the guard holds the answer of p.
func (f *fanout) doubt(p *push) {
	d := &f.doubts
	d.mu.Lock()
	d.held = append(d.held, p)
	d.mu.Unlock()
	if d.n.Add(1) == f.open.Load() {
		f.onlyDoubts()
	}
}

// doubtOver notes that the guard has decided on p. It reports false if p has
// gone back before.
func (f *fanout) doubtOver(p *push) bool {
	d := &f.doubts
	d.mu.Lock()
	defer d.mu.Unlock()
	i := slices.Index(d.held, p)
	if i < 0 {
		return false
	}
	d.held = slices.Delete(d.held, i, i+1)
	d.n.Add(-1)
	return true
}

// onlyDoubts is called when no more than doubts keep the job from being settled.
// Unless there is nothing else in it they are given back after doubtTime: then
// they go on in a job of their own, which comes when the guard has decided. If
// the token is dead that is remembered, and it is reported without another push.
func (f *fanout) onlyDoubts() {
	d := &f.doubts
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.over == nil && f.next > len(d.held) {
		d.over = time.AfterFunc(doubtTime, f.endDoubts)
	}
}

func (f *fanout) endDoubts() {
	d := &f.doubts
	d.mu.Lock()
	held := d.held
	d.held = nil
	d.mu.Unlock()
	for _, p := range held {
		f.t.r.guarded.Add(-1)
		p.ruled(isDoubted)
	}
}

// stopDoubts is called when the job is settled.
func (f *fanout) stopDoubts() {
	d := &f.doubts
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.over != nil {
		d.over.Stop()
	}
}
