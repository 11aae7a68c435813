// Package bench measures the daemon's own tree, in this process, between a queue and a
// stand-in for APNs. `propeller bench` is made of it, and so are the rigs in test/rigs.
package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"runtime/debug"
	"text/tabwriter"
	"time"

	"propeller/internal/apnslean"
	"propeller/internal/text"
)

// Plan is what Run measures.
type Plan struct {
	Queue     string // its name in the report
	Temporary bool   // it ends with the run, and the jobs in it

	Jobs, Workers, InFlight, FanOut, Payload int

	RTT       time.Duration // distance of the stand-in
	AckAtOnce bool          // it acknowledges payload before that
	Rate      int           // jobs per second of the second part; 0: none

	Log *slog.Logger
	Say func(format string, args ...any) // what it is about to do
}

// MaxFanOut: so many tokens fit in beanstalkd's default limit of a job,
// 65,535 bytes (beanstalkd(1), -z).
const MaxFanOut = 900

// pacedJobs is how many jobs the second part puts.
const pacedJobs = 1000

// Figures are what a run has measured. Times are in seconds unless their
// names say otherwise; what could not be told is absent.
type Figures struct {
	Queue   string `json:"queue"`
	APNs    string `json:"apns"`
	Load    string `json:"load"`
	Machine string `json:"machine"`

	Put     int     `json:"jobs_put"`
	PutRate float64 `json:"puts_per_second"`
	Pushes  int64   `json:"pushes"`
	Took    float64 `json:"took"`
	Rate    float64 `json:"pushes_per_second"`
	CPU     float64 `json:"cpu_us_per_push"`      // this process, an embedded queue with it
	APNsCPU float64 `json:"apns_cpu_us_per_push"` // its process
	PeakMiB float64 `json:"peak_memory_mib,omitempty"`
	Again   int64   `json:"pushes_tried_again"` // ended in a way that has a next try, or none

	Cores Cores  `json:"cores"`
	Limit string `json:"limit"` // what held the rate back, as limit says
	Why   string `json:"limit_why"`

	Latency *Latency `json:"latency,omitempty"`
}

// Latency is the second part's, in milliseconds, from the put to the request's
// arrival at the stand-in.
type Latency struct {
	Rate float64 `json:"jobs_per_second"`
	Jobs int64   `json:"jobs"`
	P50  float64 `json:"p50_ms"`
	P99  float64 `json:"p99_ms"`
	Max  float64 `json:"max_ms"`
}

// run is one Run.
type run struct {
	*Plan
	rig  *Rig
	apns *standIn
	f    *Figures
}

// Run first puts all jobs and then works them off, and then puts jobs at a pace.
func Run(ctx context.Context, p *Plan, q Engine) (f *Figures, err error) {
	apns, err := startStandIn(p)
	if err != nil {
		return nil, fmt.Errorf("stand-in: %w", err)
	}
	defer func() { err = errors.Join(err, apns.close()) }()
	rig, err := NewRig(q, Setup{
		Addr: apns.Addr, Cert: apns.Cert, Apps: 1, Workers: p.Workers, InFlight: p.InFlight, Payload: p.Payload,
		Temporary: p.Temporary, Log: p.Log,
	})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rig.Close()) }()
	r := &run{p, rig, apns, &Figures{Queue: p.Queue, APNs: "stand-in, " + p.distance(), Load: p.load(), Machine: Machine()}}
	if err := r.backlog(ctx); err != nil {
		return nil, err
	}
	if p.Rate > 0 {
		if err := r.paced(ctx); err != nil {
			return nil, err
		}
	}
	return r.f, nil
}

// backlog puts the jobs, then starts the tree and measures until the last push
// has ended.
func (r *run) backlog(ctx context.Context) error {
	r.Say("putting %s on %s", text.Plural(r.Jobs, "job"), r.f.Queue)
	begun := time.Now()
	if err := r.rig.Put(ctx, 0, r.Jobs, 0, func(int) int { return r.FanOut }); err != nil {
		return err
	}
	r.f.Put, r.f.PutRate = r.Jobs, float64(r.Jobs)/time.Since(begun).Seconds()
	debug.FreeOSMemory() // the puts' garbage is not the daemon's
	forgetPeak()
	if _, err := r.apns.report(); err != nil { // of nothing: what follows is counted
		return err
	}
	used := Measure()
	r.f.Pushes = int64(r.Jobs) * int64(r.FanOut)
	r.Say("working them off")
	r.rig.Start()
	if err := r.rig.Wait(ctx, r.f.Pushes); err != nil {
		return err
	}
	took := used()
	r.f.PeakMiB = float64(peakMemory()) / (1 << 20)
	seen, err := r.apns.report()
	if err != nil {
		return err
	}
	r.f.Again = r.rig.Progress().Other
	r.judge(took, seen)
	return nil
}

// judge fills in what the pushes took, and what limited their rate.
func (r *run) judge(used Usage, seen standInReport) {
	f := r.f
	f.Took, f.Rate = used.Time.Seconds(), float64(f.Pushes)/used.Time.Seconds()
	f.CPU, f.APNsCPU = Per(used.CPU, f.Pushes), Per(seen.CPU, f.Pushes)
	f.Cores = BusyCores(used, seen.CPU)
	c := conditions{
		Cores: f.Cores, delayed: r.RTT > 0, inFlight: min(r.InFlight, apnslean.MaxStreams), oneToken: r.FanOut == 1,
		held: float64(r.rig.held) / float64(r.rig.samples), room: r.InFlight * r.Workers,
	}
	if seen.Active > 0 {
		c.blocked = seen.Blocked.Seconds() / seen.Active.Seconds()
		c.open = seen.Open.Seconds() / seen.Active.Seconds()
	}
	f.Limit, f.Why = c.limit()
}

// paced puts jobs of one token at the plan's rate, on the tree that runs.
func (r *run) paced(ctx context.Context) error {
	r.Say("putting %s, %d a second", text.Plural(pacedJobs, "job"), r.Rate)
	runtime.GC() // of what the first part left
	if _, err := r.apns.report(); err != nil {
		return err
	}
	begun := time.Now()
	if err := r.rig.Put(ctx, r.Jobs, r.Jobs+pacedJobs, r.Rate, func(int) int { return 1 }); err != nil {
		return err
	}
	took := time.Since(begun)
	if err := r.rig.Wait(ctx, r.f.Pushes+pacedJobs); err != nil {
		return err
	}
	seen, err := r.apns.report()
	r.f.Latency = &Latency{Rate: pacedJobs / took.Seconds(), Jobs: seen.Timed, P50: ms(seen.P50), P99: ms(seen.P99), Max: ms(seen.Max)}
	return err
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// load is the plan in words.
func (p *Plan) load() string {
	return fmt.Sprintf("%s of %s, %s × %d in flight, payload of %d bytes",
		text.Plural(p.Jobs, "job"), text.Plural(p.FanOut, "token"), text.Plural(p.Workers, "worker"), p.InFlight, p.Payload)
}

// distance says how far away the stand-in is.
func (p *Plan) distance() string {
	switch {
	case p.RTT == 0:
		return "answers at once"
	case p.AckAtOnce:
		return fmt.Sprintf("answers after %v, acknowledges payload at once", p.RTT)
	}
	return fmt.Sprintf("answers and acknowledges payload after %v", p.RTT)
}

// Cores says how many cores were busy with what, on average.
type Cores struct {
	Daemon  float64  `json:"daemon"` // this process, an embedded queue with it
	StandIn float64  `json:"stand_in"`
	Others  *float64 `json:"other_programs,omitempty"` // a queue's server is one; nil where the system does not tell
	Idle    *float64 `json:"idle,omitempty"`
	Of      float64  `json:"of"`
}

// BusyCores tells used apart; standIn is the CPU time of the run's other process.
func BusyCores(used Usage, standIn time.Duration) Cores {
	share := func(d time.Duration) float64 { return d.Seconds() / used.Time.Seconds() }
	c := Cores{Daemon: share(used.CPU), StandIn: share(standIn), Of: float64(runtime.GOMAXPROCS(0))}
	if used.IdleKnown {
		idle := share(used.Idle)
		others := max(0, c.Of-idle-c.Daemon-c.StandIn)
		c.Idle, c.Others = &idle, &others
	}
	return c
}

func (c *Cores) String() string {
	text := fmt.Sprintf("here %.2f, stand-in %.2f", c.Daemon, c.StandIn)
	if c.Idle != nil {
		text += fmt.Sprintf(", other programs %.2f, idle %.2f", *c.Others, *c.Idle)
	}
	return text + fmt.Sprintf(", of %.0f", c.Of)
}

// conditions are what a rate's limit is judged by.
type conditions struct {
	Cores
	delayed  bool    // the stand-in answers after a while
	blocked  float64 // of the time, a connection to it had no window for another push
	open     float64 // its requests without answer, per connection
	inFlight int     // and how many might be
	oneToken bool    // per job
	held     float64 // jobs that the workers had
	room     int     // and might have had
}

// Limits of a rate.
const (
	limitWindow   = "window"
	limitInFlight = "in-flight"
	limitQueue    = "queue"
	limitCPU      = "cpu"
	limitOthers   = "other programs"
	limitUnclear  = "unclear"
)

// limit judges what the rate was limited by, and says from what.
func (c *conditions) limit() (name, why string) {
	const nearly = 0.85 // of what there is, counts as all of it: start and end are in the mean
	busy := c.Idle != nil && *c.Idle <= 0.1*c.Of
	switch {
	case c.delayed && c.blocked >= 0.5:
		return limitWindow, fmt.Sprintf("connections had no window left for another payload %s of the time; more --workers are more windows", percent(c.blocked))
	case c.delayed && c.open >= nearly*float64(c.inFlight):
		return limitInFlight, fmt.Sprintf("%.0f of %d pushes per connection were in flight on average; more --workers are more connections", c.open, c.inFlight)
	case busy && *c.Others > 0.15*c.Of:
		return limitOthers, fmt.Sprintf("they took %.1f of %.0f cores, the queue's server among them if it runs here", *c.Others, c.Of)
	case busy:
		return limitCPU, fmt.Sprintf("%.1f of %.0f cores were busy", c.Of-*c.Idle, c.Of)
	case c.oneToken && c.held < float64(c.room)/2:
		return limitQueue, fmt.Sprintf("the workers held %.0f jobs of the %d that they have room for: the queue gave them no more", c.held, c.room)
	}
	return limitUnclear, "nothing was used up"
}

func percent(share float64) string { return fmt.Sprintf("%.0f %%", 100*share) }

// Print writes the figures for people.
func (f *Figures) Print(w io.Writer) error {
	return PrintRows(w, [][2]string{
		{"machine", f.Machine},
		{"queue", f.Queue},
		{"apns", f.APNs},
		{"load", f.Load},
		{"rate", fmt.Sprintf("%s pushes/s: %s in %s; put at %s jobs/s", text.Count(int64(f.Rate)), text.Count(f.Pushes), Seconds(f.Took), text.Count(int64(f.PutRate)))},
		{"cpu per push", fmt.Sprintf("%.2f µs here, stand-in %.2f µs", f.CPU, f.APNsCPU)},
		{"cores busy", f.Cores.String()},
		{"memory", known(f.PeakMiB > 0, "%.0f MiB at most", f.PeakMiB)},
		{"tried again", known(f.Again > 0, "%s pushes", text.Count(f.Again))},
		{"limited by", f.Limit + ": " + f.Why},
		{"latency", f.Latency.String()},
	})
}

// known is the text, or "" for what is not known or not there.
func known(is bool, format string, value any) string {
	if !is {
		return ""
	}
	return fmt.Sprintf(format, value)
}

// String is empty when nothing was measured.
func (l *Latency) String() string {
	if l == nil {
		return ""
	}
	return fmt.Sprintf("p50 %.2f ms, p99 %.2f ms, longest %.2f ms from put to the request's arrival at the stand-in, of %s at %.0f a second",
		l.P50, l.P99, l.Max, text.Plural(int(l.Jobs), "job"), l.Rate)
}

// Seconds is s as a person reads it.
func Seconds(s float64) string {
	return time.Duration(s * float64(time.Second)).Round(10 * time.Millisecond).String()
}

// PrintRows prints names and values, without those that have none.
func PrintRows(w io.Writer, rows [][2]string) error {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	for _, row := range rows {
		if row[1] != "" {
			fmt.Fprintf(t, "%s\t%s\n", row[0], row[1])
		}
	}
	return t.Flush()
}

// Machine is where it was measured.
func Machine() string {
	return fmt.Sprintf("%s %s/%s, %d cores", runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.GOMAXPROCS(0))
}
