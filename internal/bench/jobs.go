package bench

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"propeller/internal/apnslean"
	"propeller/queue"
)

// leastPayload is the size of the payload that jobs make with an empty body.
const leastPayload = len(`{"aps":{"alert":{"title":"Propeller","body":""}},"put":1700000000000000}`)

// jobMaker makes jobs whose pushes have that payload and tokens of their own.
type jobMaker struct {
	text string // body of the alert
	run  string // 16 hex digits that all tokens of this run begin with
}

func newJobMaker(payload int, run string) jobMaker {
	return jobMaker{strings.Repeat("x", payload-leastPayload), run}
}

// job is job number i with so many tokens.
func (m jobMaker) job(i, tokens int, put time.Time) []byte {
	b := make([]byte, 0, 200+len(m.text)+67*tokens)
	if tokens == 1 {
		b = append(b, `{"token":"`...)
		b = m.token(b, i, 0)
		b = append(b, '"')
	} else {
		b = append(b, `{"tokens":[`...)
		for t := range tokens {
			if t > 0 {
				b = append(b, ',')
			}
			b = append(b, '"')
			b = m.token(b, i, t)
			b = append(b, '"')
		}
		b = append(b, ']')
	}
	b = append(b, `,"title":"Propeller","body":"`...)
	b = append(b, m.text...)
	b = append(b, `","data":{`...)
	b = append(b, apnslean.Stamp(put)...)
	return append(b, "}}"...)
}

// token appends the 64 digits of token t of job i.
func (m jobMaker) token(b []byte, i, t int) []byte {
	b = append(b, m.run...)
	b = fmt.Appendf(b, "%032x", uint64(i))
	return fmt.Appendf(b, "%016x", uint64(t))
}

// randomHex is n random bytes as hex digits.
func randomHex(n int) string {
	b := make([]byte, n)
	rand.Read(b) // never fails (crypto/rand)
	return hex.EncodeToString(b)
}

// putters is how many puts are under way at once. Each waits for the queue's
// answer; more do not make it faster.
const putters = 128

// putAll puts jobs from through to-1, as fast as the queue takes them.
func putAll(ctx context.Context, q queue.Queue, tube string, m jobMaker, from, to int, tokens func(i int) int) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	next.Store(int64(from))
	var wg sync.WaitGroup
	for range min(putters, to-from) {
		wg.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= to {
					return
				}
				if _, err := q.Put(ctx, tube, m.job(i, tokens(i), time.Now()), queue.PutOptions{}); err != nil {
					cancel(fmt.Errorf("put: %w", err))
				}
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// putPaced puts n jobs of one token at rate per second, each at its time even if
// those before it are late, and says how long that took.
func putPaced(ctx context.Context, q queue.Queue, tube string, m jobMaker, from, n, rate int) (time.Duration, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	defer wg.Wait()
	due := make(chan int)
	defer close(due)
	for range min(putters, n) {
		wg.Go(func() {
			for i := range due {
				if _, err := q.Put(ctx, tube, m.job(from+i, 1, time.Now()), queue.PutOptions{}); err != nil {
					cancel(fmt.Errorf("put: %w", err))
				}
			}
		})
	}
	begun := time.Now()
	for i := range n {
		if wait := time.Until(begun.Add(time.Duration(i) * time.Second / time.Duration(rate))); wait > 0 {
			time.Sleep(wait)
		}
		select {
		case due <- i:
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
	return time.Since(begun), nil
}

// drainTime bounds how long a run looks for jobs that it has left behind.
const drainTime = 20 * time.Second

// drain removes what is left of the run's tube: all of it is the run's own.
func drain(q engine, tube string) error {
	ctx, cancel := context.WithTimeout(context.Background(), drainTime)
	defer cancel()
	if err := deleteBuried(ctx, q, tube); err != nil {
		return err
	}
	c, err := q.Consume(tube)
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	for {
		left, err := q.TubeStats(ctx, tube)
		if err != nil {
			return err
		}
		if left.Ready+left.Delayed+left.Reserved+left.Buried == 0 {
			return nil
		}
		if err := removeSome(ctx, c); err != nil {
			return fmt.Errorf("tube %q: %d jobs are left in it: %w", tube, left.Ready+left.Delayed+left.Reserved+left.Buried, err)
		}
	}
}

// removeSome deletes jobs until none has come for a moment.
func removeSome(ctx context.Context, c queue.Consumer) error {
	for {
		short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
		jobs, err := c.Receive(short, 100)
		cancel()
		for _, j := range jobs {
			if err := j.Done(ctx); err != nil && !errors.Is(err, queue.ErrLost) {
				return err
			}
		}
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			return nil // none for now
		}
	}
}

func deleteBuried(ctx context.Context, q engine, tube string) error {
	for {
		jobs, err := q.Buried(ctx, tube, 1000)
		if err != nil || len(jobs) == 0 {
			return err
		}
		for _, j := range jobs {
			if err := q.Delete(ctx, tube, j.ID); err != nil && !errors.Is(err, queue.ErrNotFound) {
				return err
			}
		}
	}
}
