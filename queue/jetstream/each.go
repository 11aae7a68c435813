package jetstream

import (
	"context"
	"errors"
	"iter"
	"sync"

	"github.com/nats-io/nats.go/jetstream"
)

// each calls f for all there is, up to most at once, until one fails or ctx ends.
func each[K, V any](ctx context.Context, most int, all iter.Seq2[K, V], f func(K, V) error) error {
	going, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	places := make(slots, most)
	var wg sync.WaitGroup
	for k, v := range all {
		if going.Err() != nil || places.take(going) != nil {
			break
		}
		wg.Go(func() {
			defer places.giveBack()
			if err := f(k, v); err != nil {
				stop(err)
			}
		})
	}
	wg.Wait()
	if err := ctx.Err(); err != nil {
		return err
	}
	return context.Cause(going)
}

// messages are those of a stream whose subjects match a pattern, in their order;
// with an error it ends.
func messages(ctx context.Context, s jetstream.Stream, pattern string) iter.Seq2[*jetstream.RawStreamMsg, error] {
	return func(yield func(*jetstream.RawStreamMsg, error) bool) {
		for seq := uint64(1); ; seq++ {
			m, err := s.GetMsg(ctx, seq, jetstream.WithGetMsgSubject(pattern))
			if errors.Is(err, jetstream.ErrMsgNotFound) || !yield(m, err) || err != nil {
				return
			}
			seq = m.Sequence
		}
	}
}
