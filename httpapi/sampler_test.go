package httpapi

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"propeller/supervisor"
	"propeller/worker"
)

// An app that sleeps is looked at closely only when something about it changes. What happens
// after it wakes is shown as of any other app.
func TestSamplerOfSleepers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tree := newCountedTree()
		tree.apps = sleepers(3)
		s := &sampler{tree: tree, draw: func(a *liveApp) string { return a.Name }}
		look := func() *shown {
			time.Sleep(sampleEvery)
			s.sample(t.Context())
			return &s.last.apps[0]
		}
		look()
		was := look().app
		if was.Rate == nil || *was.Rate != 0 {
			t.Errorf("%+v", was)
		}
		for range 200 {
			look()
		}
		if now := s.last.apps[0].app; now != was || len(s.apps[0].rates) > rateOver || len(s.apps[0].marks) != 1 {
			t.Errorf("a new view of an app that sleeps: %+v", s.apps[0])
		}
		if n := tree.asked.Load(); n != 0 {
			t.Errorf("%d questions about tubes of apps that sleep", n)
		}
		s.last.apps[0].see(s.last)
		tree.buried.Store(3)
		if a := look(); a.app.Queue == nil || a.app.Queue.Buried != 3 {
			t.Errorf("of an app that a page shows: %+v", a.app.Queue)
		}
		for range askSeen - 1 {
			look()
		}
		asked := tree.asked.Load()
		look()
		if n := tree.asked.Load(); n != asked || n != askSeen {
			t.Errorf("%d questions", n)
		}
		was = look().app
		tree.apps[0].Paused = worker.PauseState{Paused: true}
		if look().app == was {
			t.Error("it was paused")
		}
		tree.apps[0].Queue = &supervisor.QueueStats{At: time.Now().Add(time.Hour)}
		tree.apps[0].Queue.Buried = 5
		if a := look(); a.app.Queue == nil || a.app.Queue.Buried != 5 {
			t.Errorf("the watchdog's numbers: %+v", a.app.Queue)
		}
		for range 20 {
			look()
		}
		tree.apps[0].Asleep = false
		s.apps[0].ended -= 50 // as if so many had ended since
		if a := look(); a.app.Rate == nil || *a.app.Rate != 10 || a.app.Rates[len(a.app.Rates)-1] != 50 {
			t.Errorf("after it woke: %+v", a.app)
		}
		tree.apps[0].Asleep = true
		for range 110 {
			look()
		}
		if s.apps[0].quiet {
			t.Error("quiet while its chart shows pushes")
		}
		for range 20 {
			look()
		}
		if a := s.apps[0]; !a.quiet || a.app.Rates != nil || a.app.Latency != nil {
			t.Errorf("%+v", a)
		}
	})
}

// Apps that sleep on take no memory at each look, and so hardly any time.
func TestSamplerPassesOverSleepers(t *testing.T) { // not parallel: it counts what is allocated
	tree := newCountedTree()
	tree.apps = sleepers(1000)
	s := &sampler{tree: tree, draw: func(a *liveApp) string { return a.Name }}
	for range 3 {
		s.sample(t.Context())
	}
	if n := testing.AllocsPerRun(5, func() { s.sample(t.Context()) }); n > 500 {
		t.Errorf("%.0f allocations for a look at 1000 apps that sleep", n)
	}
}

// BenchmarkSampler is one look at 10,000 apps of which 10 are awake and send, and what it
// tells one viewer of the overview. There is a look a second, so ms/look are thousandths of a core.
// The tree is a fake one, which costs a copy of all statuses.
func BenchmarkSampler(b *testing.B) {
	tree := newCountedTree()
	tree.apps = sleepers(10_000)
	for i := range 10 {
		tree.apps[1000*i].Asleep, tree.apps[1000*i].Health.State = false, supervisor.Running
	}
	api := New(tree, Options{})
	s := &api.pages.sampler
	for range 3 {
		s.sample(context.Background())
	}
	b.ReportAllocs()
	for b.Loop() {
		for i := range 10 {
			s.apps[1000*i].ended -= 5 // as if so many had ended since
		}
		s.sample(context.Background())
		apps := s.last.meant(func(*supervisor.AppStatus) bool { return true })
		found := pick(apps, "", 1)
		for i := range found.rows {
			s.drawRow(&found.rows[i], s.last)
		}
		for range api.pages.overviewParts(nil, totalsOf(apps), found) {
		}
	}
	b.ReportMetric(b.Elapsed().Seconds()*1000/float64(b.N), "ms/look")
}
