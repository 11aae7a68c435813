package feedback

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"propeller/queue"
)

// putTimeout bounds the put of one record: the job that it is about stays
// reserved meanwhile, and whoever settles it waits. It is longer than the
// queue's own limits (answerTime in beanstalk), whose errors say more.
const putTimeout = 15 * time.Second

// maxText is the most bytes that a text of a record may have. It is far above
// what a real one needs, a device token included, and makes every record fit
// into a job of beanstalkd (65,535 bytes, its doc/protocol.txt on max-job-size)
// even with each byte escaped. A record that the queue refuses would keep its
// job from ever being settled.
const maxText = 1024

// Writer returns a function that puts a record on tube as one JSON job and
// returns when the queue has it. Texts longer than 1024 bytes are cut.
//
// The errors are those of queue.Put; one that took too long wraps
// queue.ErrUnavailable. After any error but queue.ErrRejected the record may be
// on the tube nevertheless.
func Writer(q queue.Queue, tube string) func(context.Context, Record) error {
	return func(ctx context.Context, r Record) error {
		body, err := encode(r)
		if err != nil {
			return err
		}
		short, cancel := context.WithTimeout(ctx, putTimeout)
		defer cancel()
		_, err = q.Put(short, tube, body, queue.PutOptions{Settling: true})
		switch {
		case err == nil:
			return nil
		case errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil:
			return fmt.Errorf("feedback: record for tube %q: not stored within %v: %w", tube, putTimeout, queue.ErrUnavailable)
		}
		return fmt.Errorf("feedback: record for tube %q: %w", tube, err)
	}
}

// encode returns the job of a record.
func encode(r Record) ([]byte, error) {
	for _, text := range []*string{&r.Topic, &r.Token, &r.ChannelID, &r.Class, &r.Reason, &r.APNsID, &r.Ref, &r.Job} {
		*text = clip(*text, maxText)
	}
	r.At = r.At.UTC().Truncate(time.Millisecond)
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false) // reasons are read by people, too
	if err := enc.Encode(r); err != nil {
		return nil, fmt.Errorf("feedback: record: %w", err) // a year that JSON cannot write
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n")), nil
}

// clip cuts s to at most n bytes, between characters, and marks the cut.
func clip(s string, n int) string {
	const mark = "…"
	if len(s) <= n {
		return s
	}
	n -= len(mark)
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + mark
}
