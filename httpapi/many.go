package httpapi

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"propeller/supervisor"
	"propeller/worker/job"
)

const (
	// partSize is how many notifications of a request are put together.
	partSize = 64
	// partsAtOnce is how many such parts are worked on at the same time: some
	// are decoded while others wait for the queue.
	partsAtOnce = 4
)

// acceptAll takes n notifications. Each stands for itself: its result is in its
// place in out. charge is for the jobs that one is besides its first.
func (a *API) acceptAll(ctx context.Context, c *client, charge func(jobs int) error, n int, item func(i int) []byte, out []Result) {
	var next atomic.Int64
	var working sync.WaitGroup
	for range min((n+partSize-1)/partSize, partsAtOnce) {
		working.Go(func() {
			for {
				to := int(next.Add(partSize))
				from := to - partSize
				if from >= n {
					return
				}
				p := part{api: a, client: c, charge: charge, first: from, out: out[from:min(to, n)]}
				p.accept(ctx, item)
			}
		})
	}
	working.Wait()
}

// part is some notifications of a request.
type part struct {
	api    *API
	client *client
	charge func(jobs int) error
	first  int // number of the first
	out    []Result

	// Those that are to be put: one job each.
	jobs []supervisor.NewJob
	puts []donePut // what becomes of them
	at   []int     // their places in out
}

// accept decodes the notifications and puts them.
func (p *part) accept(ctx context.Context, item func(i int) []byte) {
	p.jobs, p.puts, p.at = make([]supervisor.NewJob, 0, len(p.out)), make([]donePut, 0, len(p.out)), make([]int, 0, len(p.out))
	now := time.Now()
	for i := range p.out {
		p.guarded(p.out[i:i+1], func() { p.add(ctx, i, item(p.first+i), now) })
	}
	p.guarded(p.out, func() { p.putAll(ctx) })
}

// guarded runs f. If it panics, that is the end only of those of the
// notifications that have no result yet.
func (p *part) guarded(out []Result, f func()) {
	defer func() {
		v := recover()
		if v == nil {
			return
		}
		p.api.panicked("POST /v1/notifications", v)
		for i := range out {
			if r := &out[i]; r.ID == "" && r.Error == nil {
				r.Error = &ResultError{Status: http.StatusInternalServerError, Detail: errPanic.Error(), Uncertain: true}
			}
		}
	}()
	f()
}

// add decodes a notification, to be put with the others of its part. One that is
// split into several jobs, which are large, is put alone.
func (p *part) add(ctx context.Context, i int, body []byte, now time.Time) {
	e, err := job.ParseEnvelope(body, now)
	if err != nil {
		p.out[i].Error = errorOf(err)
		return
	}
	jobs, r := p.api.prepare(p.client, e, p.charge)
	if r.Error == nil && len(jobs) > 1 {
		r = p.api.putJobs(ctx, e, jobs, r)
	} else if r.Error == nil {
		p.jobs = append(p.jobs, supervisor.NewJob{Topic: e.Topic, Body: jobs[0].Body, Delay: e.Delay})
		p.puts = append(p.puts, donePut{topic: e.Topic, body: jobs[0].Body, delay: e.Delay, tokens: jobs[0].Tokens, err: errPanic})
		p.at = append(p.at, i)
	}
	p.out[i] = r
}

// putAll puts what has been decoded.
func (p *part) putAll(ctx context.Context) {
	if len(p.jobs) == 0 {
		return
	}
	p.api.o.Outcomes.begin()
	defer func() { p.api.o.Outcomes.end(p.puts...) }() // also after a panic
	for k, stored := range p.api.tree.PutAll(ctx, p.jobs) {
		p.puts[k].id, p.puts[k].err = stored.ID, stored.Err
		r := &p.out[p.at[k]]
		if r.ID = stored.ID; stored.Err != nil {
			r.ID, r.Error = "", errorOf(stored.Err)
		}
	}
}
