package jetstream

import (
	"errors"
	"slices"
	"strconv"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"propeller/queue"
)

// makeAnew deletes a stream and has the link make it again.
func makeAnew(t *testing.T, q *client, name string) {
	t.Helper()
	if err := q.link.cn.js.DeleteStream(ctxOf(t), name); err != nil {
		t.Fatal(err)
	}
	q.link.suspect(errNoResponders)
	awaitReady(t, q)
}

// stream returns a stream as it is.
func stream(t *testing.T, q *client, name string) jetstream.Stream {
	t.Helper()
	s, err := q.link.cn.js.Stream(ctxOf(t), name)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// buryOne puts a job and buries it with another body.
func buryOne(t *testing.T, q *client, tube, body, buried string) (id string) {
	t.Helper()
	id = mustPut(t, q, tube, body)
	c := consumeTest(t, q, tube)
	j := mustReceive(t, c, 1)[0]
	if string(j.Body()) != body || j.ID() != id {
		t.Fatalf("received %s %q, want %s %q", j.ID(), j.Body(), id, body)
	}
	if err := j.Bury(ctxOf(t), []byte(buried)); err != nil {
		t.Fatal(err)
	}
	return id
}

func mustPeek(t *testing.T, q *client, tube, id, want string) {
	t.Helper()
	if b, err := q.Peek(ctxOf(t), tube, id); err != nil || string(b.Body) != want {
		t.Errorf("%s: %q, %v; want %q", id, b.Body, err, want)
	}
}

// When the stream of jobs is made anew, its numbers begin again. What was buried
// before is not overwritten.
func TestBuriedIsNotOverwritten(t *testing.T) {
	t.Parallel()
	q := openEmbedded(t)
	first := buryOne(t, q, "tube", "a", "a buried")
	makeAnew(t, q, jobsStream)
	second := buryOne(t, q, "tube", "b", "b buried")
	if first == second {
		t.Fatalf("both are %s", first)
	}
	mustPeek(t, q, "tube", first, "a buried")
	mustPeek(t, q, "tube", second, "b buried")
}

// The same when another daemon has made it anew and this one has noticed
// nothing but that its consumer was gone.
func TestBirthIsSeenByConsumer(t *testing.T) {
	t.Parallel()
	q := openEmbedded(t)
	first := buryOne(t, q, "tube", "a", "a buried")
	c := consumeTest(t, q, "tube")
	got := make(chan []queue.Job, 1)
	go func() {
		jobs, _ := c.Receive(ctxOf(t), 1)
		got <- jobs
	}()
	eventually(t, "it asks", c.asks)
	was := q.birth.Load()
	js := q.link.cn.js
	if err := js.DeleteStream(ctxOf(t), jobsStream); err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(ctxOf(t), jobsConfig(1)); err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(ctxOf(t), jobSubject("tube"), []byte("b")); err != nil {
		t.Fatal(err)
	}
	jobs := <-got
	if len(jobs) != 1 || q.birth.Load() == was {
		t.Fatalf("%d jobs, birth %d, was %d", len(jobs), q.birth.Load(), was)
	}
	if err := jobs[0].Bury(ctxOf(t), []byte("b buried")); err != nil {
		t.Fatal(err)
	}
	mustPeek(t, q, "tube", first, "a buried")
	mustPeek(t, q, "tube", jobs[0].ID(), "b buried")
}

// When the stream of buried jobs is made anew, its numbers begin again. A kick
// is not taken for an earlier one.
func TestKickIsNotTakenForAnother(t *testing.T) {
	t.Parallel()
	q := openEmbedded(t)
	for _, body := range []string{"a", "b"} {
		id := buryOne(t, q, "tube", body, body+" buried")
		if err := q.Kick(ctxOf(t), "tube", id); err != nil {
			t.Fatal(err)
		}
		j := mustReceive(t, consumeTest(t, q, "tube"), 1)[0]
		if string(j.Body()) != body+" buried" || j.ID() != id {
			t.Fatalf("%s %q", j.ID(), j.Body())
		}
		mustDone(t, j)
		makeAnew(t, q, buriedStream)
	}
}

// Not even when somebody else has used its Nats-Msg-Id for another job.
func TestKickLooksAtDuplicate(t *testing.T) {
	t.Parallel()
	q := openEmbedded(t)
	id := buryOne(t, q, "tube", "a", "a buried")
	m, err := stream(t, q, buriedStream).GetLastMsgForSubject(ctxOf(t), buriedSubject("tube", id))
	if err != nil {
		t.Fatal(err)
	}
	forged := &nats.Msg{Subject: jobSubject("tube"), Data: []byte("forged"), Header: nats.Header{jsMsgID: {onceID("kick", m)}}}
	if _, err := q.link.cn.js.PublishMsg(ctxOf(t), forged); err != nil {
		t.Fatal(err)
	}
	if err := q.Kick(ctxOf(t), "tube", id); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, j := range mustReceive(t, consumeTest(t, q, "tube"), 2) {
		got = append(got, string(j.Body()))
	}
	slices.Sort(got)
	if !slices.Equal(got, []string{"a buried", "forged"}) {
		t.Fatalf("%q", got)
	}
}

// A kick whose answer was lost, repeated when the job has been served, does not
// put it again.
func TestKickRepeated(t *testing.T) {
	t.Parallel()
	q := openEmbedded(t)
	id := buryOne(t, q, "tube", "a", "a buried")
	s := stream(t, q, buriedStream)
	m, err := s.GetLastMsgForSubject(ctxOf(t), buriedSubject("tube", id))
	if err != nil {
		t.Fatal(err)
	}
	kicked := &nats.Msg{Subject: jobSubject("tube"), Data: m.Data, Header: nats.Header{headerID: {id}, jsMsgID: {onceID("kick", m)}}}
	if _, err := q.link.cn.js.PublishMsg(ctxOf(t), kicked); err != nil {
		t.Fatal(err)
	}
	c := consumeTest(t, q, "tube")
	mustDone(t, mustReceive(t, c, 1)...)
	if err := q.Kick(ctxOf(t), "tube", id); err != nil {
		t.Fatal(err)
	}
	mustNone(t, c)
	if _, err := q.Peek(ctxOf(t), "tube", id); !errors.Is(err, queue.ErrNotFound) {
		t.Fatalf("%v, want ErrNotFound", err)
	}
}

// Ids from before the stream's birth was part of them stay good.
func TestBareIDs(t *testing.T) {
	t.Parallel()
	q := openEmbedded(t)
	const old = "17"
	m := &nats.Msg{Subject: buriedSubject("tube", old), Data: []byte("old"), Header: nats.Header{headerID: {old}, "Propeller-Reason": {"why"}}}
	if _, err := q.link.cn.js.PublishMsg(ctxOf(t), m); err != nil {
		t.Fatal(err)
	}
	mustPeek(t, q, "tube", old, "old")
	if err := q.Kick(ctxOf(t), "tube", old); err != nil {
		t.Fatal(err)
	}
	j := mustReceive(t, consumeTest(t, q, "tube"), 1)[0]
	if j.ID() != old {
		t.Fatalf("id %s", j.ID())
	}
	if err := j.Bury(ctxOf(t), []byte("old again")); err != nil {
		t.Fatal(err)
	}
	mustPeek(t, q, "tube", j.ID(), "old again")
	if err := q.Delete(ctxOf(t), "tube", j.ID()); err != nil {
		t.Fatal(err)
	}
	// One whose producer was told a bare number, and that is buried since.
	id := buryOne(t, q, "tube", "new", "new buried")
	seq := stream(t, q, jobsStream).CachedInfo().State.LastSeq
	if want := seqID(q.birth.Load(), seq); id != want {
		t.Fatalf("id %s, want %s", id, want)
	}
	bare := strconv.FormatUint(seq, 10)
	mustPeek(t, q, "tube", bare, "new buried")
	if err := q.Kick(ctxOf(t), "tube", bare); err != nil {
		t.Fatal(err)
	}
	if j := mustReceive(t, consumeTest(t, q, "tube"), 1)[0]; j.ID() != id {
		t.Fatalf("id %s, want %s", j.ID(), id)
	}
}
