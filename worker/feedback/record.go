// Package feedback carries what producers must know about their pushes that did not arrive: a
// record for each token that must not be used again and for each job that was buried or
// expired. Records wait in a tube of the app's own queue until somebody reads them.
//
// Writer puts them there. Webhook reads them inside the daemon and posts them, signed, to an
// HTTP endpoint.
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

// Record says why one push will not arrive. The feedback tube has its JSON form, one record a
// job, and the webhook is sent the same.
type Record struct {
	App   string `json:"app,omitempty"` // its name; "" in records of versions whose apps had none
	Topic string `json:"topic"`         // of the app, without the suffix of a push type
	// Token is the whole device token as it was sent, in lower case; "" for a broadcast, and when
	// the job could not be read.
	Token     string `json:"token,omitempty"`
	ChannelID string `json:"channel_id,omitempty"` // of a broadcast
	// Class is "token" (the token must not be used again), "expired" (too late
	// to be sent), or else the class of the last outcome: the job was buried.
	Class  string `json:"class"`
	Status int    `json:"status,omitempty"` // APNs' HTTP status; 0 when there was no answer
	Reason string `json:"reason"`           // APNs' reason, or ours in words
	Since  int64  `json:"since,omitempty"`  // Unix seconds: since when APNs knows the token as dead; 0 when not said
	APNsID string `json:"apns_id,omitempty"`
	Ref    string `json:"ref,omitempty"` // the producer's own id
	Job    string `json:"job"`           // the queue's id of the job
	// At is when the push ended, in UTC, to the millisecond.
	At time.Time `json:"at"`
}

// parse reads a job of a feedback tube. Its errors quote nothing of the body, which may be
// another program's and hold a token.
func parse(body []byte) (Record, error) {
	if !utf8.Valid(body) { // would go into the webhook's JSON as it is
		return Record{}, errors.New("feedback: not a record: not UTF-8")
	}
	var r Record
	err := json.Unmarshal(body, &r)
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		return Record{}, fmt.Errorf("feedback: not a record: not JSON, see byte %d", syntax.Offset)
	case errors.As(err, &kind) && kind.Field == "":
		return Record{}, errors.New("feedback: not a record: not a JSON object")
	case errors.As(err, &kind):
		return Record{}, fmt.Errorf("feedback: not a record: %q is of the wrong kind", kind.Field)
	case err != nil: // of time.Time
		return Record{}, errors.New(`feedback: not a record: "at" is not a time`)
	case r.Topic == "":
		return Record{}, errors.New(`feedback: not a record: "topic" is missing`)
	case r.Class == "":
		return Record{}, errors.New(`feedback: not a record: "class" is missing`)
	case r.At.IsZero():
		return Record{}, errors.New(`feedback: not a record: "at" is missing`)
	}
	return r, nil
}

// putTimeout bounds the put of one record: its job stays reserved meanwhile. It is longer than
// the queue's own limits (answerTime in beanstalk), whose errors say more.
const putTimeout = 15 * time.Second

// maxText bounds each text of a record, in bytes. It is far above what a real one needs, device
// tokens included, and makes every record fit into a job of beanstalkd (65,535 bytes, its
// doc/protocol.txt on max-job-size) even with each byte escaped. If the queue refused a record,
// its job could never be settled.
const maxText = 1024

// Writer returns a function that puts a record on tube as one JSON job and
// returns when the queue has it. Texts longer than 1024 bytes are cut.
//
// The errors are those of queue.Put; after a timeout the error wraps queue.ErrUnavailable.
// After any error but queue.ErrRejected the record may still have been stored.
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
	for _, text := range []*string{&r.App, &r.Topic, &r.Token, &r.ChannelID, &r.Class, &r.Reason, &r.APNsID, &r.Ref, &r.Job} {
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
