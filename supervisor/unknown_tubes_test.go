package supervisor

import (
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"

	"propeller/apnsconn/apnstest"
	"propeller/queue"
	"propeller/queue/beanstalk"
	"propeller/queue/beanstalk/beanstalktest"
	"propeller/queue/jetstream"
	"propeller/queue/queueurl"
)

// Jobs that a producer put into a tube of no app are told, and so are those of an app
// that was removed. Tubes of apps and of their records are not.
func TestUnknownTubes(t *testing.T) {
	w := newWorld(t, apnstest.Options{})
	w.cert("com.example.other")
	w.put("com.example.ap", `{}`, `{}`)
	w.put(topic+".feedback", `{}`)
	w.start(w.app(topic))
	w.until("the misspelled tube is told", func() bool {
		found := w.sup.UnknownTubes()
		return len(found) == 1 && found[0].Name == "com.example.ap" && found[0].Ready == 2
	})
	if text := w.log.String(); !strings.Contains(text, `msg="tube has jobs, but no app works on it" tube=com.example.ap ready=2`) {
		t.Error(text)
	}
}

// Jobs in the tube that an app had before it got a name are told of at a start and at each
// reload, with the line that keeps the tube; with that line they are delivered.
func TestFormerDefaultTube(t *testing.T) {
	w := newWorld(t, apnstest.Options{})
	w.put(topic, jobBody(0))
	w.put(topic+".feedback", `{}`)
	for i := range maxUnknown { // of other programs
		w.put(fmt.Sprintf("a-%02d", i), `{}`)
	}
	lane := strings.Replace(w.app(topic), "{topic", "{name: lane, topic", 1)
	w.start(lane)
	const line = `an app had it by default before it got a name; the line keeps it" app=lane topic=` + topic + ` tube=` + topic + ` line="tube: ` + topic + `" ready=1`
	told := func(n int) func() bool {
		return func() bool { return strings.Count(w.log.String(), line) == n }
	}
	w.until("it is told at the start", told(1))
	if text := w.log.String(); !strings.Contains(text, `line="feedback: {tube: `+topic+`.feedback}"`) {
		t.Error(text)
	}
	if err := w.sup.Apply(w.config(lane)); err != nil {
		t.Fatal(err)
	}
	w.until("it is told at the reload", told(2))
	if err := w.sup.Apply(w.config(strings.Replace(lane, "name: lane", "name: lane, tube: "+topic, 1))); err != nil {
		t.Fatal(err)
	}
	w.until("its job is delivered", func() bool { return len(w.received()) == 1 })
}

// However many there are, some are told, each once in the log, and what is empty again
// is not told any more.
func TestManyUnknownTubes(t *testing.T) {
	t.Parallel()
	srv := beanstalktest.Start(t)
	bs, err := beanstalk.Open(beanstalk.Options{Addrs: []string{srv.Addr()}})
	if err != nil {
		t.Fatal(err)
	}
	js, err := jetstream.Open(jetstream.Options{URL: queueurl.URL{Scheme: "embedded", Dir: t.TempDir()}})
	if err != nil {
		t.Fatal(err)
	}
	for name, q := range map[string]queue.Queue{"beanstalkd": bs, "embedded": js} {
		t.Run(name, func(t *testing.T) {
			defer q.Close()
			for i := range maxUnknown + 3 {
				if _, err := q.Put(t.Context(), fmt.Sprintf("tube-%02d", i), []byte("x"), queue.PutOptions{}); err != nil {
					t.Fatal(err)
				}
			}
			log := new(logBuffer)
			u := &unknownTubes{log: slog.New(slog.NewTextHandler(log, nil)), found: new(atomic.Pointer[[]UnknownTube])}
			u.queue = func() (queue.Admin, map[string]bool, map[string]formerTube) {
				return q.(queue.Admin), map[string]bool{"tube-00": true}, nil
			}
			for range 2 {
				if !u.look(t.Context(), false) {
					t.Fatal("no answer")
				}
			}
			if found := *u.found.Load(); len(found) != maxUnknown || found[0].Name != "tube-01" || found[0].Ready != 1 {
				t.Errorf("%+v", found)
			}
			if n := strings.Count(log.String(), "no app works on it"); n != maxUnknown {
				t.Errorf("%d lines", n)
			}
			c, err := q.Consume("tube-01")
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close(t.Context())
			jobs, err := c.Receive(t.Context(), 1)
			if err == nil {
				err = jobs[0].Done(t.Context())
			}
			if err != nil {
				t.Fatal(err)
			}
			if u.look(t.Context(), false); (*u.found.Load())[0].Name != "tube-02" {
				t.Errorf("%+v", *u.found.Load())
			}
		})
	}
}
