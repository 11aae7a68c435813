package jetstream

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"propeller/queue"
)

// The names of what this package keeps in a NATS account. They are part of the
// contract with other programs (docs/queues.md): a job may be put by any NATS
// client by publishing to propeller.job.<tube>.
const (
	jobsStream   = "PROPELLER_JOBS"
	buriedStream = "PROPELLER_BURIED"

	jobPrefix    = "propeller.job."    // + tube
	schedPrefix  = "propeller.sched."  // + tube + "." + id
	buriedPrefix = "propeller.buried." // + tube + "." + id
)

// Headers of our messages. A job that is put to be served at once has none.
const (
	headerID          = "Propeller-Id"          // the job's id when it is not made of its sequence number
	headerPut         = "Propeller-Put"         // when it was put, Unix nanoseconds
	headerKicked      = "Propeller-Kicked"      // "1": it was buried and kicked
	headerUnscheduled = "Propeller-Unscheduled" // "1": see schedules.go
	headerLeft        = "Propeller-Left"        // "1": it may have been finished before; see orphans.go
)

func jobSubject(tube string) string { return jobPrefix + tube }

// A schedule lives on a subject of its own: a second one on the same subject
// would replace the first.
func schedSubject(tube, id string) string { return schedPrefix + tube + "." + id }

// A buried job lives on a subject of its own too: burying it again, after a
// crash between burying and acknowledging, replaces it. No other job may have its
// id.
func buriedSubject(tube, id string) string { return buriedPrefix + tube + "." + id }

// tubeOf is the tube of the jobs on a subject; "" for a subject of none.
func tubeOf(subject string) string {
	if tube, ok := strings.CutPrefix(subject, jobPrefix); ok {
		return tube
	}
	tube := strings.TrimPrefix(strings.TrimPrefix(subject, schedPrefix), buriedPrefix)
	return tube[:max(strings.LastIndexByte(tube, '.'), 0)] // the job's id follows
}

// durable is the name of a tube's consumer. Consumer names allow no dots, and
// tube names no '=': no two tubes have the same.
func durable(tube string) string { return strings.ReplaceAll(tube, ".", "=") }

// jobID: the stream's birth and a sequence number, or d and a NUID for jobs that
// were put with a delay. Those from before the birth was part of it are bare
// sequence numbers.
var jobID = regexp.MustCompile(`^(([0-9a-z]{1,13}-)?[1-9][0-9]{0,19}|d[0-9A-Za-z]{22})$`)

// seqID is the id of a job by its sequence number, and when the stream was made, in
// Unix milliseconds: a stream that is created again starts at 1.
func seqID(birth int64, seq uint64) string {
	b := make([]byte, 0, 24)
	b = strconv.AppendInt(b, birth, 36)
	b = append(b, '-')
	return string(strconv.AppendUint(b, seq, 10))
}

// idOf is the id of a job that the stream has under a number. A header is only a label:
// whoever may publish here can write any into it. So it never is the key of anything, and
// is not believed if it is another job's number. Delayed jobs have names at random, which
// only who has read them knows.
func idOf(h nats.Header, birth int64, seq uint64) string {
	if id := h.Get(headerID); strings.HasPrefix(id, "d") && jobID.MatchString(id) {
		return id
	}
	return seqID(birth, seq)
}

// putTime is when a job was put: as its header says if it was delayed or
// kicked, else when the stream got it, in Unix nanoseconds.
func putTime(h nats.Header, stored int64) time.Time {
	if n, err := strconv.ParseInt(h.Get(headerPut), 10, 64); err == nil {
		return time.Unix(0, n)
	}
	return time.Unix(0, stored)
}

// past are the headers of a job that keeps its id and its age.
func past(id string, put time.Time) nats.Header {
	return nats.Header{headerID: {id}, headerPut: {strconv.FormatInt(put.UnixNano(), 10)}}
}

// newID is an id for a job that the stream does not number.
func newID() string { return "d" + nuid.Next() }

// onceID is a Nats-Msg-Id for what may be done once with a message: no other has
// the same sequence number and the same time, of whatever stream.
func onceID(what string, m *jetstream.RawStreamMsg) string {
	return what + "-" + strconv.FormatInt(m.Time.UnixNano(), 36) + "-" + strconv.FormatUint(m.Sequence, 10)
}

// checkID returns an error wrapping queue.ErrRejected unless id can be the id
// of a job of ours.
func checkID(id string) error {
	if !jobID.MatchString(id) {
		return fmt.Errorf("jetstream: job id %.40q: not an id of this queue: %w", id, queue.ErrRejected)
	}
	return nil
}
