package main

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"propeller/worker/job"
)

// Each push is known by its payload, and counted as often as it comes.
func TestArrivals(t *testing.T) {
	t.Parallel()
	a := &arrivals{changed: make(chan struct{}, 1)}
	var payloads [][]byte
	for i := range 4 {
		n, fields := a.job()
		d, err := job.Parse([]byte("{"+string(fields)+"}"), "com.example.app", "")
		if err != nil || n != i {
			t.Fatalf("number %d: %v", n, err)
		}
		if got, ok := numberIn(d.Notification.Payload); !ok || got != n || len(d.Notification.Payload) != payload {
			t.Fatalf("number %d of %s", got, d.Notification.Payload)
		}
		payloads = append(payloads, d.Notification.Payload)
	}
	if _, err := a.wait(t.Context(), time.Millisecond); err == nil || !strings.Contains(err.Error(), "4 never") {
		t.Errorf("nothing came: %v", err)
	}
	ended, end := context.WithCancel(t.Context())
	end()
	if _, err := a.wait(ended, time.Minute); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	at := time.Now()
	for i, n := range []int{2, 0, 1, 1} {
		a.seen(at.Add(time.Duration(i)*time.Second), payloads[n])
	}
	for _, strange := range []string{"", "{}", strings.Replace(string(payloads[0]), `"0000000000"`, `"0000000099"`, 1)} {
		a.seen(at, []byte(strange))
	}
	if got, want := a.count(0), (tally{once: 2, again: 1, missing: 1, strange: 3}); got != want {
		t.Errorf("%v, want %v", got, want)
	}
	a.seen(at.Add(time.Hour), payloads[3])
	if last, err := a.wait(t.Context(), time.Minute); err != nil || !last.Equal(at.Add(time.Hour)) {
		t.Errorf("%v, %v", last, err)
	}
	if d := a.delays(0); len(d) != 4 || d.at(0.5) > d.at(0.99) || d.at(1) < time.Hour || d.at(1) > 2*time.Hour {
		t.Error(d)
	}
	// What came of an earlier measurement counts for none that runs.
	a.begin()
	a.job()
	a.seen(at, payloads[3])
	if came, missing := a.earlier(); came != 4 || missing != 0 {
		t.Errorf("of the earlier pushes %d came and %d did not", came, missing)
	}
	if _, err := a.wait(t.Context(), time.Millisecond); err == nil {
		t.Error("a push that never came was not missed")
	}
}

// A queue that cannot be started is an error, and not the end of the program.
func TestServersThatFail(t *testing.T) {
	t.Parallel()
	h := new(host)
	ended := false
	h.Cleanup(func() { ended = true })
	err := func() (err error) {
		defer h.rescue(&err)
		h.Fatalf("no %s", "beanstalkd")
		return nil
	}()
	if err == nil || err.Error() != "no beanstalkd" {
		t.Error(err)
	}
	if h.end(); !ended {
		t.Error("something was left")
	}
	if _, err := startServers("rabbitmq"); err == nil {
		t.Error("no error for a queue that is none")
	}
}
