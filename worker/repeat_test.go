package worker

import (
	"testing"
	"testing/synctest"
)

// A job that may have been finished before counts as possible duplicates: with what was
// delivered, and with what goes on in other jobs.
func TestRepeatsAreCounted(t *testing.T) {
	a, c := "aaaaaaaa", "cccccccc"
	for name, tt := range map[string]struct {
		job     string
		answers byToken
		doubles int64
	}{
		"delivered":        {jobText(""), nil, 1},
		"dead":             {jobText(""), byToken{testToken: gone}, 0},
		"list":             {fanOutText([]string{a, c}, ""), nil, 2},
		"list, one later":  {fanOutText([]string{a, c}, ""), byToken{a: busy}, 2},
		"list, both later": {fanOutText([]string{a, c}, ""), byToken{a: busy, c: busy}, 0},
		"list, one dead":   {fanOutText([]string{a, c}, ""), byToken{a: gone}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			for _, repeats := range []bool{true, false} {
				bubble(t, func(t *testing.T) {
					q := newFakeQueue()
					b := newBench(t, q)
					b.answer = tt.answers.answer
					q.add(tt.job).repeats = repeats
					b.start()
					synctest.Wait()
					b.halt(t)
					want := tt.doubles
					if !repeats {
						want = 0
					}
					if d := b.app.Counters.PossibleDuplicates.Load(); d != want {
						t.Errorf("repeats %v: counted %d, want %d", repeats, d, want)
					}
				})
			}
		})
	}
}
