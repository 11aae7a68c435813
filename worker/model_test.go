package worker_test

import (
	"flag"
	"fmt"
	"os"
	"sync/atomic"
	"testing"
	"time"
)

var (
	modelFrom  = flag.Uint64("model.from", 0, "the model's first seed")
	modelSeeds = flag.Uint64("model.seeds", 2000, "how many seeds the model tries")
	modelFails = flag.Int64("model.fails", 1, "how many failing seeds end the model")
	modelLog   = flag.Bool("model.log", false, "print what happens in the shortest run that fails")
)

// TestModel plays a worker's life many times over, each drawn from a seed: jobs
// of all shapes, and everything that queue, APNs and operators may do to it.
// docs/reliability.md names what must hold then. Of a seed that fails it prints
// the shortest life that fails in the same way.
func TestModel(t *testing.T) {
	var failed atomic.Int64
	const shards = 2
	for shard := range uint64(shards) {
		t.Run(fmt.Sprint(shard), func(t *testing.T) {
			t.Parallel()
			for i := shard; i < *modelSeeds && failed.Load() < *modelFails; i += shards {
				modelSeed(t, *modelFrom+i, &failed)
			}
		})
	}
}

func modelSeed(t *testing.T, seed uint64, failed *atomic.Int64) {
	p := drawPlan(seed)
	f := watched(t, p)
	if f == nil || failed.Add(1) > *modelFails {
		return
	}
	short, g, runs := shorten(t, p, f)
	if *modelLog {
		short.log = true
		watched(t, short)
	}
	t.Errorf("%s: %s\nthe shortest of %d runs that fails so, %s\n%v", f.property, f.text, runs, g.text, short)
}

// watched is runModel with an eye on it: what cannot end by itself is shown.
func watched(t *testing.T, p plan) (f *failure) {
	defer func() {
		if v := recover(); v != nil { // synctest: goroutines are left
			f = &failure{"stop", fmt.Sprint(v)}
		}
	}()
	watch := time.AfterFunc(2*time.Minute, func() {
		fmt.Fprintf(os.Stderr, "model: a run does not end: %v", p)
		panic("model: a run does not end")
	})
	defer watch.Stop()
	return runModel(t, p)
}

// shortenRuns bounds the search for the shortest run that fails.
const shortenRuns = 600

// shorten leaves out of p what it can while the same property fails.
func shorten(t *testing.T, p plan, f *failure) (plan, *failure, int) {
	runs := 0
	better := func(try plan) bool {
		if try.String() == p.String() || runs == shortenRuns {
			return false
		}
		runs++
		g := watched(t, try)
		if g == nil || g.property != f.property {
			return false
		}
		p, f = try, g
		return true
	}
	for improved := true; improved && runs < shortenRuns; {
		improved = false
		for size := max(1, len(p.steps)/2); size > 0; size /= 2 {
			for at := 0; at+size <= len(p.steps); {
				if better(p.without(at, size)) {
					improved = true
				} else {
					at += size
				}
			}
		}
		for _, try := range p.smaller() {
			improved = better(try(p)) || improved
		}
	}
	return p, f, runs
}
