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
	modelSeeds = flag.Uint64("model.seeds", modelLives, "how many seeds the model tries")
	modelFails = flag.Int64("model.fails", 1, "how many failing seeds end the model")
	modelLog   = flag.Bool("model.log", false, "print what happens in the shortest run that fails")
)

// TestModel plays many lives of a worker, each drawn from a seed: jobs of all shapes, and
// everything that the queue, APNs and operators may do to it. docs/reliability.md says what
// must hold. For a seed that fails it prints the shortest life that fails in the same way.
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
	short, g := shorten(t, p, f)
	again, diary := repeat(t, short, g)
	if *modelLog && diary != nil {
		fmt.Fprint(os.Stderr, diary)
	}
	t.Errorf("%s: %s\nthe shortest that fails so (%d times in %d: a worker has a random source of its own), %s\n%v",
		f.property, f.text, again, repeats, g.text, short)
}

// repeats is how often the shortest run is repeated, to see how reliably it fails.
const repeats = 10

// repeat says how often p fails like f, and what happened in one such run.
func repeat(t *testing.T, p plan, f *failure) (n int, of *diary) {
	for range repeats {
		p.log = new(diary)
		if g := watched(t, p); g != nil && g.property == f.property {
			n, of = n+1, p.log
		}
	}
	return n, of
}

// watched runs runModel and reports goroutines that never end.
func watched(t *testing.T, p plan) (f *failure) {
	defer func() {
		if v := recover(); v != nil { // synctest panics if goroutines are left
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
