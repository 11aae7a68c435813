package jetstream

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"propeller/queue"
)

// Consumers that come and go, as workers do at reloads, while jobs trickle in:
// nothing is served to one that is gone, where it would wait for the end of its
// reservation.
func TestNoJobIsServedToTheGone(t *testing.T) {
	t.Parallel()
	for name, open := range map[string]func(*testing.T) *client{
		"cluster": func(t *testing.T) *client { return openReady(t, cluster.options(t)) },
		"embedded": func(t *testing.T) *client {
			return openTest(t, Options{URL: embeddedIn(t.TempDir()), AckWait: 2 * time.Minute})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			q := open(t)
			const workers, cycles = 8, 60
			var done sync.Map
			ctx, stop := context.WithCancel(ctxOf(t))
			defer stop()
			var putter, all sync.WaitGroup
			put := 0
			putter.Go(func() {
				for ; ctx.Err() == nil; put++ {
					mustPut(t, q, "gone", fmt.Sprint(put))
					time.Sleep(time.Millisecond)
				}
			})
			for w := range workers {
				all.Go(func() {
					for i := range cycles {
						short(t, q, "gone", time.Duration(5+(7*i+w)%23)*time.Millisecond+time.Duration(w%2), &done)
					}
				})
			}
			all.Wait()
			stop()
			putter.Wait()
			heir := consumeTest(t, q, "gone")
			left, late := 0, time.Now().Add(20*time.Second)
			for i := 0; i < put && time.Now().Before(late); {
				if _, ok := done.Load(fmt.Sprint(i)); ok {
					i++
					continue
				}
				ctx, end := context.WithDeadline(context.Background(), late)
				jobs, err := heir.Receive(ctx, 100)
				end()
				if err != nil {
					break
				}
				for _, j := range jobs {
					mustDone(t, j)
					done.Store(string(j.Body()), true)
				}
			}
			for i := range put {
				if _, ok := done.Load(fmt.Sprint(i)); !ok {
					left++
				}
			}
			if left > 0 {
				t.Errorf("%d of %d jobs are held by nobody", left, put)
			}
			t.Logf("%d jobs", put)
		})
	}
}

// short is a consumer that works for a time.
func short(t *testing.T, q queue.Queue, tube string, d time.Duration, done *sync.Map) {
	c, err := q.Consume(tube)
	if err != nil {
		t.Error(err)
		return
	}
	ctx, end := context.WithTimeout(context.Background(), d)
	defer end()
	for {
		if d%2 == 0 { // now and then it wants nothing for a moment
			c.Pause()
		}
		jobs, err := c.Receive(ctx, 10)
		if err != nil {
			break
		}
		for _, j := range jobs {
			if err := j.Done(context.Background()); err != nil {
				t.Error(err)
			}
			done.Store(string(j.Body()), true)
		}
	}
	closing, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := c.Close(closing); err != nil {
		t.Error(err)
	}
}
