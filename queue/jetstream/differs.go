package jetstream

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go/jetstream"
)

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
		q.opts.Log.Warn("what the queue keeps in NATS is not as propeller makes it; it goes on", "queue", q.opts.String(), "what", what, "differs", differs)
	}
}

// compare says whether a tube's consumer, which has jobs, is as it was when it was made or
// found. One that is not is looked at by who asks it for jobs.
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
		c.wake()
	}
	t.mu.Unlock()
	if first {
		t.q.opts.Log.Warn("a tube's consumer has changed: no jobs are taken from it", "queue", t.q.opts.String(), "tube", t.name, "err", err)
	}
}
