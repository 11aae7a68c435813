package jetstream

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"propeller/queue"
)

// The server writes through to the disk every two minutes unless told
// otherwise.
func TestSyncInterval(t *testing.T) {
	t.Parallel()
	q := openEmbedded(t)
	if c := q.embedded.server.JetStreamConfig(); c.SyncInterval != time.Second || c.SyncAlways {
		t.Errorf("every %v, always %v", c.SyncInterval, c.SyncAlways)
	}
	q = openTest(t, Options{URL: embeddedIn(t.TempDir(), "fsync", "always")})
	if c := q.embedded.server.JetStreamConfig(); !c.SyncAlways {
		t.Error("fsync=always is not passed on")
	}
	mustPut(t, q, "sync", "x")
}

// Jobs that wait for a retry count as unacknowledged. With the server's default
// limit of 1000 of those, the rest of the tube would wait too.
func TestManyRetriesDoNotStopTheTube(t *testing.T) {
	t.Parallel()
	q := openEmbedded(t)
	c := consumeTest(t, q, "retries")
	const n = 1500
	for range n {
		mustPut(t, q, "retries", "later")
	}
	for _, j := range mustReceive(t, c, n) {
		if err := j.Retry(ctxOf(t), time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	mustPut(t, q, "retries", "now")
	j := mustReceive(t, c, 1)[0]
	if string(j.Body()) != "now" {
		t.Fatalf("received %q", j.Body())
	}
	mustDone(t, j)
	st, err := q.TubeStats(ctxOf(t), "retries")
	if want := (queue.TubeStats{Delayed: n}); err != nil || st != want {
		t.Fatalf("%+v, %v; want %+v", st, err, want)
	}
}

// Deep pulls stalled under a storm of jobs given back (nats.go#1622).
func TestStormOfRetries(t *testing.T) {
	t.Parallel()
	q := openEmbedded(t)
	c := consumeTest(t, q, "storm")
	const jobs, tries = 500, 4
	for range jobs {
		mustPut(t, q, "storm", "x")
	}
	for left := jobs; left > 0; {
		got, err := c.Receive(ctxOf(t), 1000)
		if err != nil {
			t.Fatalf("%d left: %v", left, err)
		}
		for _, j := range got {
			st, err := j.Stat(ctxOf(t))
			if err != nil {
				t.Fatal(err)
			}
			if st.Attempt < tries {
				err = j.Retry(ctxOf(t), 0)
			} else {
				left--
				err = j.Done(ctxOf(t))
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	mustNone(t, c)
}

// A job that reached MaxDeliver would stay in the stream, served to nobody.
func TestTriesHaveNoLimit(t *testing.T) {
	t.Parallel()
	q := openEmbedded(t)
	c := consumeTest(t, q, "tries")
	mustPut(t, q, "tries", "x")
	for range 50 {
		if err := mustReceive(t, c, 1)[0].Retry(ctxOf(t), 0); err != nil {
			t.Fatal(err)
		}
	}
	mustDone(t, mustReceive(t, c, 1)...)
}

// A schedule lives on its subject: jobs that are due at the same time must not
// replace each other. And the time must keep its fraction.
func TestSchedulesAreApart(t *testing.T) {
	t.Parallel()
	now := time.Date(2030, 1, 2, 3, 4, 5, 123456789, time.UTC)
	id, m := putMsg("a.b", nil, queue.PutOptions{Delay: time.Second}, now)
	if got := m.Header.Get(jsSchedule); got != "@at 2030-01-02T03:04:06.123456789Z" {
		t.Errorf("schedule %q", got)
	}
	if err := checkID(id); err != nil || m.Subject != "propeller.sched.a.b."+id {
		t.Errorf("id %q, subject %q: %v", id, m.Subject, err)
	}

	q := openEmbedded(t)
	c := consumeTest(t, q, "sched")
	ids := make(map[string]bool)
	for i := range 20 {
		id, err := q.Put(ctxOf(t), "sched", fmt.Append(nil, i), queue.PutOptions{Delay: 50 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		ids[id] = true
	}
	for _, j := range mustReceive(t, c, len(ids)) {
		if !ids[j.ID()] {
			t.Errorf("job %s was not put, or came twice", j.ID())
		}
		delete(ids, j.ID())
		st, err := j.Stat(ctxOf(t))
		if err != nil || st.Age < 50*time.Millisecond {
			t.Errorf("age %v since it was put, %v", st.Age, err)
		}
		mustDone(t, j)
	}
}

// Streams that are there are not altered: what differs is said.
func TestStreamsAreNotAltered(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		change func(c *jetstream.StreamConfig)
		want   string
	}{
		"retention": {func(c *jetstream.StreamConfig) { c.Retention = jetstream.LimitsPolicy }, "retention is Limits, must be WorkQueue"},
		"limit":     {func(c *jetstream.StreamConfig) { c.MaxMsgs = 500 }, "max_msgs is 500, must be unlimited"},
		"schedules": {func(c *jetstream.StreamConfig) { c.AllowMsgSchedules = false }, "allow_msg_schedules is false, must be true"},
		"transform": {func(c *jetstream.StreamConfig) {
			c.SubjectTransform = &jetstream.SubjectTransformConfig{Source: "propeller.job.a", Destination: "propeller.job.b"}
		}, `subject_transform is {"src":"propeller.job.a","dest":"propeller.job.b"}, must be none`},
		"subjects": {func(c *jetstream.StreamConfig) { c.Subjects = c.Subjects[:1] }, "subjects is propeller.job.>, must be"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := cluster.options(t)
			js := rawClient(t, o)
			c := jobsConfig(3)
			tt.change(&c)
			if _, err := js.CreateStream(ctxOf(t), c); err != nil {
				t.Fatal(err)
			}
			q := openTest(t, o)
			eventually(t, "a put says "+tt.want, func() bool {
				_, err := q.Put(ctxOf(t), "x", nil, queue.PutOptions{})
				return errors.Is(err, queue.ErrUnavailable) && strings.Contains(err.Error(), tt.want)
			})
			// Put right by an operator, it works.
			if err := js.DeleteStream(ctxOf(t), jobsStream); err != nil {
				t.Fatal(err)
			}
			eventually(t, "a put is accepted", func() bool {
				_, err := q.Put(ctxOf(t), "x", nil, queue.PutOptions{})
				return err == nil
			})
		})
	}
}

// rawClient is another program in the same account.
func rawClient(t *testing.T, o Options) jetstream.JetStream {
	t.Helper()
	q := openRaw(t, o)
	js, err := jetstream.New(q)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

// The same for a tube's consumer.
func TestConsumerIsNotAltered(t *testing.T) {
	t.Parallel()
	q := openEmbedded(t)
	other := consumerConfig("tube", 7*time.Second)
	if _, err := q.link.cn.js.CreateConsumer(ctxOf(t), jobsStream, other); err != nil {
		t.Fatal(err)
	}
	c := consumeTest(t, q, "tube")
	go func() { _, _ = c.Receive(ctxOf(t), 1) }() // ends with c
	eventually(t, "the difference is said", func() bool {
		err := c.Err()
		return errors.Is(err, queue.ErrUnavailable) && strings.Contains(err.Error(), "ack_wait is 7s, must be 30s")
	})
}

// A stream on one server only, when three copies were asked for.
func TestReplicasNeedServers(t *testing.T) {
	t.Parallel()
	ns := nodesTest(t, 1)
	o := ns.options(t).with("replicas", "3")
	q := openTest(t, o)
	eventually(t, "a put says what to do", func() bool {
		_, err := q.Put(ctxOf(t), "x", nil, queue.PutOptions{})
		return err != nil && strings.Contains(err.Error(), "?replicas=1")
	})
}

func TestCheckVersion(t *testing.T) {
	t.Parallel()
	for v, ok := range map[string]bool{
		"2.12.0": true, "2.12.0-RC.1": true, "2.15.2": true, "3.0.0": true,
		"2.11.9": false, "1.99.0": false, "": false, "x": false,
	} {
		if err := checkVersion(v); (err == nil) != ok {
			t.Errorf("%q: %v", v, err)
		}
	}
}

// Somebody deletes everything while we work: what is missing is made again.
func TestStreamsDeleted(t *testing.T) {
	t.Parallel()
	q := openEmbedded(t)
	c := consumeTest(t, q, "gone")
	got := make(chan queue.Job)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		defer close(got)
		for {
			jobs, err := c.Receive(ctx, 10)
			if err != nil {
				return
			}
			for _, j := range jobs {
				got <- j
			}
		}
	}()
	put := func(body string) {
		eventually(t, "a put is accepted", func() bool {
			_, err := q.Put(ctxOf(t), "gone", []byte(body), queue.PutOptions{})
			return err == nil
		})
	}
	js := q.link.cn.js
	for i, harm := range []func() error{
		func() error { return nil },
		func() error { return js.DeleteConsumer(ctxOf(t), jobsStream, c.t.config.Durable) },
		func() error { return js.DeleteStream(ctxOf(t), jobsStream) },
	} {
		if err := harm(); err != nil {
			t.Fatal(err)
		}
		put(fmt.Sprint(i))
		j := <-got
		for ; string(j.Body()) != fmt.Sprint(i); j = <-got {
			_ = j.Done(ctxOf(t)) // the consumer was gone before it heard that this was finished
		}
		mustDone(t, j)
	}
	cancel()
	for range got {
	}
}

// A work queue with limits drops waiting jobs in silence. Ours has none: the
// limit of the account refuses, and jobs that are done make room.
func TestStorageFull(t *testing.T) {
	t.Parallel()
	ns := nodesTest(t, 1)
	o := ns.options(t)
	o.User, o.Password = "small", "small"
	q := openReady(t, o)
	accepted, err := 0, error(nil)
	body := make([]byte, 100<<10)
	for accepted < 100 {
		if _, err = q.Put(ctxOf(t), "full", body, queue.PutOptions{}); err != nil {
			break
		}
		accepted++
	}
	if !errors.Is(err, queue.ErrFull) || errors.Is(err, queue.ErrRejected) || !strings.Contains(err.Error(), "raise its max_file") {
		t.Fatalf("after %d jobs: %v, want ErrFull", accepted, err)
	}
	c := consumeTest(t, q, "full")
	mustDone(t, mustReceive(t, c, accepted)...)
	mustPut(t, q, "full", "again")
	mustDone(t, mustReceive(t, c, 1)...)
}
