package jetstream

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"propeller/queue"
	"propeller/queue/lease"
)

// helperDisk, in the environment, makes the test binary a process whose files
// may not grow for a while.
const helperDisk = "JETSTREAM_TEST_DISK"

// A disk that takes nothing for a while stops the embedded queue for so long, and
// no longer. The process that sees that is another one: a limit on the size of
// files, which fails writes as a full disk does, is a process's.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, exe)
	cmd.Env = append(os.Environ(), helperDisk+"="+t.TempDir())
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// disk is the process.
func disk() int {
	log, lines := newLog()
	const ackWait = 4 * time.Second
	q, err := open(Options{URL: embeddedIn(os.Getenv(helperDisk)), timeout: time.Second, AckWait: ackWait, Log: log})
	if err == nil {
		err = errors.Join(fullDisk(q, ackWait), q.Close())
	}
	if err == nil && strings.Contains(lines.String(), "was created again") {
		err = errors.New("a consumer that was there all the time is said to have been missing")
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "%v\n%s", err, lines.String())
		return 1
	}
	return 0
}

// fullDisk says what is not as it should be while the disk takes nothing, and
// after that.
func fullDisk(q *client, ackWait time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for range 5 {
		if _, err := q.Put(ctx, "t", []byte("before"), queue.PutOptions{}); err != nil {
			return err
		}
	}
	c, err := q.Consume("t")
	if err != nil {
		return err
	}
	var held []queue.Job
	for len(held) < 5 {
		jobs, err := c.Receive(ctx, 5-len(held))
		if err != nil {
			return err
		}
		held = append(held, jobs...)
	}
	idle, err := q.Consume("idle")
	if err != nil {
		return err
	}
	waiting, stop := context.WithCancel(ctx)
	defer stop()
	go func() { _, _ = idle.Receive(waiting, 1) }()
	for !idle.(*consumer).asks() {
		if err := q.sleep(ctx, minPause); err != nil {
			return err
		}
	}
	room, err := fillDisk()
	if err != nil {
		return err
	}
	// The server hears of this one, and has nowhere to write it.
	if err := held[0].Done(ctx); err != nil {
		return fmt.Errorf("done: %w", err)
	}
	for range 3 {
		_, err = q.Put(ctx, "t", make([]byte, 20_000), queue.PutOptions{})
		if !errors.Is(err, queue.ErrUnavailable) || !strings.Contains(err.Error(), "the queue's disk takes nothing: ") ||
			!strings.Contains(err.Error(), syscall.EFBIG.Error()) {
			return fmt.Errorf("put on a full disk: %w", err)
		}
	}
	if err := c.Err(); err == nil || !strings.Contains(err.Error(), "takes nothing") {
		return fmt.Errorf("the consumer's error on a full disk: %v", err)
	}
	began := time.Now()
	if err := held[3].Bury(ctx, []byte("buried")); !errors.Is(err, queue.ErrUnavailable) || time.Since(began) > time.Second {
		return fmt.Errorf("bury on a full disk, after %v: %w", time.Since(began), err)
	}
	if err := finishOutside(ctx, q, held[4].(*job)); err != nil {
		return fmt.Errorf("done by another program: %w", err)
	}
	finished := make(chan error, 1)
	go func() { finished <- held[1].Done(ctx) }()
	time.Sleep(ackWait + ackWait/4) // longer than a reservation lasts without a sign of life
	if err := room(); err != nil {
		return err
	}
	if err := finishedGone(ctx, q, held[0].(*job)); err != nil {
		return err
	}
	if err := diskAgain(ctx, q, c, held[2], held[3], finished); err != nil {
		return err
	}
	if err := leftOnDisk(ctx, q, held[4].ID()); err != nil {
		return fmt.Errorf("a job left by its consumer: %w", err)
	}
	// Long before the first heartbeat of its new request for jobs.
	for end := time.Now().Add(embeddedHeartbeat / 2); idle.Err() != nil; {
		if time.Now().After(end) || q.sleep(ctx, minPause) != nil {
			return fmt.Errorf("the idle consumer's error with room again: %w", idle.Err())
		}
	}
	stop()
	return idle.Close(ctx)
}

// finishOutside has a job finished by another program, to whose word the server
// answers as ever.
func finishOutside(ctx context.Context, q *client, j *job) error {
	q.link.mu.Lock()
	nc := q.link.cn.nc
	q.link.mu.Unlock()
	_, err := nc.RequestWithContext(ctx, j.address(), wordAck)
	j.c.t.mu.Lock()
	j.c.t.jobs.End(&j.Lease, lease.Lost)
	j.c.t.mu.Unlock()
	return err
}

// finishedGone waits for what was finished on the full disk to be gone, before
// lookForOrphans would have found it: the next process would run it again.
func finishedGone(ctx context.Context, q *client, j *job) error {
	cn, err := q.link.get(ctx, untilReady)
	if err != nil {
		return err
	}
	s, err := cn.js.Stream(ctx, jobsStream)
	if err != nil {
		return err
	}
	for end := time.Now().Add(orphansSettle - time.Second); ; {
		_, err := s.GetMsg(ctx, j.d.seq)
		switch {
		case errors.Is(err, jetstream.ErrMsgNotFound):
			return nil
		case err != nil:
			return err
		case time.Now().After(end):
			return errors.New("a job that was finished on a full disk stays in the stream")
		}
		if err := q.sleep(ctx, minPause); err != nil {
			return err
		}
	}
}

// leftOnDisk waits for the job that another program finished while the server
// removed nothing. Those that were finished here do not come again, and none of
// them stays.
func leftOnDisk(ctx context.Context, q *client, id string) error {
	ctx, cancel := context.WithTimeout(ctx, patience/2)
	defer cancel()
	c, err := q.Consume("t")
	if err != nil {
		return err
	}
	jobs, err := c.Receive(ctx, 1)
	if err != nil {
		return err
	}
	if got := jobs[0].ID(); got != id {
		return fmt.Errorf("served %q, want %q", got, id)
	}
	if err := errors.Join(jobs[0].Done(ctx), c.Close(ctx)); err != nil {
		return err
	}
	for {
		cn, _, _, err := q.link.ready()
		if err != nil {
			return err
		}
		n, err := q.countOne(ctx, cn, jobSubject("t"))
		if n == 0 || err != nil {
			return err
		}
		if q.sleep(ctx, minPause) != nil {
			return fmt.Errorf("%d stay", n)
		}
	}
}

// asks says whether the consumer's request for jobs waits in the server.
func (c *consumer) asks() bool {
	c.t.mu.Lock()
	defer c.t.mu.Unlock()
	return c.pull.open
}

// diskAgain looks at what there is when the disk takes something again: nothing
// was lost, and nothing that was held is served to anybody else.
func diskAgain(ctx context.Context, q *client, c queue.Consumer, held, refused queue.Job, finished <-chan error) error {
	for {
		_, err := q.Put(ctx, "t", []byte("after"), queue.PutOptions{})
		if err == nil {
			break
		}
		if !errors.Is(err, queue.ErrUnavailable) || q.sleep(ctx, minPause) != nil {
			return fmt.Errorf("there is room, and still: %w", err)
		}
	}
	if err := errors.Join(<-finished, held.Done(ctx)); err != nil {
		return fmt.Errorf("done of what was held: %w", err)
	}
	if err := refused.Bury(ctx, []byte("buried")); err != nil {
		return fmt.Errorf("bury with room again: %w", err)
	}
	for last := false; !last; {
		jobs, err := c.Receive(ctx, 1)
		if err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		switch body := jobs[0].Body(); {
		case string(body) == "after":
			last = true
		case body[0] != 0: // a put that failed may have been stored
			return fmt.Errorf("served again: %q", body)
		}
		if err := jobs[0].Done(ctx); err != nil {
			return err
		}
	}
	if err := c.Close(ctx); err != nil {
		return err
	}
	st, err := q.TubeStats(ctx, "t")
	if err == nil && st != (queue.TubeStats{Buried: 1}) {
		err = fmt.Errorf("left in the tube: %+v", st)
	}
	return err
}

// fillDisk makes all writes to files fail until room is called.
func fillDisk() (room func() error, err error) {
	signal.Ignore(syscall.SIGXFSZ)
	var was syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &was); err != nil {
		return nil, err
	}
	full := was
	full.Cur = 0
	return func() error { return syscall.Setrlimit(syscall.RLIMIT_FSIZE, &was) }, syscall.Setrlimit(syscall.RLIMIT_FSIZE, &full)
}
