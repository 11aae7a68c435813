package jetstream

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"propeller/queue"
)

// helperDir, in the environment, makes the test binary a process that owns a
// folder and puts jobs into it until it is killed.
const helperDir = "JETSTREAM_TEST_DIR"

// helperIdle makes it a process with many idle tubes.
const helperIdle = "JETSTREAM_TEST_IDLE"

// helper prints one line per job that the queue has accepted.
func helper() int {
	q, err := Open(Options{URL: embeddedIn(os.Getenv(helperDir), "listen", "127.0.0.1:0")})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	for i := range 1_000_000 {
		body := fmt.Sprintf("job %d", i)
		if _, err := q.Put(context.Background(), "crash", []byte(body), queue.PutOptions{}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		fmt.Println(body)
	}
	return 0
}

// startHelper starts the process and kills it with the test.
func startHelper(t *testing.T, dir string) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), helperDir+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd, bufio.NewScanner(out)
}

// A process is killed while it puts jobs: all that it was told are accepted are
// there. While it lives, its folder is its own.
func TestKilledProcess(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cmd, lines := startHelper(t, dir)
	var accepted []string
	for len(accepted) < 500 && lines.Scan() {
		accepted = append(accepted, lines.Text())
	}

	_, err := Open(Options{URL: embeddedIn(dir)})
	used, ok := errors.AsType[*InUseError](err)
	if !ok || used.Holder != fmt.Sprint(cmd.Process.Pid) {
		t.Fatalf("open of a folder in use: %v, want the process %d named", err, cmd.Process.Pid)
	}
	// A command may look in, over the listener.
	q := openTest(t, Options{URL: embeddedIn(dir), Attach: true})
	eventually(t, "jobs seen from outside", func() bool {
		st, err := q.TubeStats(ctxOf(t), "crash")
		return err == nil && st.Ready >= len(accepted)
	})

	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	for lines.Scan() { // what it had printed
		accepted = append(accepted, lines.Text())
	}
	_ = cmd.Wait()
	q2 := openTest(t, Options{URL: embeddedIn(dir)}) // the lock went with the process
	c := consumeTest(t, q2, "crash")
	seen := make(map[string]bool)
	for len(seen) < len(accepted) {
		jobs := mustReceive(t, c, 1)
		seen[string(jobs[0].Body())] = true
		mustDone(t, jobs...)
	}
	for _, body := range accepted {
		if !seen[body] {
			t.Errorf("lost: %q", body)
		}
	}
}

// Two queues of one process cannot share a folder either.
func TestFolderInUse(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	q := openTest(t, Options{URL: embeddedIn(dir)})
	for _, attach := range []bool{false, true} { // no listener to attach to
		_, err := Open(Options{URL: embeddedIn(dir), Attach: attach})
		if used, ok := errors.AsType[*InUseError](err); !ok || !strings.Contains(used.Error(), fmt.Sprint(os.Getpid())) {
			t.Fatalf("attach %v: %v", attach, err)
		}
	}
	closeNow(t, q)
	openTest(t, Options{URL: embeddedIn(dir)})
}

// A folder that was given free is free, though a child that was started
// meanwhile may still have the file of the lock.
func TestFolderFreeInSpiteOfChild(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	q := openTest(t, Options{URL: embeddedIn(dir)})
	child, err := syscall.Dup(descriptor(t, filepath.Join(dir, lockFile)))
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(child)
	closeNow(t, q)
	openTest(t, Options{URL: embeddedIn(dir)})
}

// descriptor is this process's of the file at path.
func descriptor(t *testing.T, path string) int {
	t.Helper()
	all, err := filepath.Glob("/proc/self/fd/*")
	if err != nil || len(all) == 0 {
		t.Skip("no /proc: ", err)
	}
	for _, link := range all {
		if to, _ := os.Readlink(link); to == path {
			fd, err := strconv.Atoi(filepath.Base(link))
			if err != nil {
				t.Fatal(err)
			}
			return fd
		}
	}
	t.Fatalf("no descriptor of %s", path)
	return 0
}

// Jobs of every state outlive an orderly restart. A held one comes back when
// its reservation has ended, and its tries go on counting.
func TestRestartEmbedded(t *testing.T) {
	t.Parallel()
	o := Options{URL: embeddedIn(t.TempDir()), AckWait: time.Second}
	q := openTest(t, o)
	for _, body := range []string{"held", "buried", "later", "ready"} {
		mustPut(t, q, "states", body)
	}
	if _, err := q.Put(ctxOf(t), "states", []byte("delayed"), queue.PutOptions{Delay: time.Hour}); err != nil {
		t.Fatal(err)
	}
	c := consumeTest(t, q, "states")
	jobs := mustReceive(t, c, 3)
	if err := jobs[1].Bury(ctxOf(t), nil); err != nil {
		t.Fatal(err)
	}
	if err := jobs[2].Retry(ctxOf(t), time.Hour); err != nil {
		t.Fatal(err)
	}
	if err := q.Close(); err != nil { // the consumer is not closed: the held job is not given back
		t.Fatal(err)
	}

	q = openTest(t, o)
	c2 := consumeTest(t, q, "states")
	tries := make(map[string]int)
	for _, j := range mustReceive(t, c2, 2) {
		st, err := j.Stat(ctxOf(t))
		if err != nil {
			t.Fatal(err)
		}
		tries[string(j.Body())] = st.Attempt
		mustDone(t, j)
	}
	if tries["held"] != 2 || tries["ready"] != 1 {
		t.Fatalf("tries %v", tries)
	}
	mustNone(t, c2)
	// The retry that waits was another process's doing: it counts as reserved.
	st, err := q.TubeStats(ctxOf(t), "states")
	if want := (queue.TubeStats{Delayed: 1, Reserved: 1, Buried: 1}); err != nil || st != want {
		t.Fatalf("%+v, %v; want %+v", st, err, want)
	}
}

// The server ends its consumers one by one, slowly. So at an orderly end only those are
// left that know of jobs what the stream does not, and of the others nothing is lost.
func TestEndForgetsIdleConsumers(t *testing.T) {
	t.Parallel()
	o := Options{URL: embeddedIn(t.TempDir())}
	q := openTest(t, o)
	const tubes = 10
	for i := range tubes {
		tube := fmt.Sprint("idle.", i)
		mustPut(t, q, tube, "done")
		mustPut(t, q, tube, "waits")
		finish(t, q, tube, 1)
	}
	mustPut(t, q, "again", "again")
	if err := mustReceive(t, consumeTest(t, q, "again"), 1)[0].Retry(ctxOf(t), time.Hour); err != nil {
		t.Fatal(err)
	}
	closeNow(t, q)
	left, err := filepath.Glob(filepath.Join(o.Dir, "jetstream", "$G", "streams", jobsStream, "obs", "*"))
	if err != nil || len(left) != 1 || filepath.Base(left[0]) != "again" {
		t.Errorf("%d consumers are left at the end (%v), want one", len(left), err)
	}

	q = openTest(t, o)
	for i := range tubes {
		c := consumeTest(t, q, fmt.Sprint("idle.", i))
		if j := mustReceive(t, c, 1)[0]; string(j.Body()) != "waits" {
			t.Errorf("tube %d: %q", i, j.Body())
		} else {
			mustDone(t, j)
		}
	}
	mustNone(t, consumeTest(t, q, "again"))
	st, err := q.TubeStats(ctxOf(t), "again")
	if want := (queue.TubeStats{Reserved: 1}); err != nil || st != want {
		t.Errorf("%+v, %v; want %+v", st, err, want)
	}
}

// Nothing that was finished is served again after an orderly restart, though
// nobody waited for the server's word on it.
func TestDoneThenClose(t *testing.T) {
	t.Parallel()
	o := Options{URL: embeddedIn(t.TempDir())}
	q := openTest(t, o)
	const n = 3000
	for range n {
		mustPut(t, q, "done", "x")
	}
	c := consumeTest(t, q, "done")
	mustDone(t, mustReceive(t, c, n)...)
	closeNow(t, q)
	q = openTest(t, o)
	st, err := q.TubeStats(ctxOf(t), "done")
	if err != nil || st != (queue.TubeStats{}) {
		t.Fatalf("after the restart: %+v, %v", st, err)
	}
}
