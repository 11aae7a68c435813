package jetstream

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

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
	headerID     = "Propeller-Id"     // the job's id when it is not made of its sequence number
	headerPut    = "Propeller-Put"    // when it was put, Unix nanoseconds
	headerKicked = "Propeller-Kicked" // "1": it was buried and kicked
)

func jobSubject(tube string) string { return jobPrefix + tube }

// A schedule lives on a subject of its own: a second one on the same subject
// would replace the first.
func schedSubject(tube, id string) string { return schedPrefix + tube + "." + id }

// A buried job lives on a subject of its own too: burying it again, after a
// crash between burying and acknowledging, replaces it. No other job may have its
// id.
func buriedSubject(tube, id string) string { return buriedPrefix + tube + "." + id }

// durable is the name of a tube's consumer. Consumer names allow no dots, and
// tube names no '=': no two tubes have the same.
func durable(tube string) string { return strings.ReplaceAll(tube, ".", "=") }

// jobID: the stream's birth and a sequence number, or d and a NUID for jobs that
// were put with a delay. Those from before the birth was part of it are bare
// sequence numbers.
var jobID = regexp.MustCompile(`^(([0-9a-z]{1,13}-)?[1-9][0-9]{0,19}|d[0-9A-Za-z]{22})$`)

// seqID is the id of a job by its sequence number. A stream that is made anew
// begins again with 1, so the number alone would name several jobs.
func seqID(birth int64, seq uint64) string {
	b := make([]byte, 0, 24)
	b = strconv.AppendInt(b, birth, 36)
	b = append(b, '-')
	return string(strconv.AppendUint(b, seq, 10))
}

// birthOf is when a stream was made, for seqID.
func birthOf(info *jetstream.StreamInfo) int64 { return info.Created.UnixMilli() }

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
