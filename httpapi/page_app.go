package httpapi

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"propeller/apnsconn"
	"propeller/httpapi/page"
	"propeller/internal/text"
	"propeller/supervisor"
	"propeller/worker"
)

// appPage is what an app's page shows.
type appPage struct {
	Row      appRow
	Tube     string
	Since    time.Time // of a state other than running
	Workers  []workerRow
	Outcomes []endedRow
	Failures []endedRow
	Refusals []refusalRow
	Steps    []stepRow
	Expired  int64
	Twice    int64 // possible duplicates
}

// workerRow is a worker in words.
type workerRow struct {
	Index              int
	Does               string // "works", or why it does not
	Trouble            bool
	Age                string // of its connection
	Streams            string
	Held               string
	Received, Finished string
	GoAway             string // the last, "" for none
	GoAwayAt           time.Time
}

// endedRow is a push that has ended, in words.
type endedRow struct {
	Failure
	Help string // what the reason means, if APNs said so
	Took string
}

// refusalRow says how many pushes ended in one way.
type refusalRow struct {
	Class, Reason, Help, Count string
	N                          int64
}

// stepRow is what the watchdog did last, of each kind.
type stepRow struct {
	What, Count, Reason string
	At                  time.Time
}

// appParts are the parts of the page that change, by the ids of their elements,
// which are the names of their templates.
func appParts() []string { return []string{"workers", "outcomes", "failures", "refusals"} }

// appPageOf puts an app into words.
func appPageOf(st *supervisor.AppStatus, row appRow, now time.Time) appPage {
	view := appOf(st)
	out := appPage{
		Row: row, Tube: st.Tube, Since: view.Since, Refusals: refusalsOf(st.Counters), Steps: stepsOf(st.Steps),
		Expired: view.Pushes.Expired, Twice: view.Pushes.PossibleDuplicates,
	}
	for i := range st.Workers {
		out.Workers = append(out.Workers, workerRowOf(i, &st.Workers[i], restWord(st), now))
	}
	all, failures := st.Recent.Last()
	out.Outcomes, out.Failures = endedRows(all), endedRows(failures)
	return out
}

// restWord is why a worker without a connection does nothing.
func restWord(st *supervisor.AppStatus) string {
	switch {
	case st.Held.Held:
		return "is paused"
	case st.Health.State == supervisor.Broken, st.Health.State == supervisor.Guarded:
		return "tries one job a minute"
	}
	return "waits for jobs"
}

func workerRowOf(i int, s *worker.Status, rest string, now time.Time) workerRow {
	w := workerRow{
		Index: i, Does: "works", Age: unknown, Streams: unknown, Held: text.Count(s.Held), Received: text.Count(s.Received), Finished: text.Count(s.Finished),
		GoAway: s.Link.GoAway.Reason, GoAwayAt: s.Link.GoAway.At,
	}
	switch {
	case !s.Serving:
		w.Does, w.Trouble = "does not run", true
	case s.Waiting != "":
		w.Does, w.Trouble = s.Waiting, true
	case !s.Connected:
		w.Does = rest
	}
	if !s.Link.Since.IsZero() {
		w.Age = text.Age(now.Sub(s.Link.Since))
		w.Streams = fmt.Sprintf("%d of %d", s.Link.Open, s.Link.Limit)
	}
	return w
}

func endedRows(ended []worker.Event) (out []endedRow) {
	for i := range ended {
		f := failureOf(&ended[i])
		out = append(out, endedRow{f, apnsconn.Explain(f.Reason), text.Millis(float64(ended[i].Took) / float64(time.Millisecond))})
	}
	return out
}

// refusalsOf are the ways in which pushes ended that were not delivered, the
// most frequent first.
func refusalsOf(c *worker.Counters) (out []refusalRow) {
	for r, n := range c.Refusals() {
		reason := r.Reason
		if status := apnsconn.ReasonStatus(reason); status != 0 {
			reason = fmt.Sprint(status, " ", reason) // as the log has it
		}
		if reason == "" {
			reason = "without a reason of APNs’"
		}
		out = append(out, refusalRow{r.Class.String(), reason, apnsconn.Explain(reason), text.Count(n), n})
	}
	slices.SortFunc(out, func(a, b refusalRow) int {
		if a.N != b.N {
			return int(min(1, max(-1, b.N-a.N)))
		}
		return strings.Compare(a.Class+" "+a.Reason, b.Class+" "+b.Reason)
	})
	return out
}

func stepsOf(s *supervisor.Steps) (out []stepRow) {
	for _, one := range []struct {
		what  string
		count *supervisor.StepCount
	}{{"connection replaced", &s.Replaced}, {"worker restarted", &s.Restarted}, {"stalled", &s.Stalled}} {
		if last := one.count.Last(); last != nil {
			out = append(out, stepRow{one.what, text.Count(one.count.Load()), last.Reason, last.At})
		}
	}
	return out
}

// find is an app as of now; nil if there is none with that topic.
func (p *pages) find(topic string) *supervisor.AppStatus {
	all := p.api.tree.Status()
	for i := range all {
		if all[i].Topic == topic {
			return &all[i]
		}
	}
	return nil
}

func (p *pages) app(w http.ResponseWriter, r *http.Request, v *visitor) {
	topic := r.PathValue("topic")
	st := p.find(topic)
	if st == nil {
		p.fault(w, r, v, http.StatusNotFound, noApp(topic).Error())
		return
	}
	now := time.Now()
	p.show(w, v, http.StatusOK, "app", page.View{
		Title: topic, Events: "/events?topic=" + url.QueryEscape(topic), Main: appPageOf(st, p.sampler.rowOf(st, now), now),
	})
}

// render renders the parts of an app's page that have changed.
func (l *live) render(st *supervisor.AppStatus, now time.Time) map[string]string {
	out := make(map[string]string)
	data := appPageOf(st, appRow{}, now)
	for _, id := range appParts() {
		part, err := page.Fragment("app", id, data)
		if err != nil {
			l.page.api.o.Log.Error("http: page", "part", id, "err", err)
			continue
		}
		if html := string(part); html != l.parts[id] {
			out[id], l.parts[id] = html, html
		}
	}
	return out
}

func (p *pages) pause(w http.ResponseWriter, r *http.Request, v *visitor) {
	p.operate(w, r, v, "app paused", p.api.tree.Pause(r.PathValue("topic"), "paused by "+v.name))
}

func (p *pages) resume(w http.ResponseWriter, r *http.Request, v *visitor) {
	p.operate(w, r, v, "app resumed", p.api.tree.Resume(r.PathValue("topic")))
}

// operate answers an order about an app with its page.
func (p *pages) operate(w http.ResponseWriter, r *http.Request, v *visitor, action string, err error) {
	topic := r.PathValue("topic")
	if err != nil {
		p.fault(w, r, v, statusOf(err), err.Error())
		return
	}
	p.api.audit(r, v.client, action, "topic", topic)
	p.redirect(w, r, appPath(topic))
}

// appPath is where an app's page is.
func appPath(topic string) string { return "/apps/" + url.PathEscape(topic) }
