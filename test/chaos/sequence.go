package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"
)

// sequencer puts numbered records of its own on the webhook's feedback tube,
// and now and then something that is no record: that the webhook delivers in
// the tube's order can only be told by who put the records there.
type sequencer struct {
	engine engine
	rng    *rand.Rand
	app    int         // the one with the webhook
	stored []bool      // by number: the queue has confirmed it
	at     []time.Time // when each was put
	junk   int         // how many were not records
	conn   client
}

const (
	sequenceReason = "put by chaos"
	sequenceRef    = "record "
	junkRecord     = "no record"
	// sequenceEvery is the mean pause between two.
	sequenceEvery = 200 * time.Millisecond
	// sequenceTokens is how many device tokens they are about: the order is
	// promised for each.
	sequenceTokens = 3
)

func (s *sequencer) run(ctx context.Context) {
	for ctx.Err() == nil {
		s.putOne(ctx)
		sleep(ctx, time.Duration(s.rng.Int64N(int64(2*sequenceEvery))))
	}
	if s.conn != nil {
		s.conn.close()
	}
}

func (s *sequencer) putOne(ctx context.Context) {
	if s.conn == nil {
		conn, err := s.engine.dial()
		if err != nil {
			sleep(ctx, 50*time.Millisecond)
			return
		}
		s.conn = conn
	}
	app := appAt(s.app)
	body := []byte(junkRecord)
	n := len(s.stored)
	record := s.rng.IntN(50) != 0
	if record {
		var err error
		body, err = json.Marshal(feedbackRecord{
			Topic: app.topic, Token: fmt.Sprintf("%064x", n%sequenceTokens), Class: "token", Reason: sequenceReason,
			Ref: sequenceRef + strconv.Itoa(n), Job: "0", At: time.Now().UTC(),
		})
		if err != nil { // strings and numbers
			panic(err)
		}
		s.stored, s.at = append(s.stored, false), append(s.at, time.Now())
	}
	_, err := s.conn.put(app.feedback, body, 0)
	switch {
	case err != nil:
		// It may have been stored, and even after those that follow on
		// another connection: nothing is expected of it.
		s.conn.close()
		s.conn = nil
	case record:
		s.stored[n] = true
	default:
		s.junk++
	}
}

// sequence judges in what order the webhook delivered a sequencer's records.
type sequence struct {
	stored   []bool
	came     []bool
	late     []time.Time         // a daemon died then, and what it held comes later
	last     [sequenceTokens]int // the highest of each token, and one more
	disorder []string
}

// arrived takes the next record that was received.
func (s *sequence) arrived(r *feedbackRecord, line int) {
	n, err := strconv.Atoi(strings.TrimPrefix(r.Ref, sequenceRef))
	if err != nil || n < 0 || n >= len(s.stored) {
		find(&s.disorder, "%s:%d: a record that nobody put: %s", bookName, line, r.Ref)
		return
	}
	if s.came[n] || !s.stored[n] {
		return // again, after a fault
	}
	s.came[n] = true
	last := &s.last[n%sequenceTokens]
	if n < *last-1 && !s.putOff(r.At) {
		find(&s.disorder, "%s:%d: the webhook got record %d after %d of the same token", bookName, line, n, *last-1)
	}
	*last = max(*last, n+1)
}

// putOff says whether a record that was put at a time may have been in a daemon's
// hands when that died, and so comes after those that were put later.
func (s *sequence) putOff(put time.Time) bool {
	return slices.ContainsFunc(s.late, put.Before)
}

// missing counts the records that never came.
func (s *sequence) missing() int {
	n := 0
	for i := range s.stored {
		if s.stored[i] && !s.came[i] {
			n++
		}
	}
	return n
}
