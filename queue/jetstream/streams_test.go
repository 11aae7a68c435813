package jetstream

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"propeller/queue"
)

// What we make is as we make it, also in the words of the server.
func TestNothingDiffers(t *testing.T) {
	t.Parallel()
	o := cluster.options(t)
	log, lines := newLog()
	o.Log, o.lookEvery = log, 100*time.Millisecond
	serves(t, openTest(t, o))
	if text := lines.String(); strings.Contains(text, "differs") || strings.Contains(text, "changed") {
		t.Error(text)
	}
}

// Every setting of a stream and a consumer is judged: it stops, is said, or is none of our
// matter.
func TestEverySettingIsJudged(t *testing.T) {
	t.Parallel()
	judge := func(config any, all []words, any words, compare func(changed reflect.Value) (string, error)) {
		t.Helper()
		names := settings(config)
		for _, some := range all {
			for name := range some {
				if _, there := names[name]; !there {
					t.Errorf("%T has no %s", config, name)
				}
			}
		}
		for i := range reflect.TypeOf(config).NumField() {
			name, _, _ := strings.Cut(reflect.TypeOf(config).Field(i).Tag.Get("json"), ",")
			changed := reflect.New(reflect.TypeOf(config)).Elem()
			changed.Set(reflect.ValueOf(config))
			other(changed.Field(i))
			harmless, err := compare(changed)
			must := false
			for _, some := range all[1:] {
				must = must || some[name]
			}
			larger := name == "duplicate_window" || name == "max_waiting" || name == "max_consumers" // than needed
			switch {
			case (any[name] || larger) && (err != nil || harmless != ""),
				must && (err == nil || !strings.Contains(err.Error(), name)),
				!any[name] && !larger && !must && (err != nil || !strings.Contains(harmless, name)):
				t.Errorf("%T.%s: %q, %v", config, name, harmless, err)
			}
		}
	}
	stream := func(want jetstream.StreamConfig, must words) {
		t.Helper()
		judge(want, []words{anyStream, mustStream, must}, anyStream, func(v reflect.Value) (string, error) {
			return streamDiffers(v.Interface().(jetstream.StreamConfig), want)
		})
	}
	stream(jobsConfig(3), mustJobs)
	stream(buriedConfig(3), mustBuried)
	want := consumerConfig("tube", time.Second)
	judge(want, []words{anyConsumer, mustConsumer}, anyConsumer, func(v reflect.Value) (string, error) {
		return consumerDiffers(v.Interface().(jetstream.ConsumerConfig), want)
	})
}

// other gives v another value.
func other(v reflect.Value) {
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(!v.Bool())
	case reflect.String:
		v.SetString("other")
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
	case reflect.Struct:
		other(v.Field(0))
	default:
		if v.CanUint() {
			v.SetUint(v.Uint() + 1)
		} else if v.Int() < 0 {
			v.SetInt(7)
		} else {
			v.SetInt(v.Int() + 1)
		}
	}
}

// A difference that does no harm is said once, at the start and when it arises, and stops
// nothing, also at the next connect.
func TestHarmlessDifference(t *testing.T) {
	t.Parallel()
	o := cluster.options(t)
	js := rawClient(t, o)
	c := jobsConfig(1) // of 3
	if _, err := js.CreateStream(ctxOf(t), c); err != nil {
		t.Fatal(err)
	}
	log, lines := newLog()
	o.Log, o.lookEvery = log, 100*time.Millisecond
	q := openReady(t, o)
	const copies = "num_replicas is 1, propeller makes it with 3: give ?replicas=1 in the queue's url, or have 3 copies kept: nats stream edit PROPELLER_JOBS --replicas 3"
	if text := lines.String(); strings.Count(text, copies) != 1 {
		t.Errorf("%q is not said:\n%s", copies, text)
	}
	c.Compression = jetstream.S2Compression
	if _, err := js.UpdateStream(ctxOf(t), c); err != nil {
		t.Fatal(err)
	}
	b := buriedConfig(3)
	b.MaxMsgs, b.MaxAge = 1000, time.Hour
	if _, err := js.UpdateStream(ctxOf(t), b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"compression is S2, propeller makes it with None", "max_msgs is 1000, propeller makes it with unlimited", "max_age is 1h0m0s, propeller makes it with 336h0m0s"} {
		eventually(t, want+" is said", func() bool { return strings.Contains(lines.String(), want) })
	}
	_, epoch, _, _ := q.link.ready()
	if err := q.link.cn.nc.ForceReconnect(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it connects again", func() bool { _, now, _, err := q.link.ready(); return err == nil && now > epoch })
	serves(t, q)
	time.Sleep(3 * o.lookEvery)
	if text := lines.String(); strings.Count(text, "compression is") != 1 || strings.Contains(text, "must be") {
		t.Error(text)
	}
}

// A stream that is changed while it is in use, so that jobs would be lost, stops the queue,
// which goes on when it is put right.
func TestStreamChangesWhileRunning(t *testing.T) {
	t.Parallel()
	o := cluster.options(t)
	js := rawClient(t, o)
	o.lookEvery = 100 * time.Millisecond
	q := openReady(t, o)
	c := jobsConfig(3)
	c.MaxMsgs = 5
	if _, err := js.UpdateStream(ctxOf(t), c); err != nil {
		t.Fatal(err)
	}
	says(t, q, "stream PROPELLER_JOBS: max_msgs is 5, must be unlimited")
	if _, err := js.UpdateStream(ctxOf(t), jobsConfig(3)); err != nil {
		t.Fatal(err)
	}
	serves(t, q)
}

// A consumer that is changed so that it hands out no bodies: what came would be buried as
// no jobs.
func TestHeadersOnlyWhileRunning(t *testing.T) {
	t.Parallel()
	o := cluster.options(t)
	js := rawClient(t, o)
	q := openReady(t, o)
	c := consumeTest(t, q, "tube")
	mustPut(t, q, "tube", "before")
	mustDone(t, mustReceive(t, c, 1)...)
	got := make(chan queue.Job, 1)
	go func() {
		if jobs, err := c.Receive(ctxOf(t), 1); err == nil {
			got <- jobs[0]
		}
	}()
	conf := c.t.config
	conf.HeadersOnly = true
	if _, err := js.UpdateConsumer(ctxOf(t), jobsStream, conf); err != nil {
		t.Fatal(err)
	}
	mustPut(t, q, "tube", "x")
	eventually(t, "the consumer says why", func() bool {
		err := c.Err()
		return errors.Is(err, queue.ErrUnavailable) && strings.Contains(err.Error(), "headers_only is true, must be false")
	})
	conf.HeadersOnly = false
	if _, err := js.UpdateConsumer(ctxOf(t), jobsStream, conf); err != nil {
		t.Fatal(err)
	}
	if j := <-got; string(j.Body()) != "x" {
		t.Errorf("got %q", j.Body())
	} else {
		mustDone(t, j)
	}
}

// The header that shows such a consumer may be a producer's own: a job without a body that
// has it is served, so that it can be buried, and keeps no other from being served.
func TestForgedSizeOfAnEmptyJob(t *testing.T) {
	t.Parallel()
	q := openEmbedded(t)
	c := consumeTest(t, q, "tube")
	for range 3 {
		forge(t, q, "tube", "", nats.Header{"Nats-Msg-Size": {"5"}})
	}
	mustPut(t, q, "tube", "job")
	for n := 0; n < 4; {
		jobs := mustReceive(t, c, 1)
		mustDone(t, jobs...)
		n += len(jobs)
	}
}

// A limit of a consumer that is set while it is in use is seen with the tube's numbers.
func TestConsumerChangesWhileRunning(t *testing.T) {
	t.Parallel()
	o := cluster.options(t)
	js := rawClient(t, o)
	log, lines := newLog()
	o.Log = log
	q := openReady(t, o)
	c := consumeTest(t, q, "tube")
	mustPut(t, q, "tube", "x")
	j := mustReceive(t, c, 1)
	conf := c.t.config
	conf.MaxAckPending, conf.InactiveThreshold = 7, 10*time.Second
	if _, err := js.UpdateConsumer(ctxOf(t), jobsStream, conf); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"max_ack_pending is 7, must be unlimited", "inactive_threshold is 10s, propeller makes it with 2m0s"} {
		eventually(t, want+" is said", func() bool {
			_, err := q.TubeStats(ctxOf(t), "tube")
			return err == nil && strings.Contains(lines.String(), want)
		})
	}
	mustDone(t, j...)
}
