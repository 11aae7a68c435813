// Package move takes the jobs of a tube from one queue to another, of whatever
// engines, and loses none: each is put there before it is deleted here.
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

	"propeller/queue"
)

const (
	// window is how many jobs are on their way at once. More is not faster, and
	// these are what is moved twice after a run that was killed.
	window = 32
	// putTime bounds one job's arrival, all tries included; then the run ends.
	putTime = 30 * time.Second
	// minPause is after a put that failed because the queue was away, doubled
	// up to maxPause.
	minPause, maxPause = 50 * time.Millisecond, 2 * time.Second
	// A tube that serves nothing is waited for so long at first, and at last;
	// between, twice as long each time.
	minQuiet, maxQuiet = 200 * time.Millisecond, 3 * time.Second
	// patience is how long jobs may be there and none of them come: longer than
	// it takes those that are due soon, and a queue that is restarted.
	patience = queue.Soon + 10*time.Second
	// maxHeld bounds the bodies of refused jobs, in bytes, that are held to the
	// end of a run so that they do not come again. Those beyond it are put off.
	maxHeld = 64 << 20
	// putOff is longer than most runs take; in a longer one the job comes again,
	// and is put off again.
	putOff = 10 * time.Minute
)

// From is the queue that jobs are taken from.
type From interface {
	queue.Queue
	queue.Mover
}

// Counts are numbers of jobs. They may be read while a run is under way.
type Counts struct {
	Ready, Delayed, Buried atomic.Int64 // moved, by the state they were in
	// Refused are left where they are: the other queue does not take them. If
	// those that were ready are of more than 64 MB, the rest of them is served
	// only 10 minutes later.
	Refused atomic.Int64

	waits atomic.Pointer[string]
}

// Moved is how many jobs have been moved.
func (c *Counts) Moved() int64 { return c.Ready.Load() + c.Delayed.Load() + c.Buried.Load() }

// Waits says what the run waits for, "" while it goes on.
func (c *Counts) Waits() string {
	if text := c.waits.Load(); text != nil {
		return *text
	}
	return ""
}

// Mover moves jobs.
type Mover struct {
	From From
	To   queue.Mover
	// Kicked returns the body to put for a ready job that was kicked, since To does not
	// know that it was. nil: the body stays as it is.
	Kicked func(body []byte) []byte
	// Refused is called for each job that To does not take; nil: nobody hears.
	Refused func(tube, id string, why error)
	Counts  *Counts

	patience time.Duration // 0: as the constant; for tests
	maxHeld  int           // the same
}

// HeldError says that a tube has jobs that somebody else holds, and none
// besides.
type HeldError struct {
	Tube string
	Jobs int
}

func (e *HeldError) Error() string {
	return fmt.Sprintf("move: tube %q: %d jobs are held by consumers, or by daemons that died lately", e.Tube, e.Jobs)
}

// Tube moves all jobs of a tube. It returns nil when the tube is empty but for
// jobs that were refused, a *HeldError when others hold the rest, and else why
// it could not go on. When ctx ends, jobs that are on their way arrive first.
func (m *Mover) Tube(ctx context.Context, tube string) error {
	r := &run{
		Mover: m, tube: tube, patience: cmp.Or(m.patience, patience), maxHeld: cmp.Or(m.maxHeld, maxHeld),
		refused: make(map[string]bool), progress: time.Now(),
	}
	for {
		before := m.Counts.Moved()
		if err := m.From.Aside(ctx, tube, r.aside); err != nil {
			return err
		}
		if err := r.ready(ctx); err != nil {
			return err
		}
		st, err := m.From.TubeStats(ctx, tube)
		if err != nil {
			return err
		}
		if m.Counts.Moved() > before {
			r.progress = time.Now()
		}
		left := st.Ready + st.Delayed + st.Buried + st.Reserved - r.refusals()
		switch {
		case left <= 0:
			return nil
		case time.Since(r.progress) < r.patience:
			r.waits(fmt.Sprintf("%d jobs of tube %q, %d of them reserved by others", left, r.tube, st.Reserved))
		case st.Reserved >= left:
			return &HeldError{tube, left}
		default:
			return fmt.Errorf("move: tube %q: it has %d jobs and serves none: is it paused?", tube, left)
		}
		select {
		case <-time.After(minQuiet):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// run moves one tube.
type run struct {
	*Mover
	tube     string
	patience time.Duration
	maxHeld  int
	progress time.Time // something was moved, or the beginning

	mu      sync.Mutex
	refused map[string]bool // by id
	held    int             // bytes of refused jobs' bodies, until the consumer is closed
}

// aside moves a job that no consumer gets.
func (r *run) aside(j queue.StoredJob) error {
	if r.isRefused(j.ID) {
		return queue.ErrRejected
	}
	count := &r.Counts.Delayed
	if j.Buried {
		count = &r.Counts.Buried
	}
	if err := r.put(j); err != nil {
		return err
	}
	count.Add(1)
	return nil
}

// ready moves what a consumer gets, until nothing is left to get.
func (r *run) ready(ctx context.Context) (err error) {
	c, err := r.From.Consume(r.tube)
	if err != nil {
		return err
	}
	b := batch{places: make(chan struct{}, window), failed: make(chan error, 1)}
	defer func() {
		err = errors.Join(err, b.wait())
		// What was refused goes back, too.
		end, cancel := context.WithTimeout(context.Background(), putTime)
		defer cancel()
		err = errors.Join(err, c.Close(end))
		r.held = 0
	}()
	for wait := minQuiet; ; {
		n, err := b.room()
		if err != nil {
			return err
		}
		jobs, err := receive(ctx, c, n, wait)
		if err != nil {
			return err
		}
		if len(jobs) > 0 {
			wait, r.progress = minQuiet, time.Now()
			r.waits("")
			for _, j := range jobs {
				b.start(func() error { return r.one(j) })
			}
			continue
		}
		if err := b.wait(); err != nil {
			return err
		}
		switch more, err := r.moreReady(ctx, c); {
		case err != nil:
			return err
		case !more || time.Since(r.progress) > r.patience:
			return nil
		}
		wait = min(2*wait, maxQuiet)
	}
}

// moreReady says whether a consumer that gets nothing should wait on.
func (r *run) moreReady(ctx context.Context, c queue.Consumer) (bool, error) {
	if err := c.Err(); err != nil {
		if time.Since(r.progress) > r.patience {
			return false, err
		}
		r.waits("the queue to take from: " + err.Error())
		return true, nil // the queue may come back
	}
	st, err := r.From.TubeStats(ctx, r.tube)
	if st.Ready > 0 {
		r.waits(fmt.Sprintf("%d ready jobs of tube %q that the queue does not serve", st.Ready, r.tube))
	}
	return st.Ready > 0, err
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

// batch are the jobs on their way.
type batch struct {
	places  chan struct{}
	running sync.WaitGroup
	failed  chan error // room for the first error
}

// room waits for a free place and returns how many there are.
func (b *batch) room() (int, error) {
	select {
	case b.places <- struct{}{}:
		n := 1 + cap(b.places) - len(b.places)
		<-b.places
		return n, nil
	case err := <-b.failed:
		return 0, err
	}
}

// start runs f; there must be room.
func (b *batch) start(f func() error) {
	b.places <- struct{}{}
	b.running.Go(func() {
		defer func() { <-b.places }()
		if err := f(); err != nil {
			select {
			case b.failed <- err:
			default:
			}
		}
	})
}

// wait waits until all have arrived, and returns why one has not.
func (b *batch) wait() error {
	b.running.Wait()
	select {
	case err := <-b.failed:
		return err
	default:
		return nil
	}
}

// one moves a job that is reserved.
func (r *run) one(j queue.Job) error {
	ctx, cancel := context.WithTimeout(context.Background(), putTime)
	defer cancel()
	if r.isRefused(j.ID()) {
		return r.leave(ctx, j)
	}
	st, err := j.Stat(ctx)
	if err != nil {
		if errors.Is(err, queue.ErrLost) {
			return nil // it comes again
		}
		return err
	}
	body := j.Body()
	if st.Kicked && r.Kicked != nil {
		body = r.Kicked(body)
	}
	err = r.put(queue.StoredJob{ID: j.ID(), Body: body, Priority: st.Priority, Age: st.Age})
	switch {
	case errors.Is(err, queue.ErrRejected):
		return r.leave(ctx, j)
	case err != nil:
		return err
	}
	r.Counts.Ready.Add(1)
	if err := j.Done(ctx); err != nil && !errors.Is(err, queue.ErrLost) {
		return fmt.Errorf("move: job %s is in both queues now: %w", j.ID(), err)
	}
	return nil
}

// leave sees to it that a refused job does not come again in this run: it is
// held until the consumer is closed, or put off when too much is held.
func (r *run) leave(ctx context.Context, j queue.Job) error {
	r.mu.Lock()
	hold := r.held+len(j.Body()) <= r.maxHeld
	if hold {
		r.held += len(j.Body())
	}
	r.mu.Unlock()
	if hold {
		return nil
	}
	return j.Retry(ctx, putOff)
}

// put puts a job in the other queue, waiting for that one if it is away. It
// has a time of its own: being told to stop does not break it off.
func (r *run) put(j queue.StoredJob) error {
	ctx, cancel := context.WithTimeout(context.Background(), putTime)
	defer cancel()
	due := time.Now().Add(j.Delay)
	for pause := minPause; ; pause = min(2*pause, maxPause) {
		if j.Delay > 0 {
			j.Delay = max(time.Until(due), 1)
		}
		_, err := r.To.Restore(ctx, r.tube, j)
		switch {
		case err == nil:
			if pause > minPause {
				r.waits("")
			}
			return nil
		case errors.Is(err, queue.ErrRejected):
			r.refuse(j.ID, err)
			return err
		case !errors.Is(err, queue.ErrUnavailable):
			return err
		}
		r.waits("the queue to put into: " + err.Error())
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return err
		}
	}
}

// waits notes what the run waits for.
func (r *run) waits(text string) { r.Counts.waits.Store(&text) }

func (r *run) refusals() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.refused)
}

func (r *run) isRefused(id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.refused[id]
}

func (r *run) refuse(id string, why error) {
	r.mu.Lock()
	first := !r.refused[id]
	r.refused[id] = true
	r.mu.Unlock()
	if !first {
		return
	}
	r.Counts.Refused.Add(1)
	if r.Refused != nil {
		r.Refused(r.tube, id, why)
	}
}
