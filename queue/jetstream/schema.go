package jetstream

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// buriedAge is how long a buried job is kept when we make the stream. The
// operator may change it there.
const buriedAge = 14 * 24 * time.Hour

// maxWaiting is how many pulls may wait at one tube's consumer: one for each
// worker of all daemons, and those of daemons that died, until they expire.
const maxWaiting = 2048

// maxTubes is how many consumers the stream of jobs takes when we make it: one
// for each tube. For one that names no number the server's default holds, 1,000
// (nats-server: jetstream_api.go, JSDefaultMaxConsumersPerStream).
const maxTubes = 1_000_000

// duplicates is for how long a stream knows what has been put once; the server's default.
const duplicates = 2 * time.Minute

// jobsConfig is the stream of all jobs that wait, are held, or are to come.
//
// It has no limits: a work queue that is full drops waiting jobs in silence
// under DiscardOld, and DiscardNew, which would refuse them, is not allowed
// with schedules. A cluster's own storage limit refuses cleanly, and so do we
// for an embedded server (full.go). It has no sources: schedules were lost with
// them (nats-server#8423).
func jobsConfig(replicas int) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:              jobsStream,
		Description:       "propeller: jobs",
		Subjects:          []string{jobPrefix + ">", schedPrefix + ">"},
		Retention:         jetstream.WorkQueuePolicy,
		Storage:           jetstream.FileStorage,
		Replicas:          replicas,
		AllowMsgSchedules: true,
		MaxConsumers:      maxTubes,
		Duplicates:        duplicates,
	}
}

// buriedConfig is the stream of jobs set aside, one on each subject.
func buriedConfig(replicas int) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:              buriedStream,
		Description:       "propeller: buried jobs",
		Subjects:          []string{buriedPrefix + ">"},
		Retention:         jetstream.LimitsPolicy,
		Storage:           jetstream.FileStorage,
		Replicas:          replicas,
		MaxMsgsPerSubject: 1,
		MaxAge:            buriedAge,
		Duplicates:        duplicates,
	}
}

// consumerConfig is the consumer of a tube, shared by all workers of all
// daemons: a work queue allows only one per subject.
//
// MaxAckPending has no limit because jobs that wait for a retry count against
// it (nats-server#6093): with a limit, enough of them stop the tube. MaxDeliver
// has none because a job at its limit would stay in the stream for ever,
// served to nobody.
func consumerConfig(tube string, ackWait time.Duration) jetstream.ConsumerConfig {
	return jetstream.ConsumerConfig{
		Durable:       durable(tube),
		FilterSubject: jobSubject(tube),
		DeliverPolicy: jetstream.DeliverAllPolicy,
		AckPolicy:     jetstream.AckExplicitPolicy,
		AckWait:       ackWait,
		MaxDeliver:    -1,
		MaxAckPending: -1,
		MaxWaiting:    maxWaiting,
	}
}

// tooManyConsumers is whose limit is reached and what to do. Of the three limits
// (nats-server: consumer.go, addConsumer) the server's own cannot be asked for.
func tooManyConsumers(ctx context.Context, js jetstream.JetStream) string {
	const each = "each tube needs a consumer"
	if a, err := js.AccountInfo(ctx); err == nil && a.Limits.MaxConsumers > 0 {
		return fmt.Sprintf("%s, and the account may have %d for a stream: raise max_consumers of the account", each, a.Limits.MaxConsumers)
	}
	if s, err := js.Stream(ctx, jobsStream); err == nil && s.CachedInfo().Config.MaxConsumers > 0 {
		return fmt.Sprintf("%s, and max_consumers of stream %s is %d: raise it", each, jobsStream, s.CachedInfo().Config.MaxConsumers)
	}
	return fmt.Sprintf("%s, and the server's default_max_consumers (1,000 unless set) is reached: set max_consumers of stream %s, to %d for instance",
		each, jobsStream, maxTubes)
}

// The first server with message schedules, which delayed jobs need.
const minMajor, minMinor = 2, 12

// checkVersion returns an error unless a server of this version will do.
func checkVersion(v string) error {
	var major, minor int
	if _, err := fmt.Sscanf(v, "%d.%d.", &major, &minor); err != nil {
		return fmt.Errorf("jetstream: server version %q: not understood", v)
	}
	if major < minMajor || major == minMajor && minor < minMinor {
		return fmt.Errorf("jetstream: server version %s: delayed jobs need %d.%d or newer", v, minMajor, minMinor)
	}
	return nil
}
