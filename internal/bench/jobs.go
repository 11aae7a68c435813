package bench

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"propeller/internal/apnslean"
	"propeller/queue"
)

// LeastPayload is the size of the payload that jobs make with an empty body.
const LeastPayload = len(`{"aps":{"alert":{"title":"Propeller","body":""}},"put":1700000000000000}`)

// jobMaker makes jobs whose pushes have that payload and tokens of their own.
type jobMaker struct {
	text string // body of the alert
	run  string // 16 hex digits that all tokens of this run begin with
}

func newJobMaker(payload int, run string) jobMaker {
	return jobMaker{strings.Repeat("x", payload-LeastPayload), run}
}

// Job is job number i with so many tokens.
func (m jobMaker) Job(i, tokens int, put time.Time) []byte {
	list := make([]string, tokens)
	for t := range list {
		list[t] = fmt.Sprintf("%q", fmt.Sprintf("%s%032x%016x", m.run, i, t))
	}
	to := `"token":` + list[0]
	if tokens > 1 {
		to = `"tokens":[` + strings.Join(list, ",") + "]"
	}
	return fmt.Appendf(nil, `{%s,"title":"Propeller","body":%q,"data":{%s}}`, to, m.text, apnslean.Stamp(put))
}

// RandomHex is n random bytes as hex digits.
func RandomHex(n int) string {
	b := make([]byte, n)
	rand.Read(b) // never fails (crypto/rand)
	return hex.EncodeToString(b)
}

// putters is how many puts are under way at once. Each waits for the queue's
// answer; more do not make it faster.
const putters = 128

// Put puts jobs from through to-1: rate per second, each at its time even if those
// before it are late, or, if rate is 0, as fast as the queue takes them.
func (r *Rig) Put(ctx context.Context, from, to, rate int, tokens func(i int) int) error {
	puts, ending := errgroup.WithContext(ctx)
	puts.SetLimit(putters)
	begun := time.Now()
	for i := from; i < to && ending.Err() == nil; i++ {
		if rate > 0 {
			due := begun.Add(time.Duration(i-from) * time.Second / time.Duration(rate))
			_ = Pause(ending, time.Until(due)) // the loop sees that it has ended
		}
		puts.Go(func() error {
			_, err := r.Queue.Put(ending, r.Topic, r.Job(i, tokens(i), time.Now()), queue.PutOptions{})
			return err
		})
	}
	err := puts.Wait()
	switch {
	case ctx.Err() != nil:
		return errInterrupted
	case err != nil:
		return fmt.Errorf("put: %w", err)
	}
	return nil
}

// Pause waits, unless the run is interrupted.
func Pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return errInterrupted
	case <-time.After(d):
		return nil
	}
}
