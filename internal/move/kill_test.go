package move

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"propeller/queue"
	"propeller/queue/beanstalk/beanstalktest"
)

// moverVariable makes this test binary move the tube from one URL to another.
const moverVariable = "PROPELLER_TEST_MOVE"

func moveInProcess() {
	from, to, _ := strings.Cut(os.Getenv(moverVariable), " ")
	err := func() error {
		src, err := openURL(from)
		if err != nil {
			return err
		}
		dst, err := openURL(to)
		if err != nil {
			return err
		}
		m := &Mover{From: src, To: saying{dst}}
		return m.Tube(context.Background(), tube)
	}()
	fmt.Println("end", err)
}

// saying prints a line for each job that has arrived.
type saying struct{ queue.Queue }

func (s saying) Put(ctx context.Context, tube string, body []byte, o queue.PutOptions) (string, error) {
	id, err := s.Queue.Put(ctx, tube, body, o)
	fmt.Println("arrived")
	return id, err
}

// moveAndKill runs a mover in a process of its own and kills it -9 after so
// many jobs. It reports whether it ended before that.
func moveAndKill(t *testing.T, from, to string, after int) (ended bool) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), moverVariable+"="+from+" "+to)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	n := 0
	for lines := bufio.NewScanner(out); lines.Scan(); {
		switch text := lines.Text(); text {
		case "arrived":
			if n++; n == after {
				return false
			}
		case "end <nil>":
			return true
		default:
			t.Fatal(text)
		}
	}
	t.Fatal("ended without a word")
	return true
}

// A mover that is killed, again and again, loses nothing and moves no more than
// a windowful of jobs a second time.
func TestKilled(t *testing.T) {
	t.Parallel()
	for _, from := range []engine{engines[0], engines[2]} {
		for _, to := range []engine{engines[0], engines[2]} {
			t.Run(from.name+" to "+to.name, func(t *testing.T) {
				t.Parallel()
				testKilled(t, from.url(t), to.url(t))
			})
		}
	}
}

func testKilled(t *testing.T, from, to string) {
	const each, kills = 600, 3
	want := make(map[string]int) // by body; how often it arrived
	func() {
		src, err := openURL(from)
		if err != nil {
			t.Fatal(err)
		}
		defer src.Close()
		for i := range 5 {
			bury(t, src, fmt.Sprint("buried ", i), queue.PutOptions{Priority: 1})
			want[fmt.Sprint("buried ", i)] = 0
		}
		putMany(t, src, "later ", each, queue.PutOptions{Delay: time.Hour})
		putMany(t, src, "ready ", each, queue.PutOptions{})
		for i := range each {
			want[fmt.Sprint("later ", i)], want[fmt.Sprint("ready ", i)] = 0, 0
		}
	}()
	for i := 0; i < kills; i++ {
		if moveAndKill(t, from, to, each/kills) {
			t.Fatal("it was too quick to be killed")
		}
	}
	for !moveAndKill(t, from, to, 1<<30) {
	}
	mustBeEmpty(t, openTest(t, from))
	dst := openTest(t, to)
	twice, buried := 0, make(map[string]bool)
	for _, j := range append(listed(t, dst), taken(t, dst)...) {
		body := string(j.Body)
		kind, _, _ := strings.Cut(body, " ")
		late := j.Delay > time.Minute
		// On beanstalkd a job that was about to be buried is a delayed one, or
		// ready if it was in the hand already. Then it has come a second time.
		if j.Buried {
			buried[body] = true
		}
		if ok := map[string]bool{"later": late && !j.Buried, "ready": !late && !j.Buried, "buried": true}[kind]; !ok {
			t.Errorf("%s arrived as %+v", body, j)
		}
		if want[body]++; want[body] > 1 {
			twice++
		}
	}
	for body, n := range want {
		if n == 0 {
			t.Errorf("%s is lost", body)
		}
		if strings.HasPrefix(body, "buried") && !buried[body] {
			t.Errorf("%s is not buried any more", body)
		}
	}
	if limit := kills * window; twice > limit {
		t.Errorf("%d jobs were moved twice, more than %d", twice, limit)
	}
	t.Logf("killed %d times, %d of %d jobs moved twice", kills, twice, len(want))
}

// The queue that jobs go to may be restarted meanwhile.
func TestDestinationRestarts(t *testing.T) {
	t.Parallel()
	srv := beanstalktest.Start(t, beanstalktest.WithBinlog(), beanstalktest.WithArgs("-f", "0"))
	src, dst := openTest(t, engines[2].url(t)), openTest(t, srv.URL())
	const n = 2000
	putMany(t, src, "", n, queue.PutOptions{})
	m := &Mover{From: src, To: dst}
	ended := make(chan error, 1)
	go func() { ended <- m.Tube(ctxOf(t), tube) }()
	for i := range 3 {
		eventually(t, "some have arrived", func() bool { return m.Moved() > int64(i+1)*n/5 })
		srv.Kill()
		eventually(t, "it says what it waits for", func() bool { return strings.HasPrefix(m.Waits(), "the queue to put into: ") })
		srv.Restart()
	}
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	mustHaveMoved(t, src, dst, n)
}

// mustHaveMoved checks that src is empty and that n different jobs are in dst.
func mustHaveMoved(t *testing.T, src, dst Queue, n int) {
	t.Helper()
	mustBeEmpty(t, src)
	got := make(map[string]bool)
	for _, j := range taken(t, dst) {
		got[string(j.Body)] = true
	}
	if len(got) != n {
		t.Errorf("%d of %d arrived", len(got), n)
	}
}

// So may the queue that they are taken from.
func TestSourceRestarts(t *testing.T) {
	t.Parallel()
	srv := beanstalktest.Start(t, beanstalktest.WithBinlog(), beanstalktest.WithArgs("-f", "0"))
	src, dst := openTest(t, srv.URL()), openTest(t, engines[2].url(t))
	const n = 2000
	putMany(t, src, "", n, queue.PutOptions{})
	srv.Kill()
	m := &Mover{From: src, To: dst}
	ended := make(chan error, 1)
	go func() { ended <- m.Tube(ctxOf(t), tube) }()
	eventually(t, "it says what it waits for", func() bool { return strings.HasPrefix(m.Waits(), "the queue to take from: ") })
	srv.Restart()
	for i := range 3 {
		eventually(t, "some have arrived", func() bool { return m.Moved() > int64(i+1)*n/5 })
		srv.Kill()
		srv.Restart()
	}
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	mustHaveMoved(t, src, dst, n)
}
