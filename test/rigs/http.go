package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"propeller/httpapi"
	"propeller/internal/bench"
	"propeller/internal/text"
)

// httpFigure is what POST /v1/notifications takes in, of one kind of request.
type httpFigure struct {
	wrkLoad
	items    int64 // accepted, and found in the queue
	rate     float64
	cpu      float64 // of this process, per item, in µs: HTTP, an embedded queue with it
	wrkCPU   float64
	p50, p99 float64 // of a request, from its start to its answer's end, in ms
	cores    bench.Cores
}

// httpLoads are the loads of http. A stream is 2,000 notifications, because wrk
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
func (s *settings) http(ctx context.Context, q bench.Engine) (rows [][2]string, err error) {
	wrk, err := findWrk()
	if err != nil {
		return nil, err
	}
	r, err := s.newHTTPRig(q)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	for _, load := range httpLoads {
		s.say("%s over %s for %v", load.name, text.Plural(load.conns, "connection"), s.time)
		f, err := r.load(ctx, wrk, load, s.time)
		if err != nil {
			return nil, err
		}
		rows = append(rows, [2]string{f.name, f.String()})
	}
	return rows, nil
}

// httpRig is a queue with the HTTP API before it, and a tree that does not run.
type httpRig struct {
	*bench.Rig
	key   string
	addr  string
	stop  context.CancelFunc
	ended chan error
}

func (s *settings) newHTTPRig(q bench.Engine) (*httpRig, error) {
	tree, err := s.newRig(q, bench.Setup{Addr: "127.0.0.1:1", Apps: 1, Workers: 1, InFlight: 1})
	if err != nil {
		return nil, err
	}
	r := &httpRig{Rig: tree, key: bench.RandomHex(16), ended: make(chan error, 1)}
	api := httpapi.New(tree.Tree, httpapi.Options{Log: s.log, Outcomes: new(httpapi.Outcomes)})
	api.Use(httpapi.Settings{Keys: []httpapi.Key{{Name: "rigs", Token: r.key, Role: httpapi.RoleSend}}})
	server, err := httpapi.NewWeb(httpapi.Web{Listen: "127.0.0.1:0"}, s.log)
	if err != nil {
		return nil, errors.Join(err, tree.Close())
	}
	server.Answer(api.Network())
	r.addr = server.Addr().String()
	ctx, stop := context.WithCancel(context.Background())
	r.stop = stop
	go func() { r.ended <- server.Serve(ctx) }()
	return r, nil
}

func (r *httpRig) close() error {
	r.stop()
	<-r.ended // it ends because it is told to
	return r.Close()
}

// bodies are the bodies of a load.
func (r *httpRig) bodies(l wrkLoad) (all [][]byte) {
	now := time.Now()
	for i := range httpBodies {
		one := fmt.Appendf(nil, `{"topic":%q,`, r.Topic)
		one = append(one, r.Job(i, 1, now)[1:]...)
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

// load runs one load for a time, and checks that what was accepted is in the queue.
func (r *httpRig) load(ctx context.Context, wrk string, l wrkLoad, d time.Duration) (f httpFigure, err error) {
	before, err := r.stored(ctx)
	if err != nil {
		return f, err
	}
	used := bench.Measure()
	seen, err := l.run(ctx, wrk, "http://"+r.addr+"/v1/notifications", r.key, d, r.bodies(l))
	if err != nil {
		return f, err
	}
	took := used()
	after, err := r.stored(ctx)
	if err != nil {
		return f, err
	}
	items := seen.Requests * int64(l.perBody)
	if stored := after - before; stored < items {
		return f, fmt.Errorf("%d notifications were accepted, and %d are in the queue: what is measured is errors", items, stored)
	}
	return httpFigure{
		wrkLoad: l, items: items, rate: float64(items) / seen.Seconds, p50: seen.P50, p99: seen.P99,
		cpu: bench.Per(took.CPU, items), wrkCPU: bench.Per(seen.cpu, items), cores: bench.BusyCores(took, seen.cpu),
	}, nil
}

// statsTime bounds a question to the queue.
const statsTime = 10 * time.Second

// stored is how many jobs are in the tube.
func (r *httpRig) stored(ctx context.Context) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, statsTime)
	defer cancel()
	st, err := r.Queue.TubeStats(ctx, r.Topic)
	return int64(st.Ready), err
}

func (f *httpFigure) String() string {
	text := fmt.Sprintf("%s items/s, cpu per item %.2f µs here, wrk %.2f µs; a request p50 %.2f ms, p99 %.2f ms",
		text.Count(int64(f.rate)), f.cpu, f.wrkCPU, f.p50, f.p99)
	if f.cores.Idle != nil {
		text += fmt.Sprintf("; other programs %.2f cores, idle %.2f", *f.cores.Others, *f.cores.Idle)
	}
	return text
}
