package supervisor

import (
	"slices"
	"strings"
	"testing"
	"time"

	"propeller/apnsconn/apnstest"
	"propeller/queue/beanstalk/beanstalktest"
	"propeller/worker/buried"
	"propeller/worker/job"
)

// listed returns the reasons of an app's buried jobs, by their producer's ids.
func (w *world) listed(topic string) (reasons map[string]string, complete bool) {
	w.t.Helper()
	view, err := w.sup.Jobs(topic)
	if err != nil {
		w.t.Fatal(err)
	}
	l, err := view.List(w.t.Context(), buried.Filter{})
	if err != nil {
		w.t.Fatal(err)
	}
	reasons = make(map[string]string)
	for _, it := range l.Items {
		reasons[it.Job] = it.Reason
	}
	return reasons, l.Complete
}

// count counts the reasons that contain text.
func count(reasons map[string]string, text string) (n int) {
	for _, reason := range reasons {
		if strings.Contains(reason, text) {
			n++
		}
	}
	return n
}

// Buried jobs have their reasons, also those buried before the daemon started or by another
// daemon. A job that an earlier version buried has none.
func TestReasonsAreInTheQueue(t *testing.T) {
	const n = 12
	w := newWorld(t, apnstest.Options{})
	w.apns.SetScript(apnstest.Always(apnstest.Answer{Status: 413, Reason: "PayloadTooLarge"}))
	w.start(w.app(topic))
	w.putMany(topic, n)
	w.put(topic, `{"token":"x","title":"y"}`, "garbage")
	w.until("all are buried", func() bool { return w.tube(topic, "current-jobs-buried") == n+2 })
	check := func(what string) map[string]string {
		t.Helper()
		reasons, complete := w.listed(topic)
		if count(reasons, "413 PayloadTooLarge") != n || count(reasons, "hex") != 1 || count(reasons, "not JSON") != 1 || !complete {
			t.Errorf("%s: %q, complete %t", what, reasons, complete)
		}
		return reasons
	}
	w.until("all are known", func() bool { reasons, _ := w.listed(topic); return len(reasons) == n+2 })
	first := check("the daemon that has buried them")
	var id string
	for id = range first {
	}
	if of, found := w.sup.FindBuried(id); of != topic || len(found) != 1 || found[0].Reason != first[id] {
		t.Errorf("%s is %+v of %q", id, found, of)
	}
	if of, found := w.sup.FindBuried("4711"); of != "" || len(found) != 0 {
		t.Errorf("%+v of %q", found, of)
	}
	if _, err := w.sup.Jobs("com.example.none"); err == nil {
		t.Error("jobs of an app that is not there")
	}
	second := *w
	second.stop = nil
	second.start(w.app(topic))
	defer second.halt()
	if reasons, complete := second.listed(topic); len(reasons) != n+2 || !complete {
		t.Errorf("another daemon: %q", reasons)
	}
	second.halt()
	w.halt()
	buriedIn(t, w.bs, topic, jobBody(99))
	w.start(w.app(topic))
	w.until("they are read", func() bool {
		_, found := w.sup.FindBuried(id)
		return len(found) == 1
	})
	after := check("after a restart")
	if count(after, job.NotRecorded) != 1 {
		t.Errorf("%q", after)
	}
	for id, reason := range first {
		if after[id] != reason {
			t.Errorf("%s: %q, was %q", id, after[id], reason)
		}
	}
	w.apply(w.app("com.example.other"))
	w.until("nothing is known of an app that has gone", func() bool { of, _ := w.sup.FindBuried(id); return of == "" })
}

// Whichever daemon receives a kicked job pushes it, with the same apns-id.
func TestKickedIsPushed(t *testing.T) {
	w := newWorld(t, apnstest.Options{})
	w.apns.SetScript(apnstest.Always(apnstest.Answer{Status: 400, Reason: "BadTopic"}))
	w.start(w.app(topic))
	w.put(topic, jobBody(1))
	w.until("it is buried", func() bool { reasons, _ := w.listed(topic); return len(reasons) == 1 })
	w.apns.SetScript(nil)
	view, err := w.sup.Jobs(topic)
	if err != nil {
		t.Fatal(err)
	}
	if r, err := view.Kick(t.Context(), buried.Filter{}); err != nil || len(r.Jobs) != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	w.empty(topic)
	var ids []string
	for _, r := range w.apns.Requests() {
		ids = append(ids, r.Header.Get("apns-id"))
	}
	if len(ids) != 2 || len(slices.Compact(ids)) != 1 {
		t.Errorf("apns-ids %q", ids)
	}
}

// buriedIn puts a job in a tube and buries it as an earlier version did.
func buriedIn(t *testing.T, srv *beanstalktest.Server, tube, body string) {
	t.Helper()
	c := srv.Dial()
	defer c.Close()
	c.Tube.Name, c.TubeSet.Name = tube, map[string]bool{tube: true}
	id, err := c.Put([]byte(body), 1, 0, time.Minute)
	if err == nil {
		_, _, err = c.Reserve(5 * time.Second) // a connection that was just closed may hold it for a moment
	}
	if err == nil {
		err = c.Bury(id, 1)
	}
	if err != nil {
		t.Fatal(err)
	}
}
