package main

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"propeller/apnsconn/apnstest"
	"propeller/config"
)

// Every app is found by its topic, and no two share one.
func TestSleepersAreApps(t *testing.T) {
	t.Parallel()
	all := allApps(300)
	if len(all) != 300 || !slices.Equal(all[:len(apps())], apps()) {
		t.Fatalf("%d apps", len(all))
	}
	for i, a := range all {
		if got, ok := appOf(a.topic); !ok || got != i || appAt(i) != a {
			t.Errorf("app %d: %v is %d, %v", i, a, got, ok)
		}
	}
	for _, none := range []string{"", "com.example", sleeperTopic, sleeperTopic + "1", sleeperTopic + "x"} {
		if i, ok := appOf(none); ok {
			t.Errorf("%q is app %d", none, i)
		}
	}
	if len(allApps(0)) != len(apps()) {
		t.Error("a run without sleepers has not the usual apps")
	}
}

// takesAll is an engine and its client: it keeps what is put.
type takesAll struct {
	engine
	client
	mu   sync.Mutex
	jobs []struct {
		tube, body string
		delay      time.Duration
	}
}

func (q *takesAll) dial() (client, error) { return q, nil }
func (q *takesAll) close()                {}
func (q *takesAll) put(tube string, body []byte, delay time.Duration) (string, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.jobs = append(q.jobs, struct {
		tube, body string
		delay      time.Duration
	}{tube, string(body), delay})
	return "1", nil
}

// The sleepers have their turns, get jobs that come due when they have none, and only some have
// jobs that are buried.
func TestSleepersGetJobs(t *testing.T) {
	t.Parallel()
	q := new(takesAll)
	r := &run{engine: q, ledger: new(ledger), at: &site{}, o: options{apps: 100, rate: 2000, seed: 1}}
	s := newSleepers(r)
	s.every = 100 * time.Microsecond
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var putting sync.WaitGroup
	putting.Go(func() { s.run(ctx) })
	for s.turns.Load() < 3*awake && ctx.Err() == nil {
		time.Sleep(time.Millisecond)
	}
	cancel()
	putting.Wait()
	if app, ok := s.past(); ok && !buries(app) {
		t.Errorf("app %d has no buried jobs to kick", app)
	}
	had, turns, early := make(map[int]bool), s.order[:s.turns.Load()], 0
	for i, put := range q.jobs {
		app, ok := appOf(put.tube)
		if !ok || app < len(apps()) {
			t.Fatalf("a job for %q", put.tube)
		}
		had[app] = true
		if !slices.Contains(turns, app) {
			early++
			if put.delay == 0 {
				t.Errorf("a job at once for app %d, which is to sleep", app)
			}
		}
		j := r.ledger.jobs[i]
		var decoded struct{ Token string }
		if err := json.Unmarshal([]byte(put.body), &decoded); !buries(app) && (err != nil || !j.kind.sound()) {
			t.Errorf("app %d gets %s (%v)", app, put.body, err)
		}
		for _, p := range r.ledger.pushes[j.first:][:j.count] {
			if p.fate == alien || p.fate == grave || p.fate == deformed || p.fate == bad && (!buries(app) || j.many) {
				t.Errorf("app %d gets a %v", app, p.fate)
			}
		}
	}
	if len(had) < len(turns)/2 || early == 0 || s.early == 0 {
		t.Errorf("%d of %d apps got jobs, %d early ones: %v", len(had), len(turns), early, s)
	}
}

// The configuration has the sleepers, whatever the hand changes, and their buried jobs are judged.
func TestSleepersOfARun(t *testing.T) {
	t.Parallel()
	const n = 20
	at := &site{dir: t.TempDir(), apps: n, queueURL: "beanstalk://127.0.0.1:11300", apnsAddr: "127.0.0.1:2197", wrongAddr: "127.0.0.1:2198", hookAddr: "127.0.0.1:8080", issuer: apnstest.NewServer(apnstest.Options{})}
	defer at.issuer.Close()
	if err := at.serverCertificate(); err != nil {
		t.Fatal(err)
	}
	for _, a := range allApps(n) {
		if err := at.renew(a.topic); err != nil {
			t.Fatal(err)
		}
	}
	cfg, err := config.Parse("x.yaml", usual().yaml(at), config.Options{Dir: at.dir})
	if err != nil || len(cfg.Apps) != n {
		t.Fatalf("%v", err)
	}
	l := new(ledger)
	c := &court{ledger: l, apps: n, waiting: l.traces(), buried: map[string]map[string]string{appAt(n - 1).tube: {"7": "what is this"}}, said: &testimony{sequence: new(sequence)}}
	if a := c.judge(); len(a.wrong) != 1 || !strings.Contains(a.wrong[0], "nobody put: "+appAt(n-1).tube) {
		t.Error(a.wrong)
	}
}

// The daemon is left alone for long only in runs that have the time.
func TestLeaveAlone(t *testing.T) {
	t.Parallel()
	for run, want := range map[time.Duration]int{time.Minute: 0, 10 * time.Minute: 1} {
		h := new(hand)
		if h.leaveAlone(run); len(h.acts) != want {
			t.Errorf("%v: %d acts", run, len(h.acts))
		}
	}
}

// A kicked job that is no JSON is buried under another id than the one that the log has.
func TestLoggedAfterAKick(t *testing.T) {
	t.Parallel()
	l := &testimony{buriedIDs: map[jobID][]time.Time{}, buriedBare: map[jobID][]time.Time{{appAt(10).topic, "5"}: {second(2)}}}
	c := &court{said: l}
	for id, want := range map[string]bool{"5": true, "6": false, "": false} {
		if got := c.logged(&job{app: 10, id: id, at: second(1)}, "stream-9"); got != want {
			t.Errorf("producer's id %q: %v", id, got)
		}
	}
	if c.logged(&job{app: 10, id: "5", at: second(3)}, "stream-9") {
		t.Error("a line of an earlier job with that id counts")
	}
}
