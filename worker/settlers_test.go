package worker

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"propeller/queue"
)

// stuckJob is a job whose queue server is away: Done waits for it.
type stuckJob struct {
	*fakeJob
	back chan struct{}
}

func (j stuckJob) Done(ctx context.Context) error {
	select {
	case <-j.back:
		return j.fakeJob.Done(ctx)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// halfAway makes the first n jobs received ones of a server that goes away.
type halfAway struct {
	consumerOf
	left *int
	back chan struct{}
}

func (h halfAway) Receive(ctx context.Context, n int) ([]queue.Job, error) {
	jobs, err := h.consumerOf.Receive(ctx, n)
	for i := range jobs {
		if *h.left > 0 {
			*h.left--
			jobs[i] = stuckJob{jobs[i].(*fakeJob), h.back}
		}
	}
	return jobs, err
}

type halfAwayQueue struct {
	played
	left *int
	back chan struct{}
}

func (q halfAwayQueue) Consume(string) (queue.Consumer, error) {
	return halfAway{consumerOf(q.played), q.left, q.back}, nil
}

// Of two queue servers one goes away with jobs in flight: the other's jobs are
// not held up by those that wait for it, and these are settled in the end.
func TestServerAwayHoldsNothingUp(t *testing.T) {
	for _, comesBack := range []bool{true, false} {
		bubble(t, func(t *testing.T) {
			q := newFakeQueue()
			for range 1000 {
				q.add(jobText(""))
			}
			b := newBench(t, q)
			away, back := 100, make(chan struct{})
			b.cfg.Queue = halfAwayQueue{played{q}, &away, back}
			b.start()
			time.Sleep(30 * time.Second)
			if done, _, _, _ := q.counts(); done != 900 {
				t.Errorf("%d of the other server's 900 jobs done", done)
			}
			synctest.Wait()
			if s := b.Status(); s.Reserved != 100 || s.Lingering != 100 || s.InFlight != 0 {
				t.Errorf("%+v", s)
			}
			want, doubles := 1000, int64(0)
			if comesBack {
				close(back)
				synctest.Wait()
			} else {
				want, doubles = 900, 100
			}
			begun := time.Now()
			b.halt(t)
			if d := time.Since(begun); d > 13*time.Second {
				t.Errorf("stop took %v with a drain of 10s", d)
			}
			if done, _, _, _ := q.counts(); done != want {
				t.Errorf("%d done at the end, want %d", done, want)
			}
			if d := b.app.Counters.PossibleDuplicates.Load(); d != doubles {
				t.Errorf("%d possible duplicates, want %d", d, doubles)
			}
		})
	}
}

// A job that may have been finished before counts as possible duplicates: with what was
// delivered, and with what goes on in other jobs.
func TestRepeatsAreCounted(t *testing.T) {
	a, c := "aaaaaaaa", "cccccccc"
	for name, tt := range map[string]struct {
		job     string
		answers byToken
		doubles int64
	}{
		"delivered":        {jobText(""), nil, 1},
		"dead":             {jobText(""), byToken{testToken: gone}, 0},
		"list":             {fanOutText([]string{a, c}, ""), nil, 2},
		"list, one later":  {fanOutText([]string{a, c}, ""), byToken{a: busy}, 2},
		"list, both later": {fanOutText([]string{a, c}, ""), byToken{a: busy, c: busy}, 0},
		"list, one dead":   {fanOutText([]string{a, c}, ""), byToken{a: gone}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			for _, repeats := range []bool{true, false} {
				bubble(t, func(t *testing.T) {
					q := newFakeQueue()
					b := newBench(t, q)
					b.answer = tt.answers.answer
					q.add(tt.job).repeats = repeats
					b.start()
					synctest.Wait()
					b.halt(t)
					want := tt.doubles
					if !repeats {
						want = 0
					}
					if d := b.app.Counters.PossibleDuplicates.Load(); d != want {
						t.Errorf("repeats %v: counted %d, want %d", repeats, d, want)
					}
				})
			}
		})
	}
}
