package bench

import (
	"fmt"
	"maps"
	"runtime"
	"strings"
	"testing"
	"time"

	"propeller/internal/apnslean"
	"propeller/worker/job"
)

// The jobs are what a worker makes pushes of, with payloads of the size wanted.
func TestJobs(t *testing.T) {
	t.Parallel()
	now := time.Now()
	tokens := make(map[string]bool)
	for _, payload := range []int{LeastPayload, 113, 4096} {
		for _, n := range []int{1, 2, MaxFanOut} {
			body := newJobMaker(payload, RandomHex(8)).Job(7, n, now)
			d, err := job.Parse(body, "com.example.app", "")
			if err != nil {
				t.Fatal(err)
			}
			got := d.Notification
			if len(got.Payload) != payload {
				t.Errorf("payload of %d bytes, want %d: %s", len(got.Payload), payload, got.Payload)
			}
			if put, ok := apnslean.Stamped(got.Payload); !ok || put.UnixMicro() != now.UnixMicro() {
				t.Errorf("stamp %v of %s", put, got.Payload)
			}
			maps.Insert(tokens, maps.All(map[string]bool{fmt.Sprint(d.Tokens, got.Token): true}))
			if beanstalkdMost := 65535; payload == 113 && len(body) > beanstalkdMost {
				t.Errorf("%d tokens: a job of %d bytes", n, len(body))
			}
		}
	}
	if len(tokens) != 9 {
		t.Errorf("tokens come twice: %d different lists, want 9", len(tokens))
	}
}

func TestLimit(t *testing.T) {
	t.Parallel()
	quiet := conditions{inFlight: 500, oneToken: true, held: 450, room: 500}
	for _, test := range []struct {
		want   string
		others float64 // cores
		idle   float64
		change func(c *conditions)
	}{
		{limitUnclear, 0.1, 3.2, func(*conditions) {}},
		{limitWindow, 0.1, 3.2, func(c *conditions) { c.delayed, c.blocked = true, 0.8 }},
		{limitInFlight, 0.1, 3.2, func(c *conditions) { c.delayed, c.open = true, 480 }},
		{limitUnclear, 0.1, 3.2, func(c *conditions) { c.open, c.blocked = 480, 0.8 }},
		{limitQueue, 0.1, 3.2, func(c *conditions) { c.held = 20 }},
		{limitUnclear, 0.1, 3.2, func(c *conditions) { c.held, c.oneToken = 20, false }},
		{limitCPU, 0.1, 0.1, func(c *conditions) { c.held = 20 }},
		{limitOthers, 1.9, 0.1, func(c *conditions) { c.held = 20 }},
	} {
		c := quiet
		c.Cores = Cores{Daemon: 3.9 - test.others - test.idle, StandIn: 0.1, Others: &test.others, Idle: &test.idle, Of: 4}
		test.change(&c)
		if got, why := c.limit(); got != test.want || why == "" {
			t.Errorf("%+v\nlimit %q (%s), want %q", c, got, why, test.want)
		}
		if want := fmt.Sprintf("stand-in 0.10, other programs %.2f, idle %.2f, of 4", test.others, test.idle); !strings.HasSuffix(c.String(), want) {
			t.Errorf("%s, want %s", c.String(), want)
		}
	}
	unknown := quiet
	unknown.Cores = Cores{Daemon: 3.9, Of: 4}
	if got, _ := unknown.limit(); got != limitUnclear || strings.Contains(unknown.String(), "idle") {
		t.Errorf("%q of %s", got, unknown.String())
	}
}

// What was used adds up to all cores.
func TestBusyCores(t *testing.T) {
	t.Parallel()
	of := float64(runtime.GOMAXPROCS(0))
	c := BusyCores(Usage{Time: 2 * time.Second, CPU: time.Second, Idle: 500 * time.Millisecond, IdleKnown: true}, 250*time.Millisecond)
	if c.Daemon != 0.5 || c.StandIn != 0.125 || *c.Idle != 0.25 || *c.Others != max(0, of-0.875) || c.Of != of {
		t.Errorf("%+v, others %v, idle %v", c, *c.Others, *c.Idle)
	}
	if c := BusyCores(Usage{Time: time.Second}, 0); c.Others != nil || c.Idle != nil {
		t.Errorf("%+v", c)
	}
}
