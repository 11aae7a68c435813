package queuetest

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"propeller/queue"
)

// slowQueue takes a while for each put.
type slowQueue struct {
	queue.Queue
	each time.Duration

	mu  sync.Mutex
	put int
}

func (q *slowQueue) Put(ctx context.Context, _ string, _ []byte, _ queue.PutOptions) (string, error) {
	select {
	case <-time.After(q.each):
	case <-ctx.Done():
		return "", ctx.Err()
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.put++
	return fmt.Sprint(q.put), nil
}

// On a busy machine many puts take longer, all together, than the suite waits for one.
func TestPutManySlowly(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := &slowQueue{each: patience / 4}
		began := time.Now()
		putMany(t, q, "tube", 100)
		if q.put != 100 || time.Since(began) < patience {
			t.Fatalf("%d put in %v", q.put, time.Since(began))
		}
	})
}

// The same for many that are finished.
func TestLedgerWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLedger(4)
		go func() {
			for i := range 4 {
				time.Sleep(patience / 2)
				l.add(fmt.Append(nil, i))
			}
		}()
		l.wait(t)
		synctest.Wait()
	})
}
