package jetstream

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"propeller/queue"
)

// helperStill, in the environment, makes the test binary a process whose queue's
// server stands still.
const helperStill = "JETSTREAM_TEST_STILL"

// Whoever opened the queue is told when its server stands still, so that the process
// can end; the next one has all jobs.
func TestServerStandsStill(t *testing.T) {
	t.Parallel()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, exe)
	cmd.Env = append(os.Environ(), helperStill+"="+dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	q := openTest(t, Options{URL: embeddedIn(dir)})
	c := consumeTest(t, q, "t")
	for range 3 { // one that was there, and two whose schedules fired
		mustDone(t, mustReceive(t, c, 1)...)
	}
}

// still is the process. Its disk gets full in the middle of the record that says that
// a schedule is gone.
func still() int {
	log, lines := newLog()
	told := make(chan error, 1)
	q, err := open(Options{URL: embeddedIn(os.Getenv(helperStill)), timeout: time.Second, Log: log, Still: func(err error) { told <- err }})
	if err == nil {
		err = standStill(q)
	}
	if err == nil {
		select {
		case err = <-told:
			if errors.Is(err, errStill) && strings.Contains(lines.String(), "the queue's server hangs") {
				return 0 // without Close: it would never end
			}
		case <-time.After(patience + stillMax*stillLook):
			err = errors.New("nobody was told")
		}
	}
	fmt.Fprintf(os.Stderr, "%v\n%s", err, lines.String())
	return 1
}

// standStill makes the server stand still.
func standStill(q *client) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if _, err := q.Put(ctx, "t", []byte("job"), queue.PutOptions{}); err != nil {
		return err
	}
	block := filepath.Join(os.Getenv(helperStill), "jetstream", "$G", "streams", jobsStream, "msgs", "1.blk")
	before, err := putLater(ctx, q, block)
	if err != nil {
		return err
	}
	after, err := fires(ctx, q, block, before)
	if err != nil {
		return err
	}
	last, err := putLater(ctx, q, block)
	if err != nil {
		return err
	}
	const cut = 10 // of the last record, which says that the schedule is gone
	signal.Ignore(syscall.SIGXFSZ)
	var was syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &was); err != nil {
		return err
	}
	full := was
	full.Cur = uint64(last + after - before - cut)
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &full); err != nil {
		return err
	}
	time.Sleep(3 * time.Second) // it fires
	return syscall.Setrlimit(syscall.RLIMIT_FSIZE, &was)
}

// putLater puts a delayed job and returns the size of the file that it is in.
func putLater(ctx context.Context, q *client, block string) (int64, error) {
	if _, err := q.Put(ctx, "t", []byte("later"), queue.PutOptions{Delay: 1500 * time.Millisecond}); err != nil {
		return 0, err
	}
	return sizeOf(block)
}

func sizeOf(path string) (int64, error) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// fires waits for a delayed job's time and returns the file's size then.
func fires(ctx context.Context, q *client, block string, before int64) (int64, error) {
	for {
		if st, err := q.TubeStats(ctx, "t"); err != nil || st.Delayed == 0 {
			now, serr := sizeOf(block)
			if err == nil && now <= before {
				err = fmt.Errorf("%d bytes after %d", now, before)
			}
			return now, errors.Join(err, serr)
		}
		if err := q.sleep(ctx, minPause); err != nil {
			return 0, err
		}
	}
}
