package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"propeller/apnsconn/apnstest"
	"propeller/httpapi"
	"propeller/queue"
	"propeller/queue/beanstalk/beanstalktest"
	"propeller/queue/queueurl"
)

func openForTest(t *testing.T, url string) interface {
	queue.Queue
	queue.Admin
} {
	t.Helper()
	u, err := queueurl.Parse(url, queueurl.Files{})
	if err != nil {
		t.Fatal(err)
	}
	q, err := openQueue(u, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return q.(interface {
		queue.Queue
		queue.Admin
	})
}

func putJobs(t *testing.T, url, tube string, from, n int, o queue.PutOptions) {
	t.Helper()
	q := openForTest(t, url)
	defer q.Close()
	for i := from; i < from+n; i++ {
		if _, err := q.Put(t.Context(), tube, fmt.Appendf(nil, `{"token":%q,"title":"x"}`, token(i)), o); err != nil {
			t.Fatal(err)
		}
	}
}

func stats(t *testing.T, url, tube string) queue.TubeStats {
	t.Helper()
	q := openForTest(t, url)
	defer q.Close()
	st, err := q.TubeStats(t.Context(), tube)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// A user of beanstalkd changes to the queue inside the daemon, and back: every
// job arrives, and why jobs were buried is still known.
func TestMoveAndGoOn(t *testing.T) {
	s := newSite(t, apnstest.Options{Script: apnstest.TokenCodes})
	old, there := s.bs.URL(), "embedded://"+filepath.Join(s.dir, "queue")
	configure := func(queue string) {
		s.write("propeller.yaml", "queue: "+queue+"\nstate_dir: state\nlog: {pushes: all}\ndefaults: {server: "+s.apns.URL+", ca_file: ca.pem}\n"+
			"apps:\n  - {topic: "+topic+", cert: "+topic+".pem}\n")
	}
	stop := func(d *daemonProcess) {
		t.Helper()
		d.signal(syscall.SIGTERM)
		if status := d.exit(); status != 0 {
			t.Fatalf("status %d", status)
		}
	}
	list := func() string {
		t.Helper()
		r := runProgram(t, s.dir, "", "jobs", "list", "--topic", topic)
		if r.status != 0 {
			t.Fatalf("%+v", r)
		}
		return r.out
	}

	configure(old)
	d := startDaemon(t, s.dir)
	s.putByHand(topic, `{"token":"`+strings.Repeat("0", 56)+`fa170413","title":"too large, says the stand-in"}`)
	d.says("job buried")
	stop(d)
	putJobs(t, old, topic, 1, 50, queue.PutOptions{})
	putJobs(t, old, topic, 101, 1, queue.PutOptions{Delay: 8 * time.Second})
	putJobs(t, old, topic, 102, 1, queue.PutOptions{Delay: time.Hour})
	putJobs(t, old, topic+".feedback", 1, 3, queue.PutOptions{})
	putJobs(t, old, "foreign", 1, 2, queue.PutOptions{})

	configure(there)
	r := runProgram(t, s.dir, "", "jobs", "move", "--from", old, "--to", there)
	if r.status != 0 || !strings.Contains(r.err, "moved 56 jobs: 53 ready, 2 delayed, 1 buried") || !strings.Contains(r.err, `skipping tube "foreign"`) {
		t.Fatalf("%+v", r)
	}
	if out := list(); !strings.Contains(out, "413 PayloadTooLarge") {
		t.Errorf("the reason got lost:\n%s", out)
	}
	d = startDaemon(t, s.dir)
	until(t, "what was moved is delivered, and what was due", func() bool { return s.apns.Count() == 1+50+1 })
	r = runProgram(t, s.dir, "", "jobs", "move", "--from", there, "--to", old)
	if r.status != 1 || !strings.Contains(r.err, "in use by process") || !strings.Contains(r.err, "stop it first") || strings.Contains(r.err, "state_dir") {
		t.Errorf("move away from a running daemon: %+v", r)
	}
	stop(d)

	r = runProgram(t, s.dir, "", "jobs", "move", "--from", there, "--to", old, "--topic", topic)
	if r.status != 0 || !strings.Contains(r.err, "moved 5 jobs: 3 ready, 1 delayed, 1 buried") {
		t.Fatalf("and back: %+v", r)
	}
	configure(old)
	if out := list(); !strings.Contains(out, "413 PayloadTooLarge") {
		t.Errorf("the reason got lost on the way back:\n%s", out)
	}
	if st, want := stats(t, old, topic), (queue.TubeStats{Delayed: 1, Buried: 1}); st != want {
		t.Errorf("%+v, want %+v", st, want)
	}
	if st := stats(t, old, "foreign"); st.Ready != 2 {
		t.Errorf("other programs' jobs: %+v", st)
	}
	if n := s.apns.Count(); n != 52 {
		t.Errorf("%d pushes", n)
	}
}

// Ctrl-C ends a move between two jobs, and another one goes on.
func TestMoveIsInterrupted(t *testing.T) {
	t.Parallel()
	from, to := beanstalktest.Start(t).URL(), "embedded://"+t.TempDir()
	const jobs = 5000
	putJobs(t, from, topic, 0, jobs, queue.PutOptions{})
	args := []string{"jobs", "move", "--from", from, "--to", to, "--all"}
	dir := t.TempDir()
	d := startDaemon(t, dir, args...)
	until(t, "it is under way", func() bool { return stats(t, from, topic).Ready < jobs-100 })
	d.signal(syscall.SIGINT)
	if status := d.exit(); status != 1 {
		t.Fatalf("status %d", status)
	}
	d.says("stopped; run it again to continue")
	left, come := stats(t, from, topic), stats(t, to, topic)
	if left.Ready+come.Ready != jobs || left.Reserved+come.Reserved != 0 {
		t.Errorf("left %+v, arrived %+v: not %d", left, come, jobs)
	}
	if r := runProgram(t, dir, "", args...); r.status != 0 {
		t.Fatalf("%+v", r)
	}
	left, come = stats(t, from, topic), stats(t, to, topic)
	if left != (queue.TubeStats{}) || come.Ready != jobs {
		t.Errorf("left %+v, arrived %+v: not %d", left, come, jobs)
	}
}

// What the other queue does not take stays, and is named.
func TestMoveRefused(t *testing.T) {
	t.Parallel()
	from, to := beanstalktest.Start(t).URL(), beanstalktest.Start(t, beanstalktest.WithArgs("-z", "80")).URL()
	putJobs(t, from, topic, 0, 2, queue.PutOptions{})
	q := openForTest(t, from)
	if _, err := q.Put(context.Background(), topic, []byte("short"), queue.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	r := runProgram(t, t.TempDir(), "", "jobs", "move", "--from", from, "--to", to, "--tube", topic)
	if r.status != 1 || !strings.Contains(r.err, `job 1 of "`+topic+`" was not moved: `) || !strings.Contains(r.err, "moved 1 job: 1 ready, 0 delayed, 0 buried") || !strings.Contains(r.err, "2 jobs could not be moved: the other queue does not take them") {
		t.Errorf("%+v", r)
	}
	if st := stats(t, from, topic); st.Ready != 2 {
		t.Errorf("%+v", st)
	}
}

func TestMoveUsage(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	apps := "defaults: {server: mock}\napps: [{name: lane, topic: com.example.app}, {name: bulk, topic: com.example.app}, {name: other, topic: com.example.other}]\n"
	if err := os.WriteFile(filepath.Join(dir, "apps"), []byte(apps), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args   string
		status int
		says   string
	}{
		{"--to beanstalk://a", 2, "--from is required"},
		{"--from beanstalk://a", 2, "--to is required"},
		{"--from beanstalk://a --to beanstalk://b --all --topic x", 2, "only one of these may be given: --all, --topic"},
		{"--from beanstalk://a --to beanstalk://b", 2, "say which jobs"},
		{"--to-app x", 2, "--to-app: name the app to take the jobs from"},
		{"--to-app x --app y --from beanstalk://a", 2, "only one of these may be given: --from, --to-app"},
		{"--to-app x --app y --all", 2, "only one of these may be given"},
		{"--to-app x --app y", 1, "propeller.yaml"},
		{"--to-app lane --app lane -c apps", 1, `--to-app "lane": is the app that the jobs are taken from`},
		{"--to-app lane --topic com.example.app -c apps", 1, `topic "com.example.app": several apps have it, so one of them must be named (lane, bulk)`},
		{"--to-app other --app lane -c apps", 1, "a device token is of one topic"},
		{"--to-app none --app lane -c apps", 1, `--to-app: app "none" is not in apps`},
		{"--to-app lane --app none -c apps", 1, `app "none" is not in apps`},
		{"--from beanstalk://a --to nonsense --all", 1, "--to: "},
		{"--from nonsense --to beanstalk://a --all", 1, "--from: "},
		{"--from beanstalk://a,beanstalk://b --to beanstalk://b --all", 1, "round and round"},
		{"--from embedded:///q --to embedded:///q?fsync=always --all", 1, "round and round"},
		{"--from embedded://" + dir + "/none --to beanstalk://b --all", 1, "no such folder"},
		{"--from beanstalk://127.0.0.1:1 --to embedded://./q --all", 1, "start the queue server"},
		{"--from nats://me:hidden@127.0.0.1:1 --to embedded://./q --all", 1, "start the queue server"},
		{"more", 2, "unknown argument"},
	} {
		r := runProgram(t, dir, "", append([]string{"jobs", "move"}, strings.Fields(c.args)...)...)
		if r.status != c.status || !strings.Contains(r.err, c.says) || strings.Contains(r.err, "hidden") || strings.Count(r.err, "\n") != 1 && c.status == 2 {
			t.Errorf("%s: %+v", c.args, r)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "none")); err == nil {
		t.Error("a folder was made to take jobs from")
	}
}

// Between two beanstalkds, where the same ids mean other jobs, reasons and producers' ids go
// along.
func TestMoveReasons(t *testing.T) {
	t.Parallel()
	from, to := beanstalktest.Start(t).URL(), beanstalktest.Start(t).URL()
	putJobs(t, to, topic, 0, 1, queue.PutOptions{}) // takes the id 1
	const jobs = 20
	q := openForTest(t, from)
	c, err := q.Consume(topic)
	if err != nil {
		t.Fatal(err)
	}
	for i := range jobs {
		body := fmt.Sprintf(`{"token":%q,"title":"job %d"}`, token(i), i)
		id, err := q.Put(t.Context(), topic, []byte(body), queue.PutOptions{})
		if err != nil {
			t.Fatal(err)
		}
		held, err := c.Receive(t.Context(), 1)
		if err != nil {
			t.Fatal(err)
		}
		again := fmt.Sprintf(`,"again":{"job":%q,"seed":"%032d","put":1,"attempt":1,"bury":"reason %d","class":"rejected","status":400,"at":2}}`, "first "+id, 0, i)
		if err := held[0].Bury(t.Context(), []byte(body[:len(body)-1]+again)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(c.Close(t.Context()), q.Close()); err != nil {
		t.Fatal(err)
	}
	r := runProgram(t, t.TempDir(), "", "jobs", "move", "--from", from, "--to", to, "--tube", topic)
	if r.status != 0 {
		t.Fatalf("%+v", r)
	}
	r = runProgram(t, t.TempDir(), "", "jobs", "list", "--topic", topic, "--queue", to, "--json")
	var l httpapi.BuriedList
	if err := json.Unmarshal([]byte(r.out), &l); err != nil || len(l.Jobs) != jobs {
		t.Fatalf("%v: %+v", err, r)
	}
	for _, j := range l.Jobs {
		n, err := strconv.Atoi(strings.TrimPrefix(j.Reason, "reason "))
		if err != nil || j.Token != token(n)[:8] || j.Status != 400 || j.Class != "rejected" || !strings.HasPrefix(j.ID, "first ") {
			t.Errorf("%+v", j)
		}
	}
}
