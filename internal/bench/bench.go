package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"time"

	"propeller/internal/apnslean"
)

// Figures are what a run has measured. Times are in seconds unless their
// names say otherwise; what could not be told is absent.
type Figures struct {
	Queue   string `json:"queue"`
	APNs    string `json:"apns"`
	Load    string `json:"load"`
	Machine string `json:"machine"`

	Put      int     `json:"jobs_put"`
	PutRate  float64 `json:"puts_per_second"`
	Pushes   int64   `json:"pushes"`
	Took     float64 `json:"took"`
	Rate     float64 `json:"pushes_per_second"`
	CPU      float64 `json:"cpu_us_per_push"`                 // this process: the daemon, an embedded queue with it
	APNsCPU  float64 `json:"apns_cpu_us_per_push,omitempty"`  // the stand-in's process
	QueueCPU float64 `json:"queue_cpu_us_per_push,omitempty"` // beanstalkd's
	PeakMiB  float64 `json:"peak_memory_mib"`
	Again    int64   `json:"pushes_tried_again"` // ended in a way that has a next try, or none

	Cores busyCores `json:"cores"`
	Limit string    `json:"limit"` // one of the limits of bench_limit.go
	Why   string    `json:"limit_why"`

	Latency *benchLatency `json:"latency,omitempty"`
}

// benchLatency is the second part's, in milliseconds.
type benchLatency struct {
	From string  `json:"from_to"` // which two moments
	Rate float64 `json:"jobs_per_second"`
	Jobs int64   `json:"jobs"`
	P50  float64 `json:"p50_ms"`
	P99  float64 `json:"p99_ms"`
	Max  float64 `json:"max_ms"`
}

// usage is processor time used so far.
type usage struct {
	at                     time.Time
	own, apns, queue, idle time.Duration // idle: the machine's cores, together
	queueOK, idleOK        bool          // it could be told
}

// measure is the ordinary run: first all jobs are put and then worked off, then
// jobs are put at a pace.
func (p *benchPlan) measure(ctx context.Context) (print func(io.Writer) error, err error) {
	r, err := newBenchRig(ctx, p, apnslean.Options{Delay: p.rtt, DelayWindow: !p.ackAtOnce}, 1)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	f := &Figures{Queue: r.q.what, APNs: r.apns.what + p.distance(), Load: p.load(), Machine: benchMachine()}
	if err := r.backlog(ctx, f); err != nil {
		return nil, err
	}
	if p.rate > 0 {
		if err := r.pacedPart(ctx, f); err != nil {
			return nil, err
		}
	}
	if err := r.halt(); err != nil {
		return nil, err
	}
	return f.print(p.json), nil
}

// backlog puts the jobs, then starts the tree and measures until the last push
// has ended.
func (r *benchRig) backlog(ctx context.Context, f *Figures) error {
	p := r.plan
	p.say("putting %s on %s", count(p.jobs, "job"), r.q.what)
	begun := time.Now()
	if err := putAll(ctx, r.q, r.name, r.jobs, 0, p.jobs, func(int) int { return p.fanOut }); err != nil {
		return err
	}
	f.Put, f.PutRate = p.jobs, float64(p.jobs)/time.Since(begun).Seconds()
	debug.FreeOSMemory() // the puts' garbage is not the daemon's
	forgetPeak()
	stopProfile, err := p.startProfile()
	if err != nil {
		return err
	}
	if _, err := r.apns.report(true); err != nil {
		return errors.Join(err, stopProfile())
	}
	before, err := r.usage()
	if err != nil {
		return errors.Join(err, stopProfile())
	}
	f.Pushes = int64(p.jobs) * int64(p.fanOut)
	p.say("working them off")
	r.start()
	err = r.wait(ctx, f.Pushes)
	after, usageErr := r.usage()
	if err := errors.Join(err, usageErr, stopProfile()); err != nil {
		return err
	}
	f.PeakMiB = mib(peakMemory())
	seen, err := r.apns.report(false)
	if err != nil {
		return err
	}
	f.Again = r.progress().other
	f.cost(before, after)
	s := r.shares(before, after, &seen)
	f.Cores = s.busyCores()
	f.Limit, f.Why = s.limit()
	return nil
}

// cost fills in what the pushes took.
func (f *Figures) cost(before, after usage) {
	took := after.at.Sub(before.at)
	f.Took, f.Rate = took.Seconds(), float64(f.Pushes)/took.Seconds()
	per := func(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) / float64(f.Pushes) }
	f.CPU, f.APNsCPU = per(after.own-before.own), per(after.apns-before.apns)
	if before.queueOK && after.queueOK {
		f.QueueCPU = per(after.queue - before.queue)
	}
}

// usage asks everybody.
func (r *benchRig) usage() (u usage, err error) {
	report, err := r.apns.report(false)
	if err != nil {
		return u, err
	}
	u.apns = report.CPU
	u.queue, u.queueOK = r.q.cpu()
	u.idle, u.idleOK = machineIdle()
	u.own, u.at = processCPU(), time.Now()
	return u, nil
}

// pacedPart puts jobs of one token at the plan's rate, on the tree that runs.
func (r *benchRig) pacedPart(ctx context.Context, f *Figures) error {
	p := r.plan
	n := max(1, int(float64(p.rate)*p.time.Seconds()))
	p.say("putting %s a second for %v", count(p.rate, "job"), p.time)
	runtime.GC() // of what the first part left
	if _, err := r.apns.report(true); err != nil {
		return err
	}
	if r.timed != nil {
		if err := r.settled(ctx); err != nil {
			return err
		}
		r.timed.take()
	}
	took, err := putPaced(ctx, r.q, r.name, r.jobs, f.Put, n, p.rate)
	if err != nil {
		return err
	}
	if err := r.wait(ctx, f.Pushes+int64(n)); err != nil {
		return err
	}
	if err := r.settled(ctx); err != nil {
		return err
	}
	f.Latency, err = r.latency(float64(n) / took.Seconds())
	return err
}

func (r *benchRig) latency(rate float64) (*benchLatency, error) {
	l := &benchLatency{Rate: rate}
	if r.timed != nil {
		h := r.timed.take()
		l.From = "from put to the job's end"
		l.Jobs, l.P50, l.P99, l.Max = h.Count, ms(h.Quantile(0.5)), ms(h.Quantile(0.99)), ms(h.Max)
		return l, nil
	}
	seen, err := r.apns.report(false)
	if err != nil {
		return nil, err
	}
	l.From = "from put to the request's arrival at the stand-in"
	l.Jobs, l.P50, l.P99, l.Max = seen.Timed, ms(seen.P50), ms(seen.P99), ms(seen.Max)
	return l, nil
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func mib(bytes int64) float64 { return float64(bytes) / (1 << 20) }

// distance says how far away the APNs side is.
func (p *benchPlan) distance() string {
	switch {
	case p.apns != simName:
		return ""
	case p.rtt == 0:
		return ", answers at once"
	case p.ackAtOnce:
		return fmt.Sprintf(", answers after %v, acknowledges payload at once", p.rtt)
	}
	return fmt.Sprintf(", answers and acknowledges payload after %v", p.rtt)
}
