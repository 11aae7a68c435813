package httpapi

import (
	"math"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"propeller/apnsconn"
	"propeller/queue"
	"propeller/supervisor"
)

// MetricsOptions are what NewMetrics needs besides a tree.
type MetricsOptions struct {
	Version    string
	Reloads    func() (at time.Time, refused *RefusedReload) // as Options.Reloads
	Forgotten  *atomic.Int64                                 // as Options.Forgotten
	UnusedApps func() bool                                   // whether to tell of unused apps
}

// NewMetrics answers GET /metrics with the numbers of a tree, in the form of
// Prometheus. It keeps none of its own: they are read when it is asked.
func NewMetrics(t appTree, o MetricsOptions) http.Handler {
	r := prometheus.NewRegistry()
	r.MustRegister(
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		&collector{t, o},
	)
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{})
}

// collector is a prometheus.Collector.
type collector struct {
	tree appTree
	o    MetricsOptions
}

// The metrics. docs/http-api.md has them in a table.
var (
	descPushes     = desc("pushes_total", "Pushes that have ended, by class and APNs' reason.", "class", "reason")
	descSeconds    = desc("push_seconds", "Time from sending a push to APNs' answer.")
	descInFlight   = desc("in_flight", "Pushes under way and jobs being settled.")
	descHeld       = desc("jobs_held", "Jobs that workers have received and not settled.")
	descQueue      = desc("queue_jobs", "Jobs in the app's tube by state, at the watchdog's last look.", "state")
	descPartial    = desc("queue_incomplete", "1 while the numbers of queue_jobs lack those of a server of the queue.")
	descConns      = desc("connections", "Connections to APNs.")
	descDials      = desc("dials_total", "Connections to APNs attempted.", "result")
	descGoAways    = desc("goaways_total", "Connections that APNs has ended with GOAWAY.")
	descDuplicates = desc("possible_duplicates_total", "Pushes that may reach a device twice.")
	descBuried     = desc("buried_total", "Jobs set aside with a reason.")
	descExpired    = desc("expired_total", "Jobs dropped unsent because they were too late.")
	descPanics     = desc("panics_total", "Jobs that made a worker panic.")
	descState      = desc("app_state", "1 for the state that the app is in.", "state")
	descWorkers    = desc("workers", "Workers of the app.")
	descWatchdog   = desc("watchdog_steps_total", "What the watchdog has done about the app.", "step")
	descExpiry     = desc("credential_expiry_timestamp_seconds", "When the app's certificate expires.")
	descRefused    = desc("credential_refused", "1 if the credential that the configuration names for the app cannot be used.")
	descWaiting    = desc("feedback_records", "Records in the app's feedback tube, at the watchdog's last look.")
	descHookDown   = desc("webhook_down", "1 if the app's webhook did not take its last request.")
	descRecords    = desc("webhook_records_total", "Records that the app's webhook has taken.")
	descHookFailed = desc("webhook_failures_total", "Requests that the app's webhook has not taken.")
	descHookStuck  = desc("webhook_stalled", "1 if the app's webhook takes records, and none are sent to it.")
	descReloadOK   = global("config_reload_ok", "1 if the last configuration read was taken over.")
	descReloadAt   = global("config_reload_timestamp_seconds", "When a configuration was last taken over.")
	descLost       = global("queue_lost_jobs_total", "Jobs lost from an embedded queue's files, about.")
	descForgotten  = global("idempotency_forgotten_total", "Answers to requests with an Idempotency-Key that were forgotten before their 24 hours.")
	descBuild      = global("build_info", "1; the labels say what runs.", "version", "goversion")
)

const namespace = "propeller_"

func global(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(namespace+name, help, labels, nil)
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return global(name, help, append([]string{"app", "topic"}, labels...)...)
}

// Describe is that of prometheus.Collector. Describing nothing makes the
// collector one that is not checked beforehand.
func (*collector) Describe(chan<- *prometheus.Desc) {}

// Collect is that of prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	out := sink(ch)
	all, apps := c.o.UnusedApps(), c.tree.Status()
	for i := range apps {
		if s := &apps[i]; all || !unused(s) {
			out.app(s)
		} else {
			out.expiry(s)
		}
	}
	at, refused := c.o.Reloads()
	out.gauge(descReloadOK, truth(refused == nil))
	out.gauge(descReloadAt, float64(at.Unix()))
	out.counter(descLost, c.tree.LostJobs())
	out.counter(descForgotten, c.o.Forgotten.Load())
	out.gauge(descBuild, 1, c.o.Version, runtime.Version())
}

type sink chan<- prometheus.Metric

func (o sink) gauge(d *prometheus.Desc, v float64, labels ...string) {
	o <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

func (o sink) counter(d *prometheus.Desc, n int64, labels ...string) {
	o <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
}

func (o sink) app(s *supervisor.AppStatus) {
	o.pushes(s)
	o.states(s)
	n, t, c := s.Name, s.Topic, s.Counters
	inFlight, held, connected := 0, 0, 0
	for _, w := range s.Workers {
		inFlight += w.InFlight
		held += w.Reserved
		if w.Connected {
			connected++
		}
	}
	o.gauge(descInFlight, float64(inFlight), n, t)
	o.gauge(descHeld, float64(held), n, t)
	o.gauge(descConns, float64(connected), n, t)
	o.gauge(descWorkers, float64(len(s.Workers)), n, t)
	failed := c.DialsFailed.Load()
	o.counter(descDials, max(0, c.Dials.Load()-failed), n, t, "ok")
	o.counter(descDials, failed, n, t, "failed")
	o.counter(descGoAways, c.GoAways.Load(), n, t)
	o.counter(descDuplicates, c.PossibleDuplicates.Load(), n, t)
	o.counter(descBuried, c.Buried.Load(), n, t)
	o.counter(descExpired, c.Expired.Load(), n, t)
	o.counter(descPanics, c.Panics.Load(), n, t)
	o.counter(descWatchdog, s.Steps.Replaced.Load(), n, t, "replaced")
	o.counter(descWatchdog, s.Steps.Restarted.Load(), n, t, "restarted")
	o.counter(descWatchdog, s.Steps.Stalled.Load(), n, t, "stalled")
	if q := s.Queue; q != nil {
		o.gauge(descQueue, float64(q.Ready), n, t, "ready")
		o.gauge(descQueue, float64(q.Delayed), n, t, "delayed")
		o.gauge(descQueue, float64(q.Reserved), n, t, "reserved")
		o.gauge(descQueue, float64(q.Buried), n, t, "buried")
		o.gauge(descPartial, truth(q.Incomplete != ""), n, t)
	}
	o.expiry(s)
	o.gauge(descRefused, truth(s.CredentialFault != ""), n, t)
	if r := s.Records; r != nil {
		o.gauge(descWaiting, float64(r.Ready+r.Delayed+r.Reserved), n, t)
	}
	if h := s.Webhook; h != nil {
		o.gauge(descHookDown, truth(h.Down), n, t)
		o.counter(descRecords, h.Counters.Delivered.Load(), n, t)
		o.counter(descHookFailed, h.Counters.Failed.Load(), n, t)
		o.gauge(descHookStuck, truth(h.Stalled != nil), n, t)
	}
}

// unused reports whether an app has done nothing since the start, has no jobs, and is well.
func unused(s *supervisor.AppStatus) bool {
	c := s.Counters
	return s.Asleep && s.Health.State == supervisor.Idle && s.CredentialFault == "" &&
		endedOf(c) == 0 && c.Buried.Load() == 0 && c.Expired.Load() == 0 &&
		(s.Queue == nil || s.Queue.TubeStats == queue.TubeStats{}) && (s.Records == nil || s.Records.TubeStats == queue.TubeStats{})
}

func (o sink) expiry(s *supervisor.AppStatus) {
	if !s.CredentialExpiry.IsZero() {
		o.gauge(descExpiry, float64(s.CredentialExpiry.Unix()), s.Name, s.Topic)
	}
}

// pushes has a line for each class, those without any push too, so that their
// rates begin at 0.
func (o sink) pushes(s *supervisor.AppStatus) {
	refused := s.Counters.Refusals()
	some := make(map[apnsconn.Class]bool)
	for r, n := range refused {
		some[r.Class] = true
		o.counter(descPushes, n, s.Name, s.Topic, r.Class.String(), strings.ToValidUTF8(r.Reason, "?"))
	}
	for class := apnsconn.Delivered; class <= apnsconn.Unknown; class++ {
		if !some[class] {
			o.counter(descPushes, s.Counters.Ended(class), s.Name, s.Topic, class.String(), "")
		}
	}
	sum, atMost := s.Counters.Seconds.Snapshot()
	all := atMost[math.Inf(1)]
	delete(atMost, math.Inf(1))
	o <- prometheus.MustNewConstHistogram(descSeconds, all, sum, atMost, s.Name, s.Topic)
}

// states has a line for each state, so that each is a series of its own. A guarded app
// is also paused, because older alert rules only know that word.
func (o sink) states(s *supervisor.AppStatus) {
	is := s.Health.State
	for _, state := range supervisor.States() {
		o.gauge(descState, truth(state == is || state == supervisor.Paused && is == supervisor.Guarded), s.Name, s.Topic, string(state))
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
