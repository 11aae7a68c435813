package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"propeller/apnsconn/apnstest"
	"propeller/httpapi"
)

// All buried jobs are kicked, however many, and each once: that they fail again at once
// is said.
func TestKickManyThatFailAgain(t *testing.T) {
	const n = httpapi.MaxJobs + 100
	s := newSite(t, apnstest.Options{})
	s.stateful()
	d := startDaemon(t, s.dir)
	for i := range n {
		s.putByHand(topic, fmt.Sprintf(`{"token": "%064x", "title": "x", "nonsense": %d}`, i, i))
	}
	until(t, "all are buried", func() bool { return s.buried() == n })
	before := strings.Count(d.log(), "job buried")
	r := runProgram(t, s.dir, "", "jobs", "kick", "--topic", topic, "--all")
	if r.status != 0 || r.err != "1000 jobs kicked so far\n" || !strings.HasPrefix(r.out, "1100 jobs kicked; ") || !strings.Contains(r.out, "buried again at once: job: ") {
		t.Errorf("%+v", r)
	}
	until(t, "all are buried again", func() bool { return s.buried() == n })
	if again := strings.Count(d.log(), "job buried") - before; again > n {
		t.Errorf("%d burials by the kick of %d jobs", again, n)
	}
	if out := s.jobs("delete", "--topic", topic, "--all", "--limit", "7"); out != "7 jobs deleted; there are more: run it again\n" {
		t.Errorf("delete says %q", out)
	}
	d.signal(syscall.SIGTERM)
	d.exit()
}

// Of the jobs buried since a kick began only the kicked ones count.
func TestKickSaysWhichFailAgain(t *testing.T) {
	t.Parallel()
	asked, rest := 0, `, {"id": "2"}], "complete": true}`
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/healthz":
		case r.Method == http.MethodPost:
			_, _ = io.WriteString(w, `{"jobs": 3, "ids": ["1", "2", "3"], "more": false}`)
		case asked < 2:
			asked++
			_, _ = io.WriteString(w, `{"jobs": [{"id": "4", "reason": "another's"}], "complete": true}`)
		default:
			_, _ = fmt.Fprintf(w, `{"jobs": [{"id": "4"}, {"id": "3", "reason": "400 BadTopic\u001b"}, {"id": "1"}%s`, rest)
		}
	}))
	defer api.Close()
	c, err := httpapi.ForURL(api.URL, "")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var out strings.Builder
	cmd := &cobra.Command{}
	cmd.SetOut(&out)
	if err := (&jobFlags{all: true}).kick(t.Context(), cmd, c); err != nil || out.String() != "3 jobs kicked; 3 of them buried again at once: 400 BadTopic \n" {
		t.Errorf("%q, %v", out.String(), err)
	}
	out.Reset()
	rest = `], "more": true}`
	if err := (&jobFlags{all: true}).kick(t.Context(), cmd, c); err != nil || out.String() != "3 jobs kicked; at least 2 of them buried again at once: 400 BadTopic \n" {
		t.Errorf("of a list that is cut: %q, %v", out.String(), err)
	}
	out.Reset()
	some := settled{Settled: httpapi.Settled{Jobs: 2}, BuriedAgain: 2, Reason: "400 BadTopic", several: true}
	if err := (&jobFlags{}).printSettled(cmd, some, "kicked"); err != nil || !strings.Contains(out.String(), "the first: 400 BadTopic; for the others see propeller jobs list") {
		t.Errorf("%q, %v", out.String(), err)
	}
}

// A daemon that stands still is given up, and the error says so.
func TestCommandsOnAFrozenDaemon(t *testing.T) {
	s := newSite(t, apnstest.Options{})
	s.stateful()
	d := startDaemon(t, s.dir)
	until(t, "it answers", func() bool { return runProgram(t, s.dir, "", "status").status == 0 })
	d.signal(syscall.SIGSTOP)
	for _, args := range [][]string{
		{"status"}, {"jobs", "list", "--topic", topic}, {"jobs", "show", "--topic", topic, "--id", "1"},
		{"jobs", "kick", "--topic", topic, "--all"}, {"jobs", "delete", "--topic", topic, "--all"},
	} {
		t.Run(fmt.Sprint(args), func(t *testing.T) {
			began := time.Now()
			r := runProgram(t, s.dir, "", args...)
			if r.status == 0 || !strings.Contains(r.err, "does not answer within 5s") || strings.Count(r.err, "\n") != 1 {
				t.Errorf("after %v: %+v", time.Since(began), r)
			}
		})
	}
	d.signal(syscall.SIGCONT)
	d.signal(syscall.SIGTERM)
	d.exit()
}
