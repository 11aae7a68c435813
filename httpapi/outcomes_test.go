package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"propeller/apnsconn"
	"propeller/worker"
	"propeller/worker/job"
)

// The states of a notification, from its put to its end.
func TestOutcomes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var o Outcomes
		put := func(id string, tokens int, delay time.Duration) {
			o.begin()
			o.end(donePut{id: id, app: topic, topic: topic, delay: delay, tokens: tokens})
		}
		state := func(id, want string) pushStatus {
			t.Helper()
			n, ok := o.look(id)
			if !ok || n.State != want {
				t.Errorf("%s: %+v, want %s", id, n, want)
			}
			return n
		}
		o.Pushed(&worker.Event{At: time.Now(), App: topic, Job: "elsewhere", Seed: job.SeedOf("elsewhere", nil), N: 1, Action: worker.Tried})
		put("one", 1, 0)
		state("one", stateQueued)
		o.Pushed(&worker.Event{At: time.Now(), App: topic, Job: "one", Seed: job.SeedOf("one", nil), N: 1, Action: worker.Tried})
		state("one", stateTrying)
		o.Pushed(&worker.Event{At: time.Now(), App: topic, Job: "one", Seed: job.SeedOf("one", nil), N: 1, Action: worker.Retried, Class: apnsconn.Unavailable, Status: 503, Reason: "Shutdown", Delay: time.Minute})
		if n := state("one", stateQueued); n.Tries != 1 || n.Reason != "Shutdown" || n.NextTry.Sub(n.At) != time.Minute {
			t.Errorf("%+v", n)
		}
		o.Pushed(&worker.Event{At: time.Now(), App: topic, Job: "one", Seed: job.SeedOf("one", nil), N: 1, Action: worker.Tried})
		o.Pushed(&worker.Event{At: time.Now(), App: topic, Job: "one", Seed: job.SeedOf("one", nil), N: 1, Action: worker.Deleted, Class: apnsconn.Delivered, Status: 200, APNsID: "x"})
		if n := state("one", stateDelivered); n.Tries != 2 || n.APNsID != "x" || n.Status != 200 || n.At.IsZero() || !n.NextTry.IsZero() {
			t.Errorf("%+v", n)
		}
		put("later", 1, time.Minute)
		if n := state("later", stateDelayed); n.DelayedUntil.Sub(n.Put) != time.Minute {
			t.Errorf("%+v", n)
		}
		time.Sleep(time.Minute)
		state("later", stateQueued)
		o.Pushed(&worker.Event{At: time.Now(), App: topic, Job: "later", Seed: job.SeedOf("later", nil), N: 1, Action: worker.Tried})
		o.Pushed(&worker.Event{At: time.Now(), App: topic, Job: "later", Seed: job.SeedOf("later", nil), N: 1, Action: worker.Buried, Class: apnsconn.Rejected, Reason: "why"})
		if n := state("later", stateBuried); n.Reason != "why" {
			t.Errorf("%+v", n)
		}
		o.Pushed(&worker.Event{At: time.Now(), App: topic, Job: "later", Seed: job.SeedOf("later", nil), N: 1, Action: worker.Tried}) // kicked
		state("later", stateTrying)
		o.Pushed(&worker.Event{At: time.Now(), App: topic, Job: "later", Seed: job.SeedOf("later", nil), N: 1, Action: worker.Deleted, Class: apnsconn.Token})
		state("later", stateRefused)
		put("three", 3, 0)
		o.Pushed(&worker.Event{At: time.Now(), App: topic, Job: "three", Seed: job.SeedOf("three", nil), N: 1, Action: worker.Tried})
		o.Pushed(&worker.Event{At: time.Now(), App: topic, Job: "three", Seed: job.SeedOf("three", nil), N: 1, Action: worker.Deleted, Class: apnsconn.Delivered})
		o.Pushed(&worker.Event{At: time.Now(), App: topic, Job: "three", Seed: job.SeedOf("three", nil), N: 1, Action: worker.Deleted, Class: apnsconn.Token})
		o.Pushed(&worker.Event{At: time.Now(), App: topic, Job: "three", Seed: job.SeedOf("three", nil), N: 1, Action: worker.Retried, Class: apnsconn.Unavailable})
		state("three", stateQueued)
		o.Pushed(&worker.Event{At: time.Now(), App: topic, Job: "three", Seed: job.SeedOf("three", nil), N: 1, Action: worker.Expired, Class: apnsconn.Rejected})
		state("three", stateFinished)
		put("mixed", 3, 0)
		o.Pushed(&worker.Event{At: time.Now(), App: topic, Job: "mixed", Seed: job.SeedOf("mixed", nil), N: 3, Action: worker.Tried})
		o.Pushed(&worker.Event{At: time.Now(), App: topic, Job: "mixed", Seed: job.SeedOf("mixed", nil), N: 1, Action: worker.Deleted, Class: apnsconn.Delivered})
		o.Pushed(&worker.Event{At: time.Now(), App: topic, Job: "mixed", Seed: job.SeedOf("mixed", nil), N: 1, Action: worker.Retried, Class: apnsconn.Unavailable})
		o.Pushed(&worker.Event{At: time.Now(), App: topic, Job: "mixed", Seed: job.SeedOf("mixed", nil), N: 1, Action: worker.Buried, Class: apnsconn.Rejected})
		o.Pushed(&worker.Event{At: time.Now(), App: topic, Job: "mixed", Seed: job.SeedOf("mixed", nil), N: 1, Action: worker.Tried}) // the retried one
		o.Pushed(&worker.Event{At: time.Now(), App: topic, Job: "mixed", Seed: job.SeedOf("mixed", nil), N: 1, Action: worker.Deleted, Class: apnsconn.Delivered})
		state("mixed", stateFinished)
		put("three", 1, 0) // the queue has begun to count anew
		state("three", stateQueued)
		if _, ok := o.look("elsewhere"); ok {
			t.Error("a job that was not put here is known")
		}
	})
}

// A job may be finished before its put returns.
func TestOutcomeBeforePut(t *testing.T) {
	t.Parallel()
	var o Outcomes
	o.begin()
	o.begin()
	o.Pushed(&worker.Event{At: time.Now(), App: topic, Job: "7", Seed: job.SeedOf("7", nil), N: 1, Action: worker.Tried})
	o.Pushed(&worker.Event{At: time.Now(), App: topic, Job: "7", Seed: job.SeedOf("7", nil), N: 1, Action: worker.Deleted, Class: apnsconn.Delivered})
	o.Pushed(&worker.Event{At: time.Now(), App: topic, Job: "8", Seed: job.SeedOf("8", nil), N: 1, Action: worker.Tried})
	if _, ok := o.look("7"); ok {
		t.Error("known before it was put")
	}
	o.end(donePut{id: "7", app: topic, topic: topic, delay: 0, tokens: 1}, donePut{err: errors.New("no")})
	o.end()
	if n, ok := o.look("7"); !ok || n.State != stateDelivered || n.Tries != 1 {
		t.Errorf("%+v", n)
	}
	if _, ok := o.look("8"); ok {
		t.Error("somebody else's job is known")
	}
	o.Pushed(&worker.Event{At: time.Now(), App: topic, Job: "9", Seed: job.SeedOf("9", nil), N: 1, Action: worker.Tried})
	if len(o.byID) != 1 || o.early != nil {
		t.Errorf("%d remembered, %d early", len(o.byID), len(o.early))
	}
}

// A job that says it is another one changes nothing of what is told of that: not one of
// another app, and not one of the same app whose text is not the same.
func TestForgedOutcomes(t *testing.T) {
	t.Parallel()
	var o Outcomes
	body := []byte(notification(""))
	deliver := func(app, id string, body []byte) {
		e := worker.Event{At: time.Now(), App: app, Job: id, Seed: job.SeedOf(id, body), N: 1, Action: worker.Tried}
		o.Pushed(&e)
		e.Action, e.Class = worker.Deleted, apnsconn.Delivered
		o.Pushed(&e)
	}
	want := func(id, state string) {
		t.Helper()
		if n, ok := o.look(id); !ok || n.State != state || n.Topic != topic {
			t.Errorf("%s: %+v, want %s", id, n, state)
		}
	}
	forge := func(id string) {
		deliver("com.example.other", id, body)
		deliver(topic, id, []byte(`{"forged":1}`))
	}
	for _, id := range []string{"7", "8"} { // 8 is done before its put returns
		o.begin()
		forge(id)
		if id == "8" {
			deliver(topic, id, body)
		}
		forge(id)
		o.end(donePut{id: id, app: topic, topic: topic, body: body, tokens: 1})
	}
	want("7", stateQueued)
	want("8", stateDelivered)
	bury := worker.Event{At: time.Now(), App: topic, Job: "7", Seed: job.SeedOf("7", body), N: 1, Action: worker.Buried, Class: apnsconn.Rejected}
	o.Pushed(&bury)
	forge("7")
	want("7", stateBuried)
	deliver(topic, "7", body) // kicked
	want("7", stateDelivered)
	if len(o.byID) != 2 || len(o.early) != 0 {
		t.Errorf("%d remembered, %d early", len(o.byID), len(o.early))
	}
}

func TestOutcomesAreBounded(t *testing.T) {
	t.Parallel()
	var o Outcomes
	for i := range maxOutcomes + 10 {
		o.begin()
		o.end(donePut{id: fmt.Sprint(i), tokens: 1})
	}
	if _, ok := o.look("9"); ok || len(o.byID) != maxOutcomes || len(o.order) != maxOutcomes {
		t.Errorf("%d remembered, %d in order", len(o.byID), len(o.order))
	}
	if _, ok := o.look("10"); !ok {
		t.Error("one too many has left")
	}
}

// What is remembered is told to those whose key is for the app.
func TestNotificationOutcome(t *testing.T) {
	t.Parallel()
	api := New(new(putTree), Options{Outcomes: new(Outcomes)})
	api.Use(Settings{Keys: testKeys})
	h := api.Network()
	if w := send(h, "sender-0123", "POST", "/v1/notifications", notification("")); w.Code != 202 {
		t.Fatal(w.Code)
	}
	for token, want := range map[string]int{"reader-0123": 200, "other-0123": 404} {
		w := send(h, token, "GET", "/v1/notifications/job1", "")
		var n pushStatus
		if err := json.Unmarshal(w.Body.Bytes(), &n); err != nil || w.Code != want || want == 200 && (n.ID != "job1" || n.State != stateQueued || n.Topic != topic) {
			t.Errorf("%s: %d %s", token, w.Code, w.Body)
		}
	}
	if w := send(h, "reader-0123", "GET", "/v1/notifications/job2", ""); w.Code != 404 {
		t.Errorf("%d", w.Code)
	}
	if r := New(new(putTree), Options{}).accept(context.Background(), newLocal("x"), []byte(notification(""))); r.ID == "" {
		t.Errorf("without a memory: %+v", r)
	}
}
