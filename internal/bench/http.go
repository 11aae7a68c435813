package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"time"

	"propeller/config"
	"propeller/httpapi"
	"propeller/queue"
	"propeller/queue/queueurl"
	"propeller/supervisor"
)

// httpFigures are what POST /v1/notifications takes in.
type httpFigures struct {
	Queue   string       `json:"queue"`
	Machine string       `json:"machine"`
	Loads   []httpFigure `json:"loads"`
}

// httpFigure is of one kind of request.
type httpFigure struct {
	Load     string  `json:"load"`
	Items    int64   `json:"items"` // accepted, and found in the queue
	Rate     float64 `json:"items_per_second"`
	CPU      float64 `json:"cpu_us_per_item"`             // this process: HTTP, an embedded queue with it
	QueueCPU float64 `json:"queue_cpu_us_per_item"`       // beanstalkd's; 0 if the queue is within
	LoadCPU  float64 `json:"load_generator_cpu_per_item"` // wrk's, in µs
	P50      float64 `json:"p50_ms"`                      // of a request, from its start to its answer's end
	P99      float64 `json:"p99_ms"`
	Others   float64 `json:"other_programs_cores"` // busy with what is not the run's; 0 if that cannot be told
	Idle     float64 `json:"idle_cores"`
}

// httpLoads are the loads of --http. A stream is 2,000 notifications, because wrk
// sends one body a request.
var httpLoads = []wrkLoad{
	{name: "single notifications", kind: "application/json", conns: 32, perBody: 1},
	{name: "streams of 2,000", kind: "application/x-ndjson", conns: 4, perBody: 2000},
}

// httpBodies is how many different bodies a load has, in notifications: wrk
// makes them before it begins, and sends them in turn.
const httpBodies = 10_000

// http measures how fast notifications that come by HTTP are in the queue.
// Nobody works them off meanwhile.
func (p *benchPlan) http(ctx context.Context) (print func(io.Writer) error, err error) {
	wrk, err := findWrk()
	if err != nil {
		return nil, err
	}
	r, err := newHTTPRig(ctx, p)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	f := &httpFigures{Queue: r.q.what, Machine: benchMachine()}
	stopProfile, err := p.startProfile()
	if err != nil {
		return nil, err
	}
	for _, load := range httpLoads {
		p.say("%s over %s for %v", load.name, count(load.conns, "connection"), p.time)
		one, err := r.load(ctx, wrk, load)
		if err != nil {
			return nil, errors.Join(err, stopProfile())
		}
		f.Loads = append(f.Loads, one)
	}
	return f.print(p.json), stopProfile()
}

// httpRig is a queue with the HTTP API before it.
type httpRig struct {
	plan  *benchPlan
	q     *benchQueue
	topic string // and tube, made up anew
	key   string
	jobs  jobMaker
	addr  string
	stop  context.CancelFunc
	ended chan error
}

func newHTTPRig(ctx context.Context, p *benchPlan) (*httpRig, error) {
	r := &httpRig{plan: p, topic: "propeller-bench-" + randomHex(6), key: randomHex(16), jobs: newJobMaker(p.payload, randomHex(8))}
	var err error
	if r.q, err = openBenchQueue(ctx, p.queue, p.log); err != nil {
		return nil, err
	}
	if err := r.serve(); err != nil {
		return nil, errors.Join(err, r.close())
	}
	return r, nil
}

// serve answers as the daemon does, with a tree whose workers do not run.
func (r *httpRig) serve() error {
	cfg := config.Default()
	app := cfg.Apps[0]
	app.Topic, app.Tube, app.Addr = r.topic, r.topic, "127.0.0.1:1"
	cfg.Apps = []config.App{app}
	sup, err := supervisor.New(&cfg, supervisor.Options{
		Log: r.plan.log, OpenQueue: func(queueurl.URL) (queue.Queue, error) { return r.q.engine, nil }, // it is not closed: the tree does not run
	})
	if err != nil {
		return err
	}
	api := httpapi.New(sup, httpapi.Options{Log: r.plan.log, Outcomes: new(httpapi.Outcomes)})
	api.Use(httpapi.Settings{Keys: []httpapi.Key{{Name: "bench", Token: r.key, Role: httpapi.RoleSend}}})
	server, err := httpapi.NewWeb(httpapi.Web{Listen: "127.0.0.1:0"}, r.plan.log)
	if err != nil {
		return err
	}
	server.Answer(api.Network())
	r.addr = server.Addr().String()
	ctx, stop := context.WithCancel(context.Background())
	r.stop, r.ended = stop, make(chan error, 1)
	go func() { r.ended <- server.Serve(ctx) }()
	return nil
}

func (r *httpRig) close() error {
	if r.stop != nil {
		r.stop()
		<-r.ended // it ends because it is told to
	}
	var err error
	if !r.q.own {
		err = drain(r.q, r.topic)
	}
	return errors.Join(err, r.q.end())
}

// bodies are the bodies of a load.
func (r *httpRig) bodies(l wrkLoad) (all [][]byte) {
	now := time.Now()
	for i := range httpBodies {
		one := fmt.Appendf(nil, `{"topic":%q,`, r.topic)
		one = append(one, r.jobs.job(i, 1, now)[1:]...)
		if i%l.perBody == 0 {
			all = append(all, nil)
		}
		last := len(all) - 1
		if l.perBody > 1 {
			one = append(one, '\n')
		}
		all[last] = append(all[last], one...)
	}
	return all
}

// load runs one load and checks that what was accepted is in the queue.
func (r *httpRig) load(ctx context.Context, wrk string, l wrkLoad) (f httpFigure, err error) {
	before, err := r.usage(ctx)
	if err != nil {
		return f, err
	}
	seen, err := l.run(ctx, wrk, "http://"+r.addr+"/v1/notifications", r.key, r.plan.time, r.bodies(l))
	if err != nil {
		return f, err
	}
	after, err := r.usage(ctx)
	if err != nil {
		return f, err
	}
	items := seen.Requests * int64(l.perBody)
	if stored := after.jobs - before.jobs; stored < items {
		return f, fmt.Errorf("%d notifications were accepted, and %d are in the queue: what is measured is errors", items, stored)
	}
	per := func(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) / float64(items) }
	own, queue, idle := after.own-before.own, after.queue-before.queue, after.idle-before.idle
	f = httpFigure{
		Load: l.name, Items: items, Rate: float64(items) / seen.Seconds, P50: seen.P50, P99: seen.P99,
		CPU: per(own), QueueCPU: per(queue), LoadCPU: per(seen.cpu),
	}
	took := after.at.Sub(before.at)
	if after.idleOK {
		f.Idle = idle.Seconds() / took.Seconds()
		f.Others = max(0, float64(runtime.GOMAXPROCS(0))-f.Idle-(own+queue+seen.cpu).Seconds()/took.Seconds())
	}
	return f, nil
}

// httpUsage is what has been used and put so far.
type httpUsage struct {
	at               time.Time
	own, queue, idle time.Duration // queue: beanstalkd's
	idleOK           bool
	jobs             int64
}

func (r *httpRig) usage(ctx context.Context) (u httpUsage, err error) {
	ctx, cancel := context.WithTimeout(ctx, reachTime)
	defer cancel()
	st, err := r.q.TubeStats(ctx, r.topic)
	if err != nil {
		return u, err
	}
	u.jobs = int64(st.Ready)
	if len(r.q.servers) > 0 {
		u.queue, _ = r.q.cpu()
	}
	u.idle, u.idleOK = machineIdle()
	u.own, u.at = processCPU(), time.Now()
	return u, nil
}

func (f *httpFigures) print(asJSON bool) func(io.Writer) error {
	if asJSON {
		return func(w io.Writer) error { return printJSON(w, f) }
	}
	return func(w io.Writer) error {
		rows := [][2]string{{"machine", f.Machine}, {"queue", f.Queue}}
		for _, l := range f.Loads {
			rows = append(rows, [2]string{l.Load, l.String()})
		}
		return printRows(w, rows)
	}
}

func (l *httpFigure) String() string {
	var cpu bytes.Buffer
	fmt.Fprintf(&cpu, "%.2f µs here", l.CPU)
	if l.QueueCPU > 0 {
		fmt.Fprintf(&cpu, ", beanstalkd %.2f µs", l.QueueCPU)
	}
	return fmt.Sprintf("%s items/s, cpu per item %s, wrk %.2f µs; a request p50 %.2f ms, p99 %.2f ms; other programs %.2f cores, idle %.2f",
		thousands(int64(l.Rate)), cpu.String(), l.LoadCPU, l.P50, l.P99, l.Others, l.Idle)
}
