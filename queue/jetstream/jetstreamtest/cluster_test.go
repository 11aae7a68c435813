package jetstreamtest

import (
	"errors"
	"os"
	"testing"
	"time"

	"propeller/queue"
	"propeller/queue/jetstream"
	"propeller/queue/queueurl"
)

func TestMain(m *testing.M) {
	if Main() {
		return
	}
	os.Exit(m.Run())
}

// A job outlives the server that led its stream, and the others serve it.
func TestClusterIsOne(t *testing.T) {
	t.Parallel()
	c := Start(t, 3)
	u, err := queueurl.Parse(c.URL(), queueurl.Files{})
	if err != nil {
		t.Fatal(err)
	}
	q, err := jetstream.Open(jetstream.Options{URL: u})
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	put(t, q)
	leader := c.Leader("PROPELLER_JOBS")
	c.Kill(leader)
	consumer, err := q.Consume("tube")
	if err != nil {
		t.Fatal(err)
	}
	defer consumer.Close(t.Context())
	jobs, err := consumer.Receive(t.Context(), 1)
	if err != nil || string(jobs[0].Body()) != "x" {
		t.Fatalf("%v, %v", jobs, err)
	}
	if now := c.Leader("PROPELLER_JOBS"); now == leader {
		t.Errorf("server %d leads though it was killed", now)
	}
	c.Restart(leader)
	if err := jobs[0].Done(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestSingleServer(t *testing.T) {
	t.Parallel()
	c := Start(t, 1)
	u, err := queueurl.Parse(c.URL(), queueurl.Files{})
	if err != nil {
		t.Fatal(err)
	}
	q, err := jetstream.Open(jetstream.Options{URL: u})
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	put(t, q)
}

// put puts a job, as soon as the queue is there: on a busy machine the streams
// may take longer than one request.
func put(t *testing.T, q queue.Queue) {
	t.Helper()
	for end := time.Now().Add(startTimeout); ; time.Sleep(10 * time.Millisecond) {
		_, err := q.Put(t.Context(), "tube", []byte("x"), queue.PutOptions{})
		if err == nil {
			return
		}
		if !errors.Is(err, queue.ErrUnavailable) || time.Now().After(end) {
			t.Fatal(err)
		}
	}
}
