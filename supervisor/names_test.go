package supervisor

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"propeller/apnsconn"
	"propeller/apnsconn/apnstest"
)

// Two apps of one topic, each with its own APNs, share nothing but the topic: tube, pause,
// counters, buried jobs and log lines are each its own.
func TestAppsOfOneTopic(t *testing.T) {
	w := newWorld(t, apnstest.Options{})
	sandbox := apnstest.NewServer(apnstest.Options{})
	t.Cleanup(sandbox.Close)
	const lane = "app-sandbox"
	w.write("sandbox-ca.pem", sandbox.CACertPEM())
	w.write("sandbox.pem", sandbox.ClientCertPEM(topic))
	second := fmt.Sprintf("  - {name: %s, topic: %s, cert: sandbox.pem, server: %s, ca_file: %s}\n", lane, topic, sandbox.URL, filepath.Join(w.dir, "sandbox-ca.pem"))
	first := w.app(topic)
	w.start(first + second)

	if err := w.sup.Pause(lane, "by order"); err != nil {
		t.Fatal(err)
	}
	for i, app := range []string{topic, lane} {
		if _, err := w.sup.Put(t.Context(), app, []byte(jobBody(i)), 0); err != nil {
			t.Fatal(err)
		}
	}
	w.until("the first app delivers", func() bool { return w.named(topic).Counters.Ended(apnsconn.Delivered) == 1 })
	if n := w.tube(lane, "current-jobs-ready"); n != 1 {
		t.Errorf("the paused lane's tube has %d jobs", n)
	}
	if err := w.sup.Resume(lane); err != nil {
		t.Fatal(err)
	}
	w.put(lane, `{"token":"`+token(2)+`","nonsense":1}`)
	w.until("the lane delivers one and buries one", func() bool {
		c := w.named(lane).Counters
		return c.Ended(apnsconn.Delivered) == 1 && c.Buried.Load() == 1
	})
	if n := w.named(topic).Counters; n.Ended(apnsconn.Delivered) != 1 || n.Buried.Load() != 0 {
		t.Errorf("the first app has delivered %d and buried %d", n.Ended(apnsconn.Delivered), n.Buried.Load())
	}
	if a, b := len(w.apns.Requests()), len(sandbox.Requests()); a != 1 || b != 1 {
		t.Errorf("%d and %d requests", a, b)
	}
	if got := sandbox.Requests()[0].Header.Get("apns-topic"); got != topic {
		t.Errorf("the lane pushes for topic %q", got)
	}
	for _, want := range []string{"app=" + lane + " topic=" + topic + " worker=0", "app=" + topic + " topic=" + topic + " worker=0"} {
		if !w.log.contains(want) {
			t.Errorf("no log line has %q", want)
		}
	}
	for said, want := range map[string]string{topic: topic, lane: "", "com.example.none": ""} {
		if name, err := w.sup.AppOf(said); name != want || (err == nil) != (want != "") {
			t.Errorf("topic %q is app %q, %v", said, name, err)
		}
	}
	if rules, err := w.sup.App(lane); err != nil || rules.Topic != topic {
		t.Errorf("%+v, %v", rules, err)
	}
	jobs, err := w.sup.Jobs(lane)
	if err != nil || jobs.Tube != lane || jobs.Topic != topic {
		t.Errorf("%+v, %v", jobs, err)
	}
	if _, err := w.sup.Put(context.Background(), "com.example.none", nil, 0); !errors.Is(err, ErrNoApp) || !strings.Contains(err.Error(), `app "com.example.none"`) {
		t.Errorf("%v", err)
	}

	// The lane gets another name: one app goes and one comes; the other works on.
	before := w.named(topic).Workers
	if err := w.sup.Apply(w.config(first + strings.Replace(second, "name: "+lane, "name: renamed, tube: "+lane, 1))); err != nil {
		t.Fatal(err)
	}
	w.put(lane, jobBody(3))
	w.until("the renamed lane delivers", func() bool { return w.named("renamed").Counters.Ended(apnsconn.Delivered) == 1 })
	if after := w.named(topic).Workers; len(before) != 1 || len(after) != 1 || after[0].Received != before[0].Received || !after[0].Connected {
		t.Errorf("the first app had %+v, has %+v", before, after)
	}
	// Without the first app its topic stands for the only one that is left, and of two for none.
	apply := func(apps string) {
		if err := w.sup.Apply(w.config(apps)); err != nil {
			t.Fatal(err)
		}
	}
	renamed := strings.Replace(second, "name: "+lane, "name: renamed", 1)
	apply(renamed)
	if name, err := w.sup.AppOf(topic); name != "renamed" || err != nil {
		t.Errorf("%q, %v", name, err)
	}
	apply(renamed + second)
	var several *AmbiguousError
	if _, err := w.sup.AppOf(topic); !errors.As(err, &several) || fmt.Sprint(several.Apps) != "[app-sandbox renamed]" {
		t.Errorf("%v", err)
	}
	if !w.log.contains(`msg="app removed" app=` + lane + " topic=" + topic) {
		t.Error("the removed name is not logged")
	}
}

// named returns the status of the app of that name.
func (w *world) named(name string) AppStatus {
	w.t.Helper()
	for _, a := range w.sup.Status() {
		if a.Name == name {
			return a
		}
	}
	w.t.Fatalf("no app %q", name)
	return AppStatus{}
}
