package main

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"propeller/internal/bench"
	"propeller/internal/text"
)

// lanesPlan is how many jobs the lanes get.
type lanesPlan struct {
	bulk   int // that wait
	rate   int // max_rate of the bulk lane
	urgent int // in each of the rounds, alone and beside the bulk lane
	every  time.Duration
	rounds int
}

// The lanes: two apps of one topic.
const (
	lanesTopic = "com.example.lanes"
	urgentLane = "rig-urgent"
	bulkLane   = "rig-bulk"
)

// lanes measures what an urgent lane's pushes have of a bulk lane of the same topic.
func (s *settings) lanes(ctx context.Context) ([][2]string, error) {
	return s.measureLanes(ctx, lanesPlan{bulk: 100_000, rate: 2000, urgent: 2000, every: 5 * time.Millisecond, rounds: 3})
}

func (s *settings) measureLanes(ctx context.Context, p lanesPlan) (rows [][2]string, err error) {
	r := &lanesRig{daemonRig: daemonRig{s: s}, p: p}
	defer r.close()
	if err := r.open(ctx); err != nil {
		return nil, err
	}
	if err := r.d.configure(r.config("")); err != nil {
		return nil, err
	}
	if err := r.d.start(); err != nil {
		return nil, err
	}
	if err := r.d.answers(ctx); err != nil {
		return nil, err
	}
	if r.producer, err = r.d.queue.dial(); err != nil {
		return nil, err
	}
	defer r.producer.close()
	if err := r.putBulk(ctx); err != nil {
		return nil, err
	}
	r.row("before", machineLoad())
	r.row("urgent lane", fmt.Sprintf("a job every %v, put by a foreign client", p.every))
	err = r.measure(ctx)
	return r.rows, err
}

type lanesRig struct {
	daemonRig
	p        lanesPlan
	producer foreign
}

// config has the urgent lane and, unless it is "", the bulk lane with these keys.
func (r *lanesRig) config(bulk string) string {
	text := r.defaults("") + fmt.Sprintf("  - {name: %s, topic: %s}\n", urgentLane, lanesTopic)
	if bulk != "" {
		text += fmt.Sprintf("  - {name: %s, topic: %s, %s}\n", bulkLane, lanesTopic, bulk)
	}
	return text
}

// reload gives the daemon another bulk lane, or takes it away.
func (r *lanesRig) reload(ctx context.Context, bulk string) error {
	if err := r.d.configure(r.config(bulk)); err != nil {
		return err
	}
	_, err := r.d.must(ctx, http.MethodPost, "/v1/reload", "", nil)
	return err
}

// putBulk puts the bulk lane's jobs, which nobody takes as long as the daemon has no such lane.
func (r *lanesRig) putBulk(ctx context.Context) error {
	r.s.say("putting %s to the bulk lane", text.Plural(r.p.bulk, "job"))
	const portion = 1000
	for left := r.p.bulk; left > 0; left -= portion {
		var jobs []foreignJob
		for range min(left, portion) {
			_, fields := r.arrivals.job()
			jobs = append(jobs, foreignJob{bulkLane, fmt.Appendf(nil, "{%s}", fields)})
		}
		if err := r.producer.put(ctx, jobs); err != nil {
			return err
		}
	}
	return nil
}

// measure has the urgent lane alone and beside the held bulk lane, in turns, and at last beside
// one at full speed.
func (r *lanesRig) measure(ctx context.Context) error {
	var alone, beside delays
	var rate float64
	for range r.p.rounds {
		some, _, err := r.turn(ctx, "")
		if err != nil {
			return err
		}
		alone = alone.and(some)
		some, bulk, err := r.turn(ctx, fmt.Sprintf("in_flight: 1000, max_rate: %d", r.p.rate))
		if err != nil {
			return err
		}
		beside = beside.and(some)
		rate += bulk / float64(r.p.rounds)
	}
	r.row("urgent alone", alone.String())
	r.row(fmt.Sprintf("urgent beside bulk at max_rate: %d", r.p.rate), fmt.Sprintf("%v; bulk at %.0f/s", beside, rate))
	if err := r.reload(ctx, ""); err != nil {
		return err
	}
	if err := r.putBulk(ctx); err != nil {
		return err
	}
	some, bulk, err := r.turn(ctx, "in_flight: 1000")
	if err != nil {
		return err
	}
	r.row("urgent beside bulk at full speed", fmt.Sprintf("%v; bulk at %.0f/s", some, bulk))
	return nil
}

// turn measures the urgent lane beside a bulk lane, or without one.
func (r *lanesRig) turn(ctx context.Context, bulk string) (all delays, bulkRate float64, err error) {
	r.arrivals.begin()
	before, _ := r.arrivals.earlier()
	if err := r.reload(ctx, bulk); err != nil {
		return nil, 0, err
	}
	for end := time.Now().Add(overtime); bulk != ""; {
		came, _ := r.arrivals.earlier()
		if came > before {
			break
		}
		if time.Now().After(end) {
			return nil, 0, fmt.Errorf("the bulk lane has pushed nothing within %v", overtime)
		}
		if err := bench.Pause(ctx, time.Millisecond); err != nil {
			return nil, 0, err
		}
	}
	return r.urgent(ctx, r.p.urgent)
}

// urgent puts n jobs to the urgent lane, one after the other, as long as the bulk lane has jobs
// if it had some at the beginning. It returns the bulk lane's rate meanwhile, too.
func (r *lanesRig) urgent(ctx context.Context, n int) (all delays, bulkRate float64, err error) {
	from, begun := r.arrivals.begin(), time.Now()
	before, bulk := r.arrivals.earlier()
	for i := range n {
		if err := bench.Pause(ctx, time.Until(begun.Add(time.Duration(i)*r.p.every))); err != nil {
			return nil, 0, err
		}
		if _, left := r.arrivals.earlier(); left == 0 && bulk > 0 {
			break
		}
		_, fields := r.arrivals.job()
		if err := r.producer.put(ctx, []foreignJob{{urgentLane, fmt.Appendf(nil, "{%s}", fields)}}); err != nil {
			return nil, 0, err
		}
	}
	took := time.Since(begun)
	after, _ := r.arrivals.earlier()
	if _, err := r.arrivals.wait(ctx, overtime); err != nil {
		return nil, 0, err
	}
	return r.arrivals.delays(from), float64(after-before) / took.Seconds(), nil
}
