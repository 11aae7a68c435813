package jetstream

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"propeller/queue"
)

// storeMany puts 1500 jobs, which fill three files and a part of the fourth,
// finishes the first ten of one of two tubes, and buries one.
func storeMany(t *testing.T, q *client) {
	t.Helper()
	jobs := make([]queue.NewJob, 1500)
	for i := range jobs {
		jobs[i] = queue.NewJob{Tube: fmt.Sprint("t", i%2), Body: make([]byte, testBody)}
	}
	for _, s := range queue.PutAll(ctxOf(t), q, jobs) {
		if s.Err != nil {
			t.Fatal(s.Err)
		}
	}
	c := consumeTest(t, q, "t0")
	held := mustReceive(t, c, 11)
	mustDone(t, held[:10]...)
	if err := held[10].Bury(ctxOf(t), nil); err != nil {
		t.Fatal(err)
	}
	endNow(t, c)
	if _, err := q.TubeStats(ctxOf(t), "t0"); err != nil { // then the server knows what is finished
		t.Fatal(err)
	}
}

// What is missing after a start is told: how much, and between which numbers. Of
// 1500 jobs numbers 1, 3 … 21 were finished or buried before.
func TestDamage(t *testing.T) {
	t.Parallel()
	block := func(n int) string { return filepath.Join("msgs", fmt.Sprint(n, ".blk")) }
	for name, tt := range map[string]struct {
		harm   func(dir string) error
		killed bool
		want   string // of the log; "" for nothing
	}{
		"nothing":            {func(string) error { return nil }, false, ""},
		"nothing, killed":    {func(string) error { return nil }, true, ""},
		"the first file":     {func(d string) error { return os.Remove(filepath.Join(d, block(1))) }, false, "jobs=396 from=2 to=407"},
		"the second file":    {func(d string) error { return os.Remove(filepath.Join(d, block(2))) }, false, "jobs=407 from=408 to=814"},
		"the last file":      {func(d string) error { return os.Remove(filepath.Join(d, block(4))) }, false, "jobs=279 from=1222 to=1500"},
		"the last, killed":   {func(d string) error { return os.Remove(filepath.Join(d, block(4))) }, true, "jobs=268 from=1222 to=1500"},
		"half a file":        {func(d string) error { return os.Truncate(filepath.Join(d, block(2)), 1<<20) }, false, "jobs=306 from=509 to=814"},
		"the folder":         {os.RemoveAll, false, "jobs=1489 from=2 to=1500"},
		"the folder, killed": {os.RemoveAll, true, "jobs=1489 from=2 to=1500"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			q := openTest(t, Options{URL: embeddedIn(dir), timeout: patience})
			storeMany(t, q)
			stream := filepath.Join(dir, "jetstream", "$G", "streams", jobsStream)
			if tt.killed { // the file is as it was seconds before, and the server has no index
				if err := q.inspect(ctxOf(t), q.link.cn, false); err != nil {
					t.Fatal(err)
				}
				before, err := os.ReadFile(filepath.Join(dir, storedFile))
				if err != nil {
					t.Fatal(err)
				}
				closeNow(t, q)
				if err := os.Remove(filepath.Join(stream, "msgs", "index.db")); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(dir, storedFile), before, 0o600); err != nil {
					t.Fatal(err)
				}
			} else if err := q.Close(); err != nil {
				t.Fatal(err)
			}
			if err := tt.harm(stream); err != nil {
				t.Fatal(err)
			}
			log, lines := newLog()
			q = openTest(t, Options{URL: embeddedIn(dir), Log: log})
			var told []string
			for line := range strings.Lines(lines.String()) {
				if strings.Contains(line, `msg="jobs are gone from the queue's files"`) {
					told = append(told, line)
				}
			}
			switch {
			case tt.want == "":
				if len(told) > 0 || q.LostJobs() != 0 {
					t.Errorf("told %d, %q", q.LostJobs(), told)
				}
			case len(told) != 1 || !strings.Contains(told[0], "level=ERROR") || !strings.Contains(told[0], "stream=PROPELLER_JOBS "+tt.want) ||
				!strings.Contains(tt.want, fmt.Sprintf("jobs=%d ", q.LostJobs())):
				t.Errorf("told %d, %q, want %q", q.LostJobs(), told, tt.want)
			}
			closeNow(t, q)
			if q = openTest(t, Options{URL: embeddedIn(dir)}); q.LostJobs() != 0 {
				t.Errorf("told %d again", q.LostJobs())
			}
		})
	}
}

// A file that goes away while the queue is at work keeps its tubes from no other
// job, and is told once.
func TestDamageAtWork(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	log, lines := newLog()
	q := openTest(t, Options{URL: embeddedIn(dir), Log: log, timeout: patience})
	storeMany(t, q)
	if err := os.Remove(filepath.Join(dir, "jetstream", "$G", "streams", jobsStream, "msgs", "2.blk")); err != nil {
		t.Fatal(err)
	}
	c := consumeTest(t, q, "t1")
	mustDone(t, mustReceive(t, c, 750-204)...) // of the even numbers from 2 to 1500 without those from 408 to 814
	eventually(t, "the loss is told", func() bool { return q.LostJobs() > 0 })
	if n := q.LostJobs(); n != 407 || !strings.Contains(lines.String(), "jobs=407 from=408 to=814") {
		t.Errorf("told %d:\n%s", n, lines)
	}
	if st, err := q.TubeStats(ctxOf(t), "t1"); err != nil || st != (queue.TubeStats{}) {
		t.Errorf("left: %+v, %v", st, err)
	}
}

// Of a queue that was not ended in order only what is surely gone is told.
func TestGone(t *testing.T) {
	t.Parallel()
	made, at := time.Unix(1e9, 0), time.Unix(2e9, 0)
	was := streamState{Made: made, First: 1, Last: 100, Jobs: 50, Has: []span{{1, 10}, {30, 39}, {71, 100}}}
	for name, tt := range map[string]struct {
		now    streamState
		ends   time.Time
		closed bool
		jobs   uint64
		where  span
	}{
		"the same":                  {was, time.Time{}, true, 0, span{}},
		"some were done, then kill": {streamState{Made: made, First: 40, Last: 120, Jobs: 20}, time.Time{}, false, 0, span{}},
		"the last number is gone, its job was done before": {streamState{Made: made, First: 1, Last: 90, Jobs: 50}, time.Time{}, false, 0, span{}},
		"the end is gone":     {streamState{Made: made, First: 1, Last: 90, Jobs: 45}, time.Time{}, false, 5, span{91, 100}},
		"another stream":      {streamState{Made: at, First: 1, Last: 7, Jobs: 7}, time.Time{}, false, 50, span{1, 100}},
		"too old to be kept":  {streamState{Made: made, First: 60, Last: 100, Jobs: 40}, at, true, 0, span{}},
		"not that old":        {streamState{Made: made, First: 71, Last: 100, Jobs: 30, Has: []span{{71, 100}}}, at.Add(1), true, 20, span{1, 39}},
		"in the middle":       {streamState{Made: made, First: 1, Last: 100, Jobs: 40, Has: []span{{1, 10}, {71, 100}}}, time.Time{}, true, 10, span{30, 39}},
		"nobody knows where":  {streamState{Made: made, First: 1, Last: 100, Jobs: 40}, time.Time{}, true, 10, span{1, 100}},
		"more than there was": {streamState{Made: made, First: 1, Last: 101, Jobs: 51}, time.Time{}, true, 0, span{}},
	} {
		had := was
		had.Ends = tt.ends
		if jobs, where := gone(&had, &tt.now, tt.closed, at); jobs != tt.jobs || where != tt.where {
			t.Errorf("%s: %d, %v", name, jobs, where)
		}
	}
	was.Has = nil
	if jobs, where := gone(&was, &streamState{Made: made, First: 1, Last: 100, Jobs: 40, Has: []span{{1, 40}}}, true, at); jobs != 10 || where != (span{1, 100}) {
		t.Errorf("not listed before: %d, %v", jobs, where)
	}
	if got := without(span{1, 10}, []span{{0, 1}, {3, 4}, {9, 20}}); !slices.Equal(got, []span{{2, 2}, {5, 8}}) {
		t.Error(got)
	}
}
