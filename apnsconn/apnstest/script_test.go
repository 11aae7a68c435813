package apnstest_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"propeller/apnsconn/apnstest"
)

// ask returns the statuses of the answers to n requests, 0 for the zero Answer.
func ask(script apnstest.Script, n int) []int {
	statuses := make([]int, n)
	for i := range statuses {
		statuses[i] = script(&apnstest.Request{Token: fmt.Sprintf("aabb%02d", i)}).Status
	}
	return statuses
}

func TestScripts(t *testing.T) {
	t.Parallel()
	a := func(status int) apnstest.Answer { return apnstest.Answer{Status: status} }
	tests := []struct {
		name   string
		script apnstest.Script
		want   []int
	}{
		{"Always", apnstest.Always(a(500)), []int{500, 500, 500, 500, 500}},
		{"ByToken", apnstest.ByToken(map[string]apnstest.Answer{"AABB01": a(410)}), []int{0, 410, 0, 0, 0}},
		{"Nth", apnstest.Nth(2, a(429)), []int{0, 429, 0, 0, 0}},
		{"Every", apnstest.Every(2, a(429)), []int{0, 429, 0, 429, 0}},
		{"Every 0", apnstest.Every(0, a(429)), []int{0, 0, 0, 0, 0}},
		{"Seq", apnstest.Seq(a(500), a(503)), []int{500, 503, 0, 0, 0}},
		{"First", apnstest.First(apnstest.Nth(1, a(500)), apnstest.Every(2, a(503))), []int{500, 0, 503, 0, 503}},
		{"Sometimes never", apnstest.Sometimes(0, 1, a(500)), []int{0, 0, 0, 0, 0}},
		{"Sometimes always", apnstest.Sometimes(1, 1, a(500)), []int{500, 500, 500, 500, 500}},
	}
	for _, tt := range tests {
		if got := ask(tt.script, 5); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
	one, two := ask(apnstest.Sometimes(0.3, 7, a(500)), 1000), ask(apnstest.Sometimes(0.3, 7, a(500)), 1000)
	hits := len(slices.DeleteFunc(slices.Clone(one), func(s int) bool { return s == 0 }))
	if !slices.Equal(one, two) || hits < 200 || hits > 400 {
		t.Errorf("Sometimes: %d hits of 1000 at 0.3, repeatable %v", hits, slices.Equal(one, two))
	}
}

// TestTokenCodes: the convention for clients that cannot be scripted.
func TestTokenCodes(t *testing.T) {
	t.Parallel()
	srv := newServer(t, apnstest.Options{Script: apnstest.TokenCodes})
	c, _ := dial(t, srv)
	path := func(end string) []string { return []string{":path", "/3/device/abcdef" + end} }
	for i, tt := range []struct{ end, status, reason string }{
		{"00", "200", ""},
		{"fa170410", "410", "Unregistered"},
		{"FA170400", "400", "BadDeviceToken"},
		{"fa170503", "503", "ServiceUnavailable"},
		{"fa17041a", "200", ""},
		{"fa171001", "200", ""},
		{"fa179999", "200", ""},
	} {
		id := uint32(2*i + 1)
		c.push(id, path(tt.end)...)
		if got := c.response(id); got.status != tt.status || !strings.Contains(got.body, tt.reason) {
			t.Errorf("%s: %s %s", tt.end, got.status, got.body)
		}
	}
	c.push(101, path("fa170000")...)
	c.push(103, path("fa170001")...)
	c.push(105, path("fa170002")...)
	c.push(107, path("fa170003")...)
	c.push(109, path("fa170004")...)
	var names []string
	for {
		ev, err := c.read()
		if err != nil {
			break
		}
		names = append(names, fmt.Sprintf("%v %d %v", ev.typ, ev.stream, ev.code))
	}
	// The last frame before the connection is lost may be lost with it.
	want := []string{"RST_STREAM 103 REFUSED_STREAM", "RST_STREAM 105 INTERNAL_ERROR", "HEADERS 107 NO_ERROR", "GOAWAY 0 NO_ERROR"}
	if len(names) > len(want) || !slices.Equal(names, want[:len(names)]) {
		t.Errorf("frames %v, want %v", names, want)
	}
}

func TestParseFault(t *testing.T) {
	t.Parallel()
	good := []struct {
		text string
		want []int // statuses of ten requests; -1: not an answer of that kind
	}{
		{"status=503", []int{503, 503, 503, 503, 503, 503, 503, 503, 503, 503}},
		{"status=503,every=5", []int{0, 0, 0, 0, 503, 0, 0, 0, 0, 503}},
		{" status=410 , nth=2 ", []int{0, 410, 0, 0, 0, 0, 0, 0, 0, 0}},
		{"status=429,token=AABB07", []int{0, 0, 0, 0, 0, 0, 0, 429, 0, 0}},
		{"status=500,token=aabb0,every=10", []int{0, 0, 0, 0, 0, 0, 0, 0, 0, 500}},
	}
	for _, tt := range good {
		f, err := apnstest.ParseFault(tt.text)
		if err != nil {
			t.Errorf("%q: %v", tt.text, err)
			continue
		}
		if got := ask(f.Script(1), 10); !slices.Equal(got, tt.want) {
			t.Errorf("%q: %v, want %v", tt.text, got, tt.want)
		}
	}
	bad := map[string]string{
		"":                     "not known",
		"rate=0.5":             "nothing happens",
		"status=99":            "status from 200",
		"status":               "status from 200",
		"reason=":              "want a reason",
		"status=503,rate=2":    "above 0",
		"status=503,rate=NaN":  "above 0",
		"status=503,every=0":   "whole number",
		"status=503,token=":    "device token",
		"delay=fast":           "duration",
		"delay=-1s":            "duration",
		"reset=SOMETHING":      "error code",
		"streams=-1":           "number of streams",
		"status=503;rate=0.01": "status from 200",
		"explode":              "not known",
	}
	for text, want := range bad {
		if _, err := apnstest.ParseFault(text); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), fmt.Sprintf("%q", text)) {
			t.Errorf("%q: error %v, want one with %q and the text", text, err, want)
		}
	}
}

// TestFaultsOnTheWire: each kind of fault as a client meets it.
func TestFaultsOnTheWire(t *testing.T) {
	t.Parallel()
	tests := []struct {
		text string
		want string // the frames for one push
	}{
		{"reason=BadDeviceToken", "HEADERS DATA.E"},
		{"status=503,nobody", "HEADERS.E"},
		{"status=502,body=<html>", "HEADERS DATA.E"},
		{"delay=1ms", "HEADERS.E"},
		{"silence", ""},
		{"reset", "RST_STREAM"},
		{"reset=cancel", "RST_STREAM"},
		{"goaway", "HEADERS.E GOAWAY"},
		{"goaway=IdleTimeout,close", "HEADERS.E GOAWAY end"},
		{"close", "HEADERS.E end"},
		{"abort", "end"},
		{"streams=1", "HEADERS.E SETTINGS"},
	}
	for _, tt := range tests {
		t.Run(tt.text, func(t *testing.T) {
			t.Parallel()
			f, err := apnstest.ParseFault(tt.text)
			if err != nil {
				t.Fatal(err)
			}
			srv := newServer(t, apnstest.Options{Script: apnstest.Faults(1, f)})
			c, _ := dial(t, srv)
			c.push(1)
			wantWithin(t, srv.Wait(within(t), 1))
			if !f.Answer.Silence {
				wantWithin(t, srv.WaitAnswered(within(t), 1))
			}
			c.fr.WritePing(false, [8]byte{})
			var evs []event
			end := ""
			for {
				ev, err := c.read()
				if err != nil {
					end = " end"
					break
				}
				if ev.typ == http2.FramePing {
					break
				}
				evs = append(evs, ev)
			}
			if got := strings.TrimSpace(frameNames(evs) + end); got != tt.want {
				t.Errorf("frames %q, want %q", got, tt.want)
			}
		})
	}
}

// TestGoneFault: a 410 by fault has a timestamp in the past.
func TestGoneFault(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"status=410", "reason=ExpiredToken"} {
		f, err := apnstest.ParseFault(text)
		if err != nil {
			t.Fatal(err)
		}
		now := time.Now()
		if ts := f.Script(1)(&apnstest.Request{At: now}).Timestamp; ts.IsZero() || !ts.Before(now) {
			t.Errorf("%s: timestamp %v", text, ts)
		}
	}
}

func FuzzParseFault(f *testing.F) {
	for _, s := range []string{"status=503,rate=0.01", "goaway=Shutdown,every=5", "reset=CANCEL,nth=3", "body=,token=ab", ",,="} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		fault, err := apnstest.ParseFault(s)
		if err != nil {
			return
		}
		if a := fault.Answer; a.IsZero() {
			t.Errorf("%q: does nothing", s)
		}
		fault.Script(1)(&apnstest.Request{Token: token})
	})
}
