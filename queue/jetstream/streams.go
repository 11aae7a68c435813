package jetstream

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// A stream that has just been made, or whose leader is lost, is not the same to
// all servers: one says that there is none, one knows of no leader, and some say
// nothing at all to a request that another would have answered (nats-server:
// jetstream_api.go, jsStreamInfoRequest). Daemons that start together make the
// same streams and see all of this.

const (
	// answerWait is for the first answer of a server; the next is waited for twice
	// as long.
	answerWait = 2 * time.Second
	// streamPause is how often a stream that is being made, or has no leader, is asked for.
	streamPause = 50 * time.Millisecond
)

// ensureStream makes a stream that is missing, after having said so, and waits
// until it has a leader. One that is there is compared and never changed: it may be
// shared with daemons that need it as it is. It returns what is known of it.
func (q *client) ensureStream(ctx context.Context, cn *conn, want jetstream.StreamConfig, missing func()) (*jetstream.StreamInfo, error) {
	info, err := findStream(ctx, cn, want.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		missing()
		info, err = q.makeStream(ctx, cn, want)
	}
	for err == nil && info.Cluster != nil && info.Cluster.Leader == "" { // so is it for ever on a server that is cut off
		if q.sleep(ctx, streamPause) != nil {
			err = errNoLeader
			break
		}
		var now *jetstream.StreamInfo
		if now, err = findStream(ctx, cn, want.Name); errors.Is(err, jetstream.ErrStreamNotFound) {
			now, err = info, nil // another server was asked
		}
		info = now
	}
	if err != nil {
		return nil, fmt.Errorf("jetstream: stream %s: %w", want.Name, inner(err))
	}
	harmless, err := streamDiffers(info.Config, want)
	q.remark(want.Name, harmless)
	return info, err
}

// findStream asks for a stream, and again when there is no answer.
func findStream(ctx context.Context, cn *conn, name string) (*jetstream.StreamInfo, error) {
	for wait := answerWait; ; wait *= 2 {
		once, cancel := context.WithTimeout(ctx, wait)
		s, err := cn.js.Stream(once, name)
		cancel()
		if err == nil {
			return s.CachedInfo(), nil
		}
		if !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
			return nil, err
		}
	}
}

// makeStream makes a stream that others may be making at the same time.
func (q *client) makeStream(ctx context.Context, cn *conn, want jetstream.StreamConfig) (*jetstream.StreamInfo, error) {
	for {
		info, err := tryStream(ctx, cn, want)
		if codeOf(err) == errCodeTooManyConsumers && want.MaxConsumers != 0 { // more than the account may have: its limit holds, then
			want.MaxConsumers = 0
			continue
		}
		if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) || errors.Is(err, context.DeadlineExceeded) {
			info, err = findStream(ctx, cn, want.Name)
		}
		switch {
		case err == nil:
			return info, nil
		case want.Replicas > 1 && strings.Contains(err.Error(), "replicas > 1"):
			return nil, fmt.Errorf("create: %w: one server cannot keep %d copies; give ?replicas=1", err, want.Replicas)
		case !errors.Is(err, jetstream.ErrStreamNotFound): // that may be of somebody else's, which is being made
			return nil, err
		case q.sleep(ctx, streamPause) != nil:
			return nil, errNoLeader
		}
	}
}

// tryStream is CreateStream that leaves ctx time to see what came of it.
func tryStream(ctx context.Context, cn *conn, want jetstream.StreamConfig) (*jetstream.StreamInfo, error) {
	wait := answerWait
	if end, ok := ctx.Deadline(); ok {
		wait = min(wait, time.Until(end)/2)
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	s, err := cn.js.CreateStream(ctx, want)
	if err != nil {
		return nil, err
	}
	return s.CachedInfo(), nil
}
