package httpapi

import (
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"propeller/queue"
	"propeller/supervisor"
	"propeller/worker"
	"propeller/worker/feedback"
)

// fullApp is an app of which everything is known.
func fullApp() supervisor.AppStatus {
	s := supervisor.AppStatus{
		Name: topic, Topic: topic, Tube: tube, Counters: new(worker.Counters), Steps: new(supervisor.Steps),
		CredentialExpiry: time.Unix(2e9, 0).UTC(), CredentialFault: "expired", Workers: []worker.Status{{Connected: true, InFlight: 3, Reserved: 4}, {InFlight: 2}},
		Queue:   &supervisor.QueueStats{TubeStats: queue.TubeStats{Ready: 1, Delayed: 2, Reserved: 3, Buried: 4}, At: time.Unix(1e9, 0).UTC(), Incomplete: "b is away"},
		Records: &supervisor.QueueStats{TubeStats: queue.TubeStats{Ready: 5, Reserved: 2}},
		Webhook: &supervisor.Webhook{Down: true, Counters: new(feedback.WebhookCounters)},
		Health:  supervisor.Health{State: supervisor.Stalled, Reason: "x"},
	}
	s.Counters.Dials.Add(5)
	s.Counters.DialsFailed.Add(2)
	return s
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	tree := &fakeTree{apps: []supervisor.AppStatus{fullApp(), {Name: "bare", Topic: "bare", Health: supervisor.Health{State: supervisor.Guarded}, Counters: new(worker.Counters), Steps: new(supervisor.Steps)}}}
	forgotten := new(atomic.Int64)
	forgotten.Store(23)
	api := New(tree, Options{Metrics: NewMetrics(tree, MetricsOptions{Version: "v1", Reloads: func() (time.Time, *RefusedReload) { return time.Unix(1e9, 0), nil }, Forgotten: forgotten, UnusedApps: yes})})
	w := httptest.NewRecorder()
	api.Socket().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	text := w.Body.String()
	if w.Code != 200 {
		t.Fatalf("%d %s", w.Code, text)
	}
	for _, want := range []string{
		`propeller_pushes_total{app="com.example.app",class="delivered",reason="",topic="com.example.app"} 0`,
		`propeller_push_seconds_bucket{app="com.example.app",topic="com.example.app",le="60"} 0`,
		`propeller_in_flight{app="com.example.app",topic="com.example.app"} 5`,
		`propeller_connections{app="com.example.app",topic="com.example.app"} 1`,
		`propeller_dials_total{app="com.example.app",result="ok",topic="com.example.app"} 3`,
		`propeller_queue_jobs{app="com.example.app",state="buried",topic="com.example.app"} 4`,
		`propeller_queue_incomplete{app="com.example.app",topic="com.example.app"} 1`,
		`propeller_app_state{app="com.example.app",state="stalled",topic="com.example.app"} 1`,
		`propeller_app_state{app="bare",state="guarded",topic="bare"} 1`, `propeller_app_state{app="bare",state="paused",topic="bare"} 1`, // for older alert rules
		`propeller_app_state{app="bare",state="running",topic="bare"} 0`, `propeller_app_state{app="bare",state="tube_paused",topic="bare"} 0`, `propeller_app_state{app="bare",state="idle",topic="bare"} 0`,
		`propeller_app_state{app="bare",state="unreachable",topic="bare"} 0`, `propeller_app_state{app="bare",state="failing",topic="bare"} 0`,
		`propeller_credential_expiry_timestamp_seconds{app="com.example.app",topic="com.example.app"} 2e+09`,
		`propeller_credential_refused{app="com.example.app",topic="com.example.app"} 1`, `propeller_credential_refused{app="bare",topic="bare"} 0`,
		`propeller_feedback_records{app="com.example.app",topic="com.example.app"} 7`, `propeller_webhook_stalled{app="com.example.app",topic="com.example.app"} 0`,
		`propeller_config_reload_ok 1`, `propeller_queue_lost_jobs_total 17`, `propeller_idempotency_forgotten_total 23`, `version="v1"`, `go_goroutines`, `process_open_fds`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
	if strings.Contains(text, `propeller_queue_jobs{app="bare",state="ready",topic="bare"}`) {
		t.Error("numbers of a queue that was not asked")
	}
	docs, err := os.ReadFile("../docs/http-api.md")
	if err != nil {
		t.Fatal(err)
	}
	types := regexp.MustCompile(`(?m)^# TYPE (propeller_\w+)`).FindAllStringSubmatch(text, -1)
	if rows := strings.Count(string(docs), "\n| `propeller_"); rows != len(types) {
		t.Errorf("docs/http-api.md has %d metrics, there are %d", rows, len(types))
	}
	for _, m := range types {
		if !strings.Contains(string(docs), "\n| `"+m[1]+"` |") {
			t.Errorf("docs/http-api.md lacks %s", m[1])
		}
	}
}

func yes() bool { return true }

// Without the unused apps there are those that have done something, have jobs, or are not well.
func TestMetricsWithoutUnusedApps(t *testing.T) {
	t.Parallel()
	app := func(name string, change func(s *supervisor.AppStatus)) supervisor.AppStatus {
		s := supervisor.AppStatus{
			Name: name, Topic: name, Asleep: true, Health: supervisor.Health{State: supervisor.Idle}, Counters: new(worker.Counters), Steps: new(supervisor.Steps),
			CredentialExpiry: time.Unix(2e9, 0), Queue: new(supervisor.QueueStats),
		}
		change(&s)
		return s
	}
	tree := &fakeTree{apps: []supervisor.AppStatus{
		app("unused", func(*supervisor.AppStatus) {}),
		app("awake", func(s *supervisor.AppStatus) { s.Asleep = false }),
		app("buried", func(s *supervisor.AppStatus) { s.Queue.Buried = 1 }),
		app("expired", func(s *supervisor.AppStatus) { s.Counters.Expired.Add(1) }),
		app("broken", func(s *supervisor.AppStatus) { s.Health.State = supervisor.Broken }),
		app("refused", func(s *supervisor.AppStatus) { s.CredentialFault = "x" }),
	}}
	for _, all := range []bool{true, false} {
		m := NewMetrics(tree, MetricsOptions{Reloads: func() (at time.Time, _ *RefusedReload) { return at, nil }, Forgotten: new(atomic.Int64), UnusedApps: func() bool { return all }})
		w := httptest.NewRecorder()
		m.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
		for _, s := range tree.apps {
			if has, want := strings.Contains(w.Body.String(), `propeller_in_flight{app="`+s.Name), all || s.Name != "unused"; has != want {
				t.Errorf("all: %v: %s is shown: %v", all, s.Name, has)
			}
			if !strings.Contains(w.Body.String(), `propeller_credential_expiry_timestamp_seconds{app="`+s.Name) {
				t.Errorf("all: %v: %s: no expiry", all, s.Name)
			}
		}
	}
}
