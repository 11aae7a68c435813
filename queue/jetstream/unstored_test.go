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

	"propeller/queue"
)

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
