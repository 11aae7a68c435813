package jetstream

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"propeller/queue"
)

// serverConsumers are the consumers in the server, by name.
func serverConsumers(t testing.TB, q *client) map[string]*jetstream.ConsumerInfo {
	t.Helper()
	s, err := q.link.cn.js.Stream(ctxOf(t), jobsStream)
	if err != nil {
		t.Fatal(err)
	}
	found := make(map[string]*jetstream.ConsumerInfo)
	all := s.ListConsumers(ctxOf(t))
	for c := range all.Info() {
		found[c.Name] = c
	}
	if err := all.Err(); err != nil {
		t.Fatal(err)
	}
	return found
}

// A tube that has become empty has no consumer in an embedded server, and is not remembered
// here, once its last consumer is closed.
func TestConsumerGoesWithItsTubesLastJob(t *testing.T) {
	t.Parallel()
	q := openEmbedded(t)
	for range 2 {
		mustPut(t, q, "tube", "x")
		c, err := q.Consume("tube")
		if err != nil {
			t.Fatal(err)
		}
		second, err := q.Consume("tube")
		if err != nil {
			t.Fatal(err)
		}
		mustDone(t, mustReceive(t, c, 1)...)
		endNow(t, c)
		if n := len(serverConsumers(t, q)); n != 1 {
			t.Errorf("%d consumers while there is one here", n)
		}
		endNow(t, second)
		if n := len(serverConsumers(t, q)); n != 0 {
			t.Errorf("%d consumers", n)
		}
		if q.tube("tube") != nil {
			t.Error("the tube is remembered")
		}
	}
}

// As long as a tube has jobs its consumer stays, with what it knows of them.
func TestConsumerStaysWithItsTubesJobs(t *testing.T) {
	t.Parallel()
	q := openEmbedded(t)
	mustPut(t, q, "tube", "x")
	for try := 1; try <= 3; try++ {
		c, err := q.Consume("tube")
		if err != nil {
			t.Fatal(err)
		}
		j := mustReceive(t, c, 1)[0]
		if st, err := j.Stat(ctxOf(t)); err != nil || st.Attempt != try {
			t.Errorf("%+v, %v, want attempt %d", st, err, try)
		}
		if err := j.Retry(ctxOf(t), 0); err != nil {
			t.Fatal(err)
		}
		endNow(t, c)
	}
}

// Closing a tube's last consumer while another one is opened leaves that one a consumer.
func TestConsumerComesWhileItGoes(t *testing.T) {
	t.Parallel()
	log, lines := newLog()
	q := openTest(t, Options{URL: embeddedIn(t.TempDir()), Log: log})
	last := consumeTest(t, q, "tube")
	for i := range 100 {
		mustPut(t, q, "tube", fmt.Sprint(i))
		mustDone(t, mustReceive(t, last, 1)...)
		closed := make(chan error, 1)
		go func(c *consumer) { closed <- c.Close(ctxOf(t)) }(last)
		last = consumeTest(t, q, "tube")
		mustPut(t, q, "tube", "again")
		mustDone(t, mustReceive(t, last, 1)...)
		if err := <-closed; err != nil {
			t.Fatal(err)
		}
	}
	if text := lines.String(); text != "" {
		t.Errorf("log:\n%s", text)
	}
}

// Consumers that a daemon of an earlier version has left, or one that was killed, are removed
// at the start if their tubes have no jobs. Those of other programs stay.
func TestLeftConsumersAreRemoved(t *testing.T) {
	t.Parallel()
	o := Options{URL: embeddedIn(t.TempDir())}
	q := openTest(t, o)
	js := q.link.cn.js
	<-q.swept // what follows is for the next start
	for _, tube := range []string{"empty", "empty.too", "full"} {
		if _, err := js.CreateConsumer(ctxOf(t), jobsStream, consumerConfig(tube, DefaultEmbeddedAckWait)); err != nil {
			t.Fatal(err)
		}
	}
	other := consumerConfig("others", DefaultEmbeddedAckWait)
	other.Durable = "somebody"
	if _, err := js.CreateConsumer(ctxOf(t), jobsStream, other); err != nil {
		t.Fatal(err)
	}
	mustPut(t, q, "full", "x")
	closeNow(t, q)
	q = openTest(t, o)
	eventually(t, "the empty ones are gone", func() bool {
		has := serverConsumers(t, q)
		return has["empty"] == nil && has["empty=too"] == nil
	})
	if has := serverConsumers(t, q); len(has) != 2 || has["full"] == nil || has["somebody"] == nil {
		t.Errorf("%v", has)
	}
	mustDone(t, mustReceive(t, consumeTest(t, q, "full"), 1)...)
}

// On a server elsewhere those are given a limit instead.
func TestLeftConsumersAreLimited(t *testing.T) {
	t.Parallel()
	ns := nodesTest(t, 1)
	o := ns.options(t)
	q := openReady(t, o)
	old := consumerConfig("old", o.AckWait)
	old.AckWait = DefaultAckWait
	if _, err := q.link.cn.js.CreateConsumer(ctxOf(t), jobsStream, old); err != nil {
		t.Fatal(err)
	}
	log, lines := newLog()
	o.Log = log
	openReady(t, o)
	eventually(t, "the consumer has a limit", func() bool { return serverConsumers(t, q)["old"].Config.InactiveThreshold == inactiveAfter })
	if text := lines.String(); strings.Contains(text, "WARN") {
		t.Errorf("log:\n%s", text)
	}
}

// A server elsewhere removes consumers that nobody uses. One that is paused here is used, and
// what is in the tube of one that was removed is served again, in silence.
func TestUnusedConsumerIsRemoved(t *testing.T) {
	t.Parallel()
	ns := nodesTest(t, 1)
	o := ns.options(t)
	log, lines := newLog()
	o.inactive, o.Log = 2*time.Second, log
	q := openReady(t, o)
	used, unused := consumeTest(t, q, "used"), consumeTest(t, q, "unused")
	for _, c := range []*consumer{used, unused} {
		mustPut(t, q, c.t.name, "x")
		if err := mustReceive(t, c, 1)[0].Retry(ctxOf(t), 0); err != nil {
			t.Fatal(err)
		}
		c.Pause()
	}
	created := serverConsumers(t, q)["used"].Created
	endNow(t, unused)
	eventually(t, "the unused consumer is removed", func() bool { return serverConsumers(t, q)["unused"] == nil })
	time.Sleep(2 * o.inactive)
	if c := serverConsumers(t, q)["used"]; c == nil || !c.Created.Equal(created) {
		t.Error("the paused one is removed, too")
	}
	for name, c := range map[string]*consumer{"used": used, "unused": consumeTest(t, q, "unused")} {
		j := mustReceive(t, c, 1)[0]
		st, err := j.Stat(ctxOf(t))
		if err != nil || (st.Attempt == 1) != (name == "unused") {
			t.Errorf("%s: %+v, %v", name, st, err)
		}
		mustDone(t, j)
	}
	if text := lines.String(); strings.Contains(text, "WARN") {
		t.Errorf("log:\n%s", text)
	}
}

// A daemon that was killed finds its jobs, though its consumer was removed meanwhile.
func TestJobsOfARemovedConsumer(t *testing.T) {
	t.Parallel()
	ns := nodesTest(t, 1)
	o := ns.options(t)
	o.inactive, o.AckWait = time.Second, 2*time.Second
	q := openReady(t, o)
	dies := openTest(t, o)
	awaitReady(t, dies)
	mustPut(t, dies, "tube", "held")
	mustPut(t, dies, "tube", "waits")
	c := consumeTest(t, dies, "tube")
	mustReceive(t, c, 1)
	w, got := watchTest(t, q)
	dies.cancel() // it renews nothing any more
	dies.link.cn.nc.Close()
	eventually(t, "its consumer is removed", func() bool { return serverConsumers(t, q)["tube"] == nil })
	w.Sleep("tube")
	eventually(t, "the tube is woken", func() bool { return len(got.get()) == 1 })
	jobs := mustReceive(t, consumeTest(t, q, "tube"), 2)
	mustDone(t, jobs...)
}

// A server that has a consumer for each of very many tubes at once serves them all.
func TestManyTubesAwake(t *testing.T) {
	t.Parallel()
	q := openEmbedded(t)
	w, got := watchTest(t, q)
	const tubes = 1100
	names := make([]string, tubes)
	jobs := make([]queue.NewJob, tubes)
	for i := range names {
		names[i] = fmt.Sprint("tube", i)
		jobs[i] = queue.NewJob{Tube: names[i], Body: []byte("x")}
	}
	w.Sleep(names...)
	for _, s := range queue.PutAll(ctxOf(t), q, jobs) {
		if s.Err != nil {
			t.Fatal(s.Err)
		}
	}
	if n := len(got.get()); n != tubes {
		t.Fatalf("%d tubes are woken", n)
	}
	all := make([]queue.Consumer, tubes)
	for i, name := range got.get() {
		c, err := q.Consume(name)
		if err != nil {
			t.Fatal(err)
		}
		all[i] = c
	}
	begin := time.Now()
	errs := make(chan error, tubes)
	ctx, cancel := context.WithTimeout(t.Context(), 5*patience)
	defer cancel()
	for _, c := range all {
		go func() {
			jobs, err := c.Receive(ctx, 1)
			if err == nil {
				err = jobs[0].Done(context.Background())
			}
			errs <- err
		}()
	}
	for range all {
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	}
	if n := len(serverConsumers(t, q)); n != tubes {
		t.Errorf("%d consumers", n)
	}
	t.Logf("%d tubes were served in %v", tubes, time.Since(begin))
	err := each(ctx, settlesAtOnce, slices.All(all), func(_ int, c queue.Consumer) error { return c.Close(ctx) })
	if err != nil {
		t.Fatal(err)
	}
	if n := len(serverConsumers(t, q)); n > tubes/10 { // what a busy machine does not answer in time stays
		t.Errorf("%d consumers are left", n)
	}
}

// A consumer that could not be removed in time is removed a little later.
func TestConsumerIsRemovedLater(t *testing.T) {
	t.Parallel()
	q := openEmbedded(t)
	mustPut(t, q, "tube", "x")
	c, err := q.Consume("tube")
	if err != nil {
		t.Fatal(err)
	}
	mustDone(t, mustReceive(t, c, 1)...)
	over, cancel := context.WithCancel(t.Context())
	cancel()
	_ = c.Close(over)
	if n := len(serverConsumers(t, q)); n != 1 {
		t.Fatalf("%d consumers: there was no time to remove it", n)
	}
	for end := time.Now().Add(time.Minute); len(serverConsumers(t, q)) > 0; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it stays")
		}
	}
}
