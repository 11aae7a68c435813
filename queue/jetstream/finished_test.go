package jetstream

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"propeller/queue"
)

// What the server had sent once more before it heard that the job was finished
// comes after that, and is nobody's.
func TestServedOnItsWay(t *testing.T) {
	t.Parallel()
	q := openEmbedded(t)
	c := consumeTest(t, q, "tube")
	mustPut(t, q, "tube", "job")
	j := mustReceive(t, c, 1)[0].(*job)
	mustDone(t, j)
	first := j.address()
	again := strings.Replace(first, ".1.", ".2.", 1) // the second try
	if d, err := parseDelivery(again); err != nil || d.tries != 2 || d.numbered() != j.d.numbered() {
		t.Fatalf("%s: %+v, %v", again, d, err)
	}
	c.incoming(&nats.Msg{Subject: c.inbox + "1", Reply: again, Data: j.Body()})
	mustNone(t, c)
}

// fire has the server store what it makes of a schedule.
func fire(t *testing.T, q *client, tube, id string) {
	t.Helper()
	cn, err := q.link.get(ctxOf(t), untilTried)
	if err != nil {
		t.Fatal(err)
	}
	m := &nats.Msg{Subject: jobSubject(tube), Data: []byte("fired"), Header: nats.Header{
		headerID: {id}, jsScheduler: {schedSubject(tube, id)}, "Nats-Schedule-Next": {"purge"},
	}}
	if _, err := q.store(ctxOf(t), cn, m); err != nil {
		t.Fatal(err)
	}
}

// A schedule that the server fires twice is one job, whatever has become of the
// first copy.
func TestFiredTwice(t *testing.T) {
	t.Parallel()
	q := openEmbedded(t)
	c := consumeTest(t, q, "tube")
	id := newID()
	fire(t, q, "tube", id)
	fire(t, q, "tube", id) // comes while the first is held
	first := mustReceive(t, c, 1)
	mustNone(t, c)
	mustDone(t, first...)
	fire(t, q, "tube", id) // and when it is finished
	ctx, stop := context.WithCancel(ctxOf(t))
	served := make(chan int, 1)
	go func() {
		jobs, _ := c.Receive(ctx, 1)
		served <- len(jobs)
	}()
	eventually(t, "nothing is left", func() bool {
		s, err := q.TubeStats(ctxOf(t), "tube")
		return err == nil && s == (queue.TubeStats{})
	})
	stop()
	if n := <-served; n > 0 {
		t.Error("served twice")
	}
}

// A job that was given back is not a copy of itself, nor is one that was kicked.
func TestFiredOnce(t *testing.T) {
	t.Parallel()
	q := openEmbedded(t)
	c := consumeTest(t, q, "tube")
	id := newID()
	fire(t, q, "tube", id)
	j := mustReceive(t, c, 1)[0]
	if err := j.Retry(ctxOf(t), 0); err != nil {
		t.Fatal(err)
	}
	j = mustReceive(t, c, 1)[0]
	if err := j.Bury(ctxOf(t), nil); err != nil {
		t.Fatal(err)
	}
	if err := q.Kick(ctxOf(t), "tube", j.ID()); err != nil {
		t.Fatal(err)
	}
	mustDone(t, mustReceive(t, c, 1)...)
}

// What was finished is known for a while, whatever came before.
func TestFinished(t *testing.T) {
	t.Parallel()
	var f finished
	const more = 10
	for seq := range uint64(recentMax + more) {
		f.add(numbered{seq, 1})
	}
	for seq, want := range map[uint64]bool{0: false, more - 1: false, more: true, recentMax + more - 1: true, recentMax + more: false} {
		if got := f.has(numbered{seq, 1}); got != want {
			t.Errorf("job %d: %v", seq, got)
		}
	}
	if f.has(numbered{more, 2}) {
		t.Error("a job of another time under the same number")
	}
}

// helperEnd, in the environment, makes the test binary a process that ends while its
// files may not grow: at once, or when it has noticed.
const (
	helperEnd    = "JETSTREAM_TEST_END"
	helperNotice = "JETSTREAM_TEST_NOTICE"
)

// What was finished on a full disk comes again when the daemon ends there, and is told.
func TestEndOnFullDisk(t *testing.T) {
	t.Parallel()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, notice := range []string{"at_once", "noticed"} {
		t.Run(notice, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			dir := t.TempDir()
			cmd := exec.CommandContext(ctx, exe)
			cmd.Env = append(os.Environ(), helperEnd+"="+dir, helperNotice+"="+notice)
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			again := openReady(t, Options{URL: embeddedIn(dir)})
			st, err := again.TubeStats(ctxOf(t), "t")
			if err != nil {
				t.Fatal(err)
			}
			left := st.Ready + st.Delayed + st.Reserved // one that was never finished
			want := fmt.Sprintf("it may be pushed again\" queue=embedded://%s jobs=%d", dir, left-1)
			if left != 2 || !strings.Contains(string(out), want) {
				t.Errorf("%+v, want 2 and %s\n%s", st, want, out)
			}
		})
	}
}

// A server that can write nothing has forgotten the job, and its files have not.
func TestEndAfterFault(t *testing.T) {
	t.Parallel()
	log, lines := newLog()
	q := openTest(t, Options{URL: embeddedIn(t.TempDir()), Log: log})
	mustPut(t, q, "t", "x")
	c := consumeTest(t, q, "t")
	mustDone(t, mustReceive(t, c, 1)...)
	q.embedded.failDisk("it is full")
	closeNow(t, q)
	if !strings.Contains(lines.String(), "it may be pushed again") || !strings.Contains(lines.String(), "jobs=1") {
		t.Errorf("not told:\n%s", lines)
	}
}

// endOnFullDisk is the process.
func endOnFullDisk() int {
	log, lines := newLog()
	q, err := open(Options{URL: embeddedIn(os.Getenv(helperEnd)), timeout: time.Second, Log: log})
	if err == nil {
		err = errors.Join(finishOnFullDisk(q), q.Close())
	}
	fmt.Print(lines.String())
	if err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

func finishOnFullDisk(q *client) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for range 3 {
		if _, err := q.Put(ctx, "t", []byte("x"), queue.PutOptions{}); err != nil {
			return err
		}
	}
	c, err := q.Consume("t")
	if err != nil {
		return err
	}
	var held []queue.Job
	for len(held) < 3 {
		jobs, err := c.Receive(ctx, 3-len(held))
		if err != nil {
			return err
		}
		held = append(held, jobs...)
	}
	// This one is on the disk when it is full.
	if err := errors.Join(held[0].Done(ctx), q.sleep(ctx, 3*syncInterval)); err != nil {
		return err
	}
	if _, err := fillDisk(); err != nil {
		return err
	}
	if err := held[1].Done(ctx); err != nil {
		return err
	}
	for os.Getenv(helperNotice) == "noticed" && q.embedded.trouble() == nil {
		_, _ = q.Put(ctx, "t", make([]byte, 20_000), queue.PutOptions{})
	}
	return nil
}
