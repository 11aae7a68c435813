package supervisor

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"propeller/queue"
	"propeller/queue/beanstalk"
	"propeller/queue/beanstalk/beanstalktest"
	"propeller/queue/journal"
)

// buriedIn puts jobs in tube, which all go to one server, and buries them.
func buriedIn(t *testing.T, srv *beanstalktest.Server, tube string, n int) {
	t.Helper()
	c := srv.Dial()
	c.Tube.Name, c.TubeSet.Name = tube, map[string]bool{tube: true}
	for i := range n {
		id, err := c.Put(fmt.Appendf(nil, "job %d of %s", i, tube), 1, 0, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := c.Reserve(0); err != nil {
			t.Fatal(err)
		}
		if err := c.Bury(id, 1); err != nil {
			t.Fatal(err)
		}
	}
}

// damagedJournal is one that was lost.
func damagedJournal(t *testing.T) (j *journal.Journal, path string) {
	t.Helper()
	dir := t.TempDir()
	path = filepath.Join(dir, "buried.db")
	if err := os.WriteFile(path, make([]byte, 20000), 0o600); err != nil {
		t.Fatal(err)
	}
	j, err := journal.Open(dir, journal.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	})
	return j, path
}

// newRebuilder rebuilds j from q.
func newRebuilder(t *testing.T, j *journal.Journal, q queue.Admin, tubes ...string) (*rebuilder, *logBuffer) {
	t.Helper()
	log := new(logBuffer)
	views := make(map[string]journal.Jobs)
	for _, tube := range tubes {
		views[tube] = journal.Jobs{Queue: q, Journal: j}
	}
	return &rebuilder{
		log:     slog.New(slog.NewTextHandler(log, nil)),
		journal: func() *journal.Journal { return j },
		views:   func() map[string]journal.Jobs { return views },
	}, log
}

func entries(t *testing.T, j *journal.Journal, tube string) int {
	t.Helper()
	n, err := j.Len(tube)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// A journal that is lost again is rebuilt again.
func TestRebuildEachLoss(t *testing.T) {
	t.Parallel()
	srv := beanstalktest.Start(t)
	q, err := beanstalk.Open(beanstalk.Options{Addrs: []string{srv.Addr()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { q.Close() })
	buriedIn(t, srv, "a", 7)
	j, path := damagedJournal(t)
	r, _ := newRebuilder(t, j, q.(queue.Admin), "a")
	now := time.Now()
	for round := range 3 {
		r.look(t.Context(), now)
		if n := entries(t, j, "a"); n != 7 {
			t.Fatalf("round %d: %d entries", round, n)
		}
		harm := os.Remove
		if round == 1 {
			harm = func(path string) error { return os.Truncate(path, 4096) }
		}
		if err := harm(path); err != nil {
			t.Fatal(err)
		}
		if round == 1 { // the journal notices by itself
			j.Buried(journal.Entry{ID: "1000", Tube: "other", Reason: "x"})
			if n := entries(t, j, "other"); n != 1 {
				t.Fatalf("%d entries", n)
			}
		}
	}
}

// countingAdmin counts the walks, and fails for one tube.
type countingAdmin struct {
	queue.Admin
	walks, looks map[string]int
	failing      string
}

func (a *countingAdmin) TubeStats(ctx context.Context, tube string) (queue.TubeStats, error) {
	a.looks[tube]++
	if tube == a.failing {
		return queue.TubeStats{}, queue.ErrUnavailable
	}
	return a.Admin.TubeStats(ctx, tube)
}

func (a *countingAdmin) Buried(ctx context.Context, tube string, limit int) ([]queue.BuriedJob, error) {
	a.walks[tube]++
	return a.Admin.Buried(ctx, tube, limit)
}

// While one server is away, the jobs of the other are walked over once; when it
// is back its jobs are entered, and then there is no more to do. A tube that
// fails does not keep the next from being rebuilt.
func TestRebuildServerAway(t *testing.T) {
	t.Parallel()
	here, away := beanstalktest.Start(t), beanstalktest.Start(t, beanstalktest.WithBinlog())
	for _, tube := range []string{"a", "b"} {
		buriedIn(t, here, tube, 5)
		buriedIn(t, away, tube, 3)
	}
	away.Kill()
	q, err := beanstalk.Open(beanstalk.Options{Addrs: []string{here.Addr(), away.Addr()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { q.Close() })
	admin := &countingAdmin{Admin: q.(queue.Admin), walks: make(map[string]int), looks: make(map[string]int)}
	j, _ := damagedJournal(t)
	r, log := newRebuilder(t, j, admin, "a", "b")
	now := time.Now()
	const minutes = 240
	for range minutes {
		r.look(t.Context(), now)
		now = now.Add(rebuildEvery)
	}
	for _, tube := range []string{"a", "b"} {
		if n := entries(t, j, tube); n != 5 || admin.walks[tube] != 1 || admin.looks[tube] > 12 {
			t.Fatalf("%s: %d entries, %d walks, %d looks in %d minutes", tube, n, admin.walks[tube], admin.looks[tube], minutes)
		}
	}
	if n := strings.Count(log.String(), "not rebuilt yet"); n != 1 {
		t.Errorf("said %d times", n)
	}
	away.Restart()
	admin.failing = "a"
	for range 2 {
		now = now.Add(maxRebuildPause)
		r.look(t.Context(), now)
	}
	if n := entries(t, j, "b"); n != 8 || entries(t, j, "a") != 5 {
		t.Fatalf("%d entries of the tube that does not fail", n)
	}
	admin.failing = ""
	now = now.Add(maxRebuildPause)
	r.look(t.Context(), now)
	if n := entries(t, j, "a"); n != 8 || strings.Count(log.String(), "is rebuilt from the queue") != 1 {
		t.Fatalf("%d entries", n)
	}
	looks := admin.looks["a"]
	r.look(t.Context(), now.Add(maxRebuildPause))
	if admin.looks["a"] != looks {
		t.Error("it looks on")
	}
}
