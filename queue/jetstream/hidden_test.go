package jetstream

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/nats-io/nats.go"

	"propeller/queue"
)

// helperBegin, in the environment, makes the test binary a process that opens a queue
// while its files may not grow.
const helperBegin = "JETSTREAM_TEST_BEGIN"

// A queue for other programs, too, opens on a full disk, and goes on when there is room.
func TestBeginOnFullDisk(t *testing.T) {
	t.Parallel()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, exe)
	cmd.Env = append(os.Environ(), helperBegin+"="+t.TempDir())
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// beginOnFullDisk is the process.
func beginOnFullDisk() int {
	log, lines := newLog()
	o := Options{URL: embeddedIn(os.Getenv(helperBegin), "listen", "127.0.0.1:0"), Log: log}
	if err := beginTwice(o); err != nil {
		fmt.Println(err, lines)
		return 1
	}
	return 0
}

func beginTwice(o Options) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	q, err := open(o)
	if err != nil {
		return err
	}
	_, err = q.Put(ctx, "t", []byte("x"), queue.PutOptions{})
	if err = errors.Join(err, q.Close(), os.Remove(filepath.Join(o.Dir, tokenFile))); err != nil {
		return err
	}
	room, err := fillDisk()
	if err != nil {
		return err
	}
	if q, err = open(o); err != nil {
		return fmt.Errorf("open on a full disk: %w", err)
	}
	return errors.Join(findHidden(ctx, q, room), q.Close())
}

// findHidden makes room and has another program put a job.
func findHidden(ctx context.Context, q *client, room func() error) error {
	listen, token := filepath.Join(q.opts.Dir, listenFile), filepath.Join(q.opts.Dir, tokenFile)
	if at := readLine(listen); at != "" {
		return fmt.Errorf("the disk is not full: %s", at)
	}
	if err := room(); err != nil {
		return err
	}
	for readLine(listen) == "" {
		if err := q.sleep(ctx, minPause); err != nil {
			return fmt.Errorf("other programs cannot find the queue: %w", err)
		}
	}
	nc, err := nats.Connect(readLine(listen), nats.Token(readLine(token)))
	if err != nil {
		return err
	}
	defer nc.Close()
	for { // until the server stores again
		once, cancel := context.WithTimeout(ctx, q.opts.timeout)
		_, err := nc.RequestWithContext(once, jobSubject("t"), []byte("y"))
		cancel()
		if err == nil || ctx.Err() != nil {
			return err
		}
	}
}
