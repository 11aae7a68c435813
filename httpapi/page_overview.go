package httpapi

import (
	"cmp"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"propeller/apnsconn"
	"propeller/httpapi/page"
	"propeller/internal/text"
	"propeller/supervisor"
)

// appRow is an app as the page shows it, in words. Its fields' names are the
// classes of the elements that hold them.
type appRow struct {
	Topic       string `json:"topic"`
	State       string `json:"state"`
	Held        string `json:"held"` // "held" if an operator holds it
	Also        string `json:"also"` // that it is held, where the state does not say so, or keeps its credential
	Why         string `json:"why"`
	Help        string `json:"help"` // what Why means, if it is an answer of APNs'
	Rate        string `json:"rate"`
	P50         string `json:"p50"`
	P99         string `json:"p99"`
	InFlight    string `json:"inflight"`
	Connections string `json:"connections"`
	Ready       string `json:"ready"`
	Delayed     string `json:"delayed"`
	Buried      string `json:"buried"`
	Delivered   string `json:"delivered"`
	Failed      string `json:"failed"`
	Expiry      string `json:"expiry"`
	Urgency     string `json:"urgency"` // of Expiry: "", "soon", "now"
}

const (
	unknown         = "–"
	keepsCredential = "it keeps the credential it has, since the new one cannot be used: "
)

// rowOf puts an app into words.
func (a *sampled) rowOf(st *supervisor.AppStatus, now time.Time) appRow {
	view := appOf(st)
	r := appRow{
		Topic: st.Topic, State: view.State.Word(), Why: view.Reason, Help: apnsconn.Explain(view.Reason), Rate: unknown, P50: unknown, P99: unknown,
		Ready: unknown, Delayed: unknown, Buried: unknown,
		Delivered: text.Count(st.Counters.Ended(apnsconn.Delivered)), Failed: text.Count(failedOf(st)),
	}
	if !view.Since.IsZero() {
		r.Why += ", since " + moment(view.Since, now)
	}
	var also []string
	if st.Held.Held {
		r.Held = "held"
		if view.State != supervisor.Paused {
			also = append(also, "also paused by an operator")
		}
	}
	if view.KeepsCredential() {
		also = append(also, "new credential refused")
		r.Why = strings.TrimPrefix(r.Why+"; "+keepsCredential+view.CredentialFault, "; ")
	}
	r.Also = strings.Join(also, "; ")
	if rate, ok := a.rate(); ok {
		r.Rate = perSecond(rate)
	}
	if l := a.latency(&st.Counters.Seconds); l != nil {
		r.P50, r.P99 = text.Millis(l.P50), text.Millis(l.P99)
	}
	inFlight, connected := 0, 0
	for _, w := range st.Workers {
		inFlight += w.InFlight
		if w.Connected {
			connected++
		}
	}
	r.InFlight, r.Connections = text.Count(inFlight), fmt.Sprintf("%d/%d", connected, len(st.Workers))
	if a.tube != nil {
		view.Queue = &Queue{Ready: a.tube.Ready, Reserved: a.tube.Reserved}
		r.Ready, r.Delayed, r.Buried = text.Count(view.Waiting()), text.Count(a.tube.Delayed), text.Count(a.tube.Buried)
	}
	expiry, urgency := text.Expiry(st.CredentialExpiry, now)
	r.Expiry, r.Urgency = cmp.Or(expiry, unknown), urgency
	return r
}

// failedOf counts the pushes that ended, and were not delivered.
func failedOf(st *supervisor.AppStatus) int64 {
	return endedOf(st.Counters) - st.Counters.Ended(apnsconn.Delivered)
}

func perSecond(rate float64) string {
	if rate > 0 && rate < 100 {
		return strconv.FormatFloat(rate, 'f', 1, 64)
	}
	return text.Count(int64(math.Round(rate)))
}

// moment is a time of today, or a day.
func moment(at, now time.Time) string {
	if now.Sub(at) < 20*time.Hour {
		return at.UTC().Format("15:04:05 UTC")
	}
	return at.UTC().Format("Jan 2 15:04 UTC")
}

func calm(st *supervisor.AppStatus) int {
	if st.Health.State.Works() {
		return 1
	}
	return 0
}

// overviewPage is what the overview shows.
type overviewPage struct {
	Apps    []appRow // those in trouble in front
	Total   totals
	Unknown []UnknownTube
}

// refusedReload says that the last reload was refused; "" if it was not.
func (p *pages) refusedReload(v *visitor, now time.Time) string {
	r := p.api.refusedReload(v.client)
	if r == nil {
		return ""
	}
	refused := "The last reload, at " + moment(r.At, now) + ", was refused, and nothing is changed"
	if r.Fault != "" {
		refused += ":\n" + r.Fault
	}
	return refused
}

// totals are the numbers above all apps.
type totals struct {
	Apps    string `json:"apps"`
	Trouble string `json:"trouble"`
	Rate    string `json:"rate"`
}

func totalsOf(rows []supervisor.AppStatus, rate float64) totals {
	bad := 0
	for i := range rows {
		if rows[i].Health.State.Trouble() {
			bad++
		}
	}
	t := totals{Apps: text.Plural(len(rows), "app"), Trouble: "all well", Rate: perSecond(rate)}
	if bad > 0 {
		t.Trouble = text.Plural(bad, "app") + " in trouble"
	}
	return t
}

// rows returns the apps that a visitor may see, those that do not work first.
func (p *pages) rows(v *visitor) (rows []appRow, seen []supervisor.AppStatus) {
	now := time.Now()
	all := slices.SortedStableFunc(slices.Values(p.api.tree.Status()), func(a, b supervisor.AppStatus) int {
		return cmp.Compare(calm(&a), calm(&b))
	})
	for _, st := range all {
		if v.may(st.Topic) {
			rows = append(rows, p.sampler.rowOf(&st, now))
			seen = append(seen, st)
		}
	}
	return rows, seen
}

// rowOf is the row of an app as of now, with what samples have shown before.
func (s *sampler) rowOf(st *supervisor.AppStatus, now time.Time) appRow {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.apps[st.Topic]
	if a == nil || now.Sub(a.at) > 2*sampleEvery {
		a = new(sampled)
		if st.Queue != nil {
			a.tube = &st.Queue.TubeStats
		}
	}
	return a.rowOf(st, now)
}

func (p *pages) overview(w http.ResponseWriter, _ *http.Request, v *visitor) {
	rows, seen := p.rows(v)
	p.show(w, v, http.StatusOK, "overview", page.View{Title: "Apps", Events: "/events", Main: overviewPage{rows, totalsOf(seen, 0), p.api.unknownTubes(v.client)}})
}
