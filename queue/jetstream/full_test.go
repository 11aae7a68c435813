package jetstream

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"propeller/queue"
)

// testDisk is a disk of a size of our choice, on which other programs take room.
type testDisk struct{ size atomic.Int64 }

// on makes it the disk of an embedded queue.
func (d *testDisk) on(q *client) {
	r := &q.embedded.capacity
	r.mu.Lock()
	defer r.mu.Unlock()
	r.free = func(string) (int64, error) {
		s, _ := q.embedded.running()
		if s == nil {
			return 0, errNoServer
		}
		return d.size.Load() - int64(s.GlobalAccount().JetStreamUsage().Store), nil
	}
}

const testBody = 10 << 10

// fill puts jobs until the queue is full.
func fill(t *testing.T, q *client, tube string) (n int) {
	t.Helper()
	for ; ; n++ {
		_, err := q.Put(ctxOf(t), tube, make([]byte, testBody), queue.PutOptions{})
		if errors.Is(err, queue.ErrFull) {
			return n
		}
		if err != nil {
			t.Fatalf("job %d: %v", n, err)
		}
	}
}

// openFilling opens a queue with a disk of 64 MiB and fills it.
func openFilling(t *testing.T) (q *client, d *testDisk, jobs int, lines *logLines) {
	t.Helper()
	log, lines := newLog()
	q = openTest(t, Options{URL: embeddedIn(t.TempDir(), "listen", "127.0.0.1:0"), Log: log})
	d = new(testDisk)
	d.size.Store(64 << 20)
	d.on(q)
	return q, d, fill(t, q, "full"), lines
}

// A queue that is full refuses new jobs while there is room for what finishing
// those needs that it has; and when they are done it takes new ones again.
func TestFull(t *testing.T) {
	t.Parallel()
	q, _, jobs, lines := openFilling(t)
	_, err := q.Put(ctxOf(t), "full", []byte("new"), queue.PutOptions{})
	if !errors.Is(err, queue.ErrFull) || !errors.Is(err, queue.ErrUnavailable) || errors.Is(err, queue.ErrUncertain) ||
		!strings.Contains(err.Error(), "the queue's disk is nearly full: ") || !strings.Contains(err.Error(), " it takes no new jobs until ") {
		t.Errorf("put: %v", err)
	}
	for _, s := range q.PutAll(ctxOf(t), []queue.NewJob{{Tube: "full"}, {Tube: "full", PutOptions: queue.PutOptions{Delay: time.Second}}}) {
		if !errors.Is(s.Err, queue.ErrFull) {
			t.Errorf("put of many: %v", s.Err)
		}
	}
	c, records := consumeTest(t, q, "full"), consumeTest(t, q, "records")
	for i, j := range mustReceive(t, c, jobs) {
		for _, delay := range []time.Duration{0, time.Millisecond} {
			o := queue.PutOptions{Delay: delay, Settling: true}
			if _, err := q.Put(ctxOf(t), "records", []byte("record"), o); err != nil {
				t.Fatalf("record %d: %v", i, err)
			}
		}
		if i < 2 {
			if err := j.Bury(ctxOf(t), nil); err != nil {
				t.Fatal(err)
			}
			if i == 1 { // it is no new one
				if err := q.Kick(ctxOf(t), "full", j.ID()); err != nil {
					t.Fatal(err)
				}
			}
			continue
		}
		mustDone(t, j)
	}
	mustDone(t, mustReceive(t, records, 2*jobs)...)
	eventually(t, "it takes jobs again", func() bool {
		_, err := q.Put(ctxOf(t), "full", []byte("new"), queue.PutOptions{})
		if err != nil && !errors.Is(err, queue.ErrFull) {
			t.Fatal(err)
		}
		return err == nil
	})
	mustDone(t, mustReceive(t, c, 2)...) // with the kicked one
	if st, err := q.TubeStats(ctxOf(t), "full"); err != nil || st != (queue.TubeStats{Buried: 1}) {
		t.Errorf("left: %+v, %v", st, err)
	}
	for _, line := range []string{`level=WARN msg="the queue is full"`, `level=INFO msg="the queue takes jobs again"`} {
		if n := strings.Count(lines.String(), line); n != 1 {
			t.Errorf("%d times in the log: %s", n, line)
		}
	}
}

// The same goes for programs that publish jobs themselves.
func TestFullForOthers(t *testing.T) {
	t.Parallel()
	q, d, jobs, _ := openFilling(t)
	nc, err := nats.Connect(q.embedded.door.l.Addr().String(), nats.Token(q.embedded.token))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	refusal := func(m *nats.Msg) string {
		t.Helper()
		a, err := nc.RequestMsgWithContext(ctxOf(t), m)
		if err != nil {
			return err.Error()
		}
		var ack struct {
			Stream string    `json:"stream"`
			Seq    uint64    `json:"seq"`
			Error  *apiError `json:"error"`
		}
		if err := json.Unmarshal(a.Data, &ack); err != nil || ack.Stream != jobsStream {
			t.Fatalf("%s: %v", a.Data, err)
		}
		if ack.Error != nil {
			return ack.Error.Error()
		}
		return ""
	}
	_, later := putMsg("full", []byte("later"), queue.PutOptions{Delay: time.Minute}, time.Now())
	for _, m := range []*nats.Msg{{Subject: jobSubject("full"), Data: []byte("now")}, later} {
		if got := refusal(m); !strings.HasPrefix(got, "the queue's disk is nearly full: ") {
			t.Errorf("%s: %q", m.Subject, got)
		}
	}
	if err := nc.Publish(jobSubject("full"), []byte("nobody waits")); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	if st, err := q.TubeStats(ctxOf(t), "full"); err != nil || st != (queue.TubeStats{Ready: jobs}) {
		t.Errorf("%+v, %v, want the %d that were there", st, err, jobs)
	}
	d.size.Store(1 << 30) // an operator makes room
	eventually(t, "it takes jobs again", func() bool { return refusal(&nats.Msg{Subject: jobSubject("full")}) == "" })
}

// A delayed job whose time comes while the queue is full is served.
func TestFullWithDelayed(t *testing.T) {
	t.Parallel()
	q := openEmbedded(t)
	if _, err := q.Put(ctxOf(t), "later", []byte("x"), queue.PutOptions{Delay: 2 * time.Second}); err != nil {
		t.Fatal(err)
	}
	d := new(testDisk)
	d.size.Store(1 << 10)
	d.on(q)
	fill(t, q, "full")
	mustDone(t, mustReceive(t, consumeTest(t, q, "later"), 1)...)
}

// Nothing at all is stored when the disk is about to be full, and an embedded
// queue that was ended while it was full is full again, and serves what it has.
func TestFullToTheEnd(t *testing.T) {
	t.Parallel()
	q, d, _, _ := openFilling(t)
	d.size.Store(int64(q.embedded.server.GlobalAccount().JetStreamUsage().Store) + trialSize)
	eventually(t, "not even records are taken", func() bool {
		_, err := q.Put(ctxOf(t), "records", []byte("record"), queue.PutOptions{Settling: true})
		return errors.Is(err, queue.ErrFull) && strings.Contains(err.Error(), "no jobs or records")
	})
	dir := q.opts.Dir
	closeNow(t, q)
	q = openTest(t, Options{URL: embeddedIn(dir)})
	d.on(q)
	fill(t, q, "other")
	mustDone(t, mustReceive(t, consumeTest(t, q, "full"), 10)...)
}

// What does not work on a disk that others have filled is put down to that.
func TestReasonIsTheDisk(t *testing.T) {
	t.Parallel()
	q := openEmbedded(t)
	d := new(testDisk)
	d.size.Store(int64(q.embedded.server.GlobalAccount().JetStreamUsage().Store) + 1<<10)
	d.on(q)
	eventually(t, "it is full", func() bool { return q.embedded.capacity.none.Load() })
	q.link.set(unavailable(errNoAnswer))
	_, _, _, err := q.link.ready()
	if want := "jetstream: the queue's disk is full: no answer in time: "; err == nil || !strings.HasPrefix(err.Error(), want) || !errors.Is(err, queue.ErrUnavailable) {
		t.Errorf("%v, want %s", err, want)
	}
	q.link.look()
	awaitReady(t, q)

	// A server that has given up says less than the disk does.
	if err := os.MkdirAll(filepath.Join(q.opts.Dir, trialFile, "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := q.embedded.server.DisableJetStream(); err != nil {
		t.Fatal(err)
	}
	q.embedded.examine()
	if err := q.embedded.trouble(); err == nil || !strings.Contains(err.Error(), "takes nothing: open ") {
		t.Errorf("%v", err)
	}
}

// Full is what is full, and a little room does not make it take jobs again.
func TestLook(t *testing.T) {
	t.Parallel()
	const mb = 1 << 20
	for _, tt := range []struct {
		used, free        int64 // MiB
		wasFull           bool
		wantFull, wantEnd bool
	}{
		{0, 100, false, false, false},
		{74, 26, false, false, false},
		{75, 25, false, true, false},
		{74, 26, true, true, false},
		{71, 29, true, true, false},
		{70, 30, true, false, false},
		{10, 3, false, true, true}, // others have filled the disk
		{0, 3, false, false, false},
	} {
		e := fullness(tt.used*mb, tt.free*mb, tt.wasFull, false)
		if (e != nil) != tt.wantFull || e != nil && e.closed != tt.wantEnd {
			t.Errorf("%+v: %+v", tt, e)
		}
	}
	if e := fullness(90*mb, 5*mb, true, true); !e.closed {
		t.Error("opened for records again at once")
	}
}
