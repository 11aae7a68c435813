package jetstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
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
	const each = "each tube that is served needs a consumer"
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

// Of what is there every setting is compared with what we would make. Some must be as we
// need them, some are not our matter; of any other a difference is only said, so that one
// that nobody thought of stops nothing.

// words are names of settings.
type words map[string]bool

func wordsOf(text string) words {
	w := words{}
	for name := range strings.FieldsSeq(text) {
		w[name] = true
	}
	return w
}

// Never written to.
var (
	mustStream = wordsOf("subjects retention storage max_msgs_per_subject subject_transform sealed mirror sources allow_msg_counter persist_mode")
	// Of the buried ones the operator may set limits.
	mustJobs   = wordsOf("allow_msg_schedules max_msgs max_bytes max_age no_ack consumer_limits")
	mustBuried = wordsOf("deny_delete discard_new_per_subject")
	anyStream  = wordsOf("name description metadata template_owner placement first_seq allow_direct mirror_direct allow_rollup_hdrs allow_msg_ttl allow_atomic allow_batched")

	mustConsumer = wordsOf(`filter_subject filter_subjects ack_policy ack_wait max_deliver max_ack_pending headers_only deliver_policy replay_policy
		backoff max_batch max_expires priority_policy priority_groups deliver_subject deliver_group`)
	anyConsumer = wordsOf("name durable_name description metadata sample_freq pause_until")
)

// streamDiffers is why a stream cannot be used as it is, and what is harmless of how it
// differs.
func streamDiffers(have, want jetstream.StreamConfig) (harmless string, err error) {
	must := mustJobs
	if want.Name == buriedStream {
		must = mustBuried
	}
	if have.MaxConsumers <= 0 || have.MaxConsumers > want.MaxConsumers { // see tooManyConsumers
		have.MaxConsumers = want.MaxConsumers
	}
	have.Duplicates = min(have.Duplicates, want.Duplicates) // more is as good
	harmless, err = differs("stream "+want.Name, settings(have), settings(want), func(name string) bool { return mustStream[name] || must[name] }, anyStream)
	if have.Replicas != want.Replicas {
		harmless += fmt.Sprintf(": give ?replicas=%d in the queue's url, or have %d copies kept: nats stream edit %s --replicas %d",
			have.Replicas, want.Replicas, want.Name, want.Replicas)
	}
	return harmless, err
}

// consumerDiffers is the same for a tube's consumer.
func consumerDiffers(have, want jetstream.ConsumerConfig) (harmless string, err error) {
	have.MaxWaiting = min(have.MaxWaiting, want.MaxWaiting) // more is as good
	if have.MaxRequestBatch >= maxBatch {                   // we ask for no more
		have.MaxRequestBatch = 0
	}
	if want.InactiveThreshold > 0 && (have.InactiveThreshold == 0 || have.InactiveThreshold >= minInactive) { // see limit
		have.InactiveThreshold = want.InactiveThreshold
	}
	if have.MaxRequestExpires >= embeddedExpires {
		have.MaxRequestExpires = 0
	}
	return differs("consumer "+want.Durable+" of stream "+jobsStream, settings(have), settings(want), func(name string) bool { return mustConsumer[name] }, anyConsumer)
}

func differs(what string, have, want map[string]string, must func(string) bool, ignored words) (harmless string, err error) {
	var stop, warn []string
	for _, name := range slices.Sorted(maps.Keys(want)) {
		switch {
		case have[name] == want[name] || ignored[name]:
		case must(name):
			stop = append(stop, fmt.Sprintf("%s is %s, must be %s", name, have[name], want[name]))
		default:
			warn = append(warn, fmt.Sprintf("%s is %s, propeller makes it with %s", name, have[name], want[name]))
		}
	}
	if stop != nil {
		err = errors.New("jetstream: " + what + ": " + strings.Join(stop, "; "))
	}
	return strings.Join(warn, "; "), err
}

// settings are the fields of a configuration, by the names that they have for NATS' tools.
func settings(config any) map[string]string {
	v := reflect.ValueOf(config)
	out := make(map[string]string, v.NumField())
	for i := range v.NumField() {
		if name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ","); name != "" && name != "-" {
			out[name] = shown(name, v.Field(i))
		}
	}
	return out
}

// shown prints a setting; of a limit the server says -1 or 0 for none.
func shown(name string, v reflect.Value) string {
	switch x := v.Interface().(type) {
	case []string:
		return strings.Join(append(slices.Sorted(slices.Values(x)), []string{"none"}[min(len(x), 1):]...), " ")
	case fmt.Stringer:
		if v.Kind() != reflect.Pointer {
			return x.String()
		}
	}
	switch {
	case v.CanInt() && v.Int() <= 0 && name == "num_replicas":
		return "the stream's"
	case v.CanInt() && v.Int() <= 0:
		return "unlimited"
	case v.CanInt():
		return strconv.FormatInt(v.Int(), 10)
	case v.IsZero() && v.Kind() != reflect.Bool, v.Kind() == reflect.Slice && v.Len() == 0:
		return "none"
	}
	text, err := json.Marshal(v.Interface())
	if err != nil {
		return "not to be shown"
	}
	return string(text)
}

// remark logs how something differs, once for each change. "" says that it does not.
func (q *client) remark(what, differs string) {
	q.mu.Lock()
	was := q.told[what]
	if differs == "" {
		delete(q.told, what)
	} else {
		q.told[what] = differs
	}
	q.mu.Unlock()
	if differs != was && differs != "" {
		q.opts.Log.Warn("a stream or consumer in NATS is not configured as propeller would create it; propeller goes on", "queue", q.opts.String(), "what", what, "differs", differs)
	}
}

// compare says whether a tube's consumer, which has jobs, is as it was when it was made or
// found. A missing one is found by the consumer that asks it for jobs.
func (t *tube) compare(have jetstream.ConsumerConfig) {
	harmless, err := consumerDiffers(have, t.config)
	t.q.remark(t.config.Durable, harmless)
	if err != nil {
		t.doubt(unavailable(err))
	}
}

// doubt has the tube's consumers look at the one in the server again.
func (t *tube) doubt(err error) {
	t.mu.Lock()
	first := false
	for c := range t.consumers {
		first = first || c.ensured
		c.ensured, c.err = false, err
		c.giveUpLocked()
		c.Wake()
	}
	t.mu.Unlock()
	if first {
		t.q.opts.Log.Warn("a tube's consumer has changed: no jobs are taken from it", "queue", t.q.opts.String(), "tube", t.name, "err", err)
	}
}
