// Package move takes the jobs of a tube from one queue to another, of whatever
// engines, or to another tube, and loses none: each is put there before it is deleted here.
//
// Delayed jobs keep their time and buried ones stay buried. When a run is cut
// off, in whatever way, another one goes on; a job that was on its way then is
// in both queues, and is moved a second time.
package move

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"propeller/internal/backoff"
	"propeller/internal/parallel"
	"propeller/internal/text"
	"propeller/queue"
)

const (
	// window is how many jobs are on their way at once. More is not faster, and
	// these are what is moved twice after a run that was killed.
	window = 32
	// putTime bounds one job's arrival, all tries included; then the run ends.
	putTime = 30 * time.Second
	// minPause and maxPause bound the pause after a put that failed because the queue was down.
	minPause, maxPause = 50 * time.Millisecond, 2 * time.Second
	// minQuiet and maxQuiet bound the wait for a tube that serves nothing.
	minQuiet, maxQuiet = 200 * time.Millisecond, 3 * time.Second
	// patience is how long jobs may be there and none of them come: longer than
	// it takes those that are due soon, and a queue that is restarted.
	patience = queue.Soon + 10*time.Second
	// maxHeld bounds the bodies of refused jobs, in bytes, that are held to the
	// end of a pass so that they do not come again. Those beyond it are put off.
	maxHeld = 64 << 20
	// putOff is longer than most runs take; in a longer one the job comes again,
	// and is put off again.
	putOff = 10 * time.Minute
)

// Queue is a queue that jobs are taken from or put into.
type Queue interface {
	queue.Queue
	queue.Admin
}

// Mover moves jobs. Its counts may be read while it does.
type Mover struct {
	From Queue
	To   queue.Queue // may be From, if ToTube is another tube
	// ToTube is the tube to put the jobs into; "" is the one of the same name.
	ToTube string
	// Kicked returns the body to put for a ready job that was kicked, since To does not
	// know that it was. nil: the body stays as it is.
	Kicked func(body []byte) []byte
	// Refused, if set, is called for each job that To does not take. Such jobs
	// stay where they are. If the ready ones exceed 64 MB in all, the rest of
	// them are put off for 10 minutes.
	Refused func(tube, id string, why error)

	Ready, Delayed, Buried atomic.Int64 // jobs moved, by the state they were in

	waits    atomic.Pointer[string]
	patience time.Duration // 0: as the constant; for tests
	maxHeld  int           // the same
}

// Moved is how many jobs have been moved.
func (m *Mover) Moved() int64 { return m.Ready.Load() + m.Delayed.Load() + m.Buried.Load() }

// Waits says what the run waits for, "" while it goes on.
func (m *Mover) Waits() string {
	if why := m.waits.Load(); why != nil {
		return *why
	}
	return ""
}

func (m *Mover) waitFor(why string) { m.waits.Store(&why) }

// LeftError says that a tube still has jobs that the queue does not serve.
type LeftError struct {
	Tube           string
	Jobs, Reserved int // all of them, and those that somebody else holds
	Paused         bool
}

func (e *LeftError) Error() string {
	jobs := text.Plural(e.Jobs, "job")
	switch {
	case e.Paused:
		return fmt.Sprintf("move: tube %q: it has %s and is paused", e.Tube, jobs)
	case e.Reserved >= e.Jobs:
		return fmt.Sprintf("move: tube %q: %s reserved by consumers, or by daemons that died recently", e.Tube, jobs)
	}
	return fmt.Sprintf("move: tube %q: it has %s and serves none", e.Tube, jobs)
}

// Tube moves all jobs of a tube. It returns nil when the tube is empty but for
// jobs that were refused, a *LeftError when it cannot get the rest, and otherwise why
// it could not go on. When ctx ends, jobs that are on their way arrive first.
func (m *Mover) Tube(ctx context.Context, tube string) error {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	r := &run{Mover: m, tube: tube, fail: fail, refused: make(map[string]bool)}
	progress := time.Now()
	quiet := backoff.Backoff{Min: minQuiet, Max: maxQuiet}
	for {
		before, wait := m.Moved(), quiet.Next()
		err := r.pass(ctx, wait)
		if m.Moved() > before {
			quiet.Reset()
			progress = time.Now()
		}
		left, some := errors.AsType[*LeftError](err)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case some:
			m.waitFor(fmt.Sprintf("%s of tube %q, %d of them reserved by others", text.Plural(left.Jobs, "job"), tube, left.Reserved))
		case errors.Is(err, queue.ErrUnavailable):
			m.waitFor("the queue to take from: " + err.Error())
		default:
			return err
		}
		if time.Since(progress) > cmp.Or(m.patience, patience) {
			return err
		}
		_ = backoff.Sleep(ctx, wait) // the next pass sees that ctx has ended
	}
}

// run moves one tube.
type run struct {
	*Mover
	tube string
	fail func(error) // ends the run

	mu      sync.Mutex
	refused map[string]bool // by id
	held    int             // bytes of refused jobs' bodies, until the consumer is closed
}

// pass moves what is there. A *LeftError says that there is more.
func (r *run) pass(ctx context.Context, quiet time.Duration) error {
	for _, state := range []queue.State{queue.Delayed, queue.Buried} {
		err := r.From.List(ctx, r.tube, state, func(jobs []queue.StoredJob) error {
			parallel.Each(window, jobs, func(j queue.StoredJob) { r.stored(state, j) })
			return ctx.Err()
		})
		if err != nil {
			return err
		}
	}
	if err := r.ready(ctx, quiet); err != nil {
		return err
	}
	st, err := r.From.TubeStats(ctx, r.tube)
	if err != nil {
		return err
	}
	left := st.Ready + st.Delayed + st.Buried + st.Reserved - len(r.refused)
	if left <= 0 {
		return nil
	}
	return &LeftError{r.tube, left, st.Reserved, st.Paused > 0}
}

// stored moves a job that no consumer gets.
func (r *run) stored(state queue.State, j queue.StoredJob) {
	count := &r.Delayed
	if state == queue.Buried {
		count = &r.Buried
	}
	if j.Fault != nil {
		r.refuse(j.ID, j.Fault)
	}
	if r.isRefused(j.ID) || !r.put(j.ID, j.Body, queue.PutOptions{Delay: j.Delay, Priority: j.Priority, Age: j.Age, Buried: state == queue.Buried}) {
		return
	}
	count.Add(1)
	if err := j.Delete(); err != nil {
		r.fail(fmt.Errorf("move: job %s is in both queues now: %w", j.ID, err))
	}
}

// ready moves what a consumer gets, until nothing comes for a while.
func (r *run) ready(ctx context.Context, quiet time.Duration) (err error) {
	c, err := r.From.Consume(r.tube)
	if err != nil {
		return err
	}
	defer func() { // what was refused goes back, too
		end, cancel := context.WithTimeout(context.Background(), putTime)
		defer cancel()
		err = errors.Join(err, c.Close(end))
		r.held = 0
	}()
	for {
		jobs, err := receive(ctx, c, window, quiet)
		if err != nil || len(jobs) == 0 {
			return cmp.Or(err, c.Err())
		}
		parallel.Each(window, jobs, r.reserved)
	}
}

// receive is Receive that gives up when nothing comes for a while.
func receive(ctx context.Context, c queue.Consumer, n int, wait time.Duration) ([]queue.Job, error) {
	within, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	jobs, err := c.Receive(within, n)
	if err != nil && within.Err() != nil {
		return nil, ctx.Err()
	}
	return jobs, err
}

// reserved moves a job that a consumer got.
func (r *run) reserved(j queue.Job) {
	id, body := j.ID(), j.Body()
	if !r.isRefused(id) {
		ctx, cancel := context.WithTimeout(context.Background(), putTime)
		defer cancel()
		st, err := j.Stat(ctx)
		switch {
		case errors.Is(err, queue.ErrLost), errors.Is(err, queue.ErrUnavailable):
			return // it comes again
		case err != nil:
			r.fail(err)
			return
		}
		if st.Kicked && r.Kicked != nil {
			body = r.Kicked(body)
		}
		if r.put(id, body, queue.PutOptions{Priority: st.Priority, Age: st.Age}) {
			r.Ready.Add(1)
			r.done(j)
			return
		}
	}
	if r.isRefused(id) {
		r.leave(j)
	}
}

// done removes a job that has arrived.
func (r *run) done(j queue.Job) {
	ctx, cancel := context.WithTimeout(context.Background(), putTime)
	defer cancel()
	if err := j.Done(ctx); err != nil && !errors.Is(err, queue.ErrLost) {
		r.fail(fmt.Errorf("move: job %s is in both queues now: %w", j.ID(), err))
	}
}

// leave sees to it that a refused job does not come again in this pass: it is
// held until the consumer is closed, or put off when too much is held.
func (r *run) leave(j queue.Job) {
	r.mu.Lock()
	hold := r.held+len(j.Body()) <= cmp.Or(r.maxHeld, maxHeld)
	if hold {
		r.held += len(j.Body())
	}
	r.mu.Unlock()
	if hold {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), putTime)
	defer cancel()
	if err := j.Retry(ctx, putOff); err != nil {
		r.fail(err)
	}
}

// put puts a job into the other queue, and reports whether it is there. It waits for
// that queue if it is away. It has a time of its own: being told to stop does not
// break it off.
func (r *run) put(id string, body []byte, o queue.PutOptions) bool {
	ctx, cancel := context.WithTimeout(context.Background(), putTime)
	defer cancel()
	due := time.Now().Add(o.Delay)
	for pause := (backoff.Backoff{Min: minPause, Max: maxPause}); ; {
		if o.Delay > 0 {
			o.Delay = max(time.Until(due), 1)
		}
		_, err := r.To.Put(ctx, cmp.Or(r.ToTube, r.tube), body, o)
		switch {
		case err == nil:
			r.waitFor("")
			return true
		case errors.Is(err, queue.ErrRejected):
			r.refuse(id, err)
			return false
		case !errors.Is(err, queue.ErrUnavailable):
			r.fail(err)
			return false
		}
		r.waitFor("the queue to put into: " + err.Error())
		if pause.Wait(ctx) != nil {
			r.fail(err)
			return false
		}
	}
}

func (r *run) isRefused(id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.refused[id]
}

func (r *run) refuse(id string, why error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.refused[id] {
		return
	}
	r.refused[id] = true
	if r.Refused != nil {
		r.Refused(r.tube, id, why)
	}
}
